"""Exception classes that callers may want to catch; every other wrong argument is a ``ValueError`` or ``TypeError``."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["BackboneError", "CheckpointError", "DataError", "TransferError", "closest", "listing"]


class TransferError(Exception):
    """Base of the errors that a user can mend; the command line prints the message and no trace."""


class DataError(TransferError):
    """Data that cannot be used as it is: unreadable files, unknown columns, a leak between splits.

    Args:
        message: What the user reads.
        findings: The same as data, a ``Finding`` for each problem; empty where the message alone says it.
    """

    def __init__(self, message: str, *, findings: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class BackboneError(TransferError):
    """A backbone that cannot be found, fetched or loaded."""


class CheckpointError(TransferError):
    """A checkpoint that does not fit: other classes, other preprocessing, or not one of ours."""


def closest(word: str, known: Iterable[str]) -> str:
    """Compose the hint that names the known word nearest to a mistyped one.

    Args:
        word: What the user wrote.
        known: What exists.

    Returns:
        ``" Did you mean `resnet18`?"`` with a leading space, or an empty string when nothing is near.

    Example:
        >>> closest("resnet81", ["resnet18", "vgg16"])
        ' Did you mean `resnet18`?'
    """
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean `{near[0]}`?" if near else ""


def listing(items: Iterable[object], limit: int = 5) -> str:
    """Name a few items of a long list, and how many more there are.

    Args:
        items: What to list; each is shown by ``str``.
        limit: Items to show; five fit in one terminal line.

    Example:
        >>> listing(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    names = [str(item) for item in items]
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
