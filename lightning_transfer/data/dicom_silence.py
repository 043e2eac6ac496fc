"""Keep pydicom quiet while it reads: its warnings quote values of tags, and those may name a patient."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["silence"]

_LOCK = threading.Lock()
_LIBRARIES = r"pydicom|pylibjpeg|libjpeg|openjpeg|rle"


class _Depth:
    """How many threads read now; filters of warnings are the process's, so the first sets and the last restores."""

    readers = 0
    before: warnings.catch_warnings[None] | None = None
    level = logging.NOTSET


@contextmanager
def silence() -> Iterator[None]:
    """Drop warnings and log lines of pydicom and its decoders for as long as any thread reads; others pass.

    Example:
        >>> with silence():
        ...     logging.getLogger("pydicom").isEnabledFor(logging.WARNING)
        False
    """
    logger = logging.getLogger("pydicom")
    with _LOCK:
        _Depth.readers += 1
        if _Depth.readers == 1:
            _Depth.before = warnings.catch_warnings()
            _Depth.before.__enter__()
            warnings.filterwarnings("ignore", module=_LIBRARIES)
            _Depth.level = logger.level
            logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _LOCK:
            _Depth.readers -= 1
            if _Depth.readers == 0 and _Depth.before is not None:
                _Depth.before.__exit__(None, None, None)
                _Depth.before = None
                logger.setLevel(_Depth.level)
