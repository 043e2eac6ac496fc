"""Entry point of ``python -m recipes.nlp``."""

import sys

from lightning_transfer.cli import main
from recipes.nlp.cli import RECIPE

if __name__ == "__main__":
    sys.exit(main(RECIPE))
