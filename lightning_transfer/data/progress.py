"""How a long step of this layer asks for a bar, without knowing who draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Bar", "Progress", "quiet"]


class Bar(Protocol):
    """What a step tells its progress."""

    def update(self, n: int = 1, /) -> object:
        """Move on by ``n``."""


Progress = Callable[[str, int], AbstractContextManager[Bar]]
"""Called with what is done and the number of steps; shows a bar while the block runs."""


class _Quiet:
    def update(self, n: int = 1, /) -> None:
        return None


@contextmanager
def quiet(description: str, total: int) -> Iterator[Bar]:
    """Show nothing.

    Example:
        >>> with quiet("Counting", 3) as bar:
        ...     _ = bar.update(3)
    """
    yield _Quiet()
