"""The same progress bar as in training, for every long step after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress"]


@contextmanager
def progress(description: str, total: int | None, show: bool = True) -> Iterator[Any]:
    """Show a bar while the block runs; its ``update(n)`` moves it by ``n``.

    Args:
        description: Stands before the bar.
        total: Steps to come; None if unknown.
        show: False keeps quiet, with the same interface.

    Example:
        >>> with progress("Bootstrap", total=3, show=False) as bar:
        ...     _ = bar.update(3)
    """
    from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

    bar = Tqdm(desc=description, total=total, disable=not show, leave=False, dynamic_ncols=True)
    try:
        yield bar
    finally:
        bar.close()
