"""Leave out of the terminal what Lightning says on every run and nobody can act on. No torch."""

from __future__ import annotations

import logging
import warnings

__all__ = ["NOISE", "drop_noise"]

NOISE = (
    "💡 Tip",  # advertises another product
    "TPU available",
    "Restoring states from the checkpoint path",  # the verb's own argument; the run folder is printed at the end
    "Loaded model weights from the checkpoint",
)
"""How messages start that are left out."""

_LOGGERS = tuple(
    f"{package}.utilities.{module}"
    for package in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
    for module in ("rank_zero", "seed")
)


def drop_noise() -> None:
    """Filter Lightning's loggers, and one warning that Lightning causes itself in torch; safe to call again."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _is_news not in logger.filters:
            logger.addFilter(_is_news)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().lstrip().startswith(NOISE)
