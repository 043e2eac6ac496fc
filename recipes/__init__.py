"""Recipe packs: ready runs for one domain each, started by ``python -m recipes.<domain>`` from a checkout."""
