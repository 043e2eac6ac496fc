"""Keep what libraries remark while they work for us from the user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["silenced"]


@contextmanager
def silenced(*loggers: str) -> Iterator[None]:
    """Ignore warnings, and all below an error from the named loggers, meanwhile; errors come through.

    Example:
        >>> with silenced("torch.onnx"):
        ...     logging.getLogger("torch.onnx").warning("not shown")
        >>> logging.getLogger("torch.onnx").level == logging.ERROR
        False
    """
    found = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in found]
    try:
        for logger in found:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(found, levels, strict=True):
            logger.setLevel(level)
