"""What a check of the data has to say, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check of the data has to say.

    Attributes:
        code: Name of the check, in kebab-case: ``group-overlap``.
        severity: ``error``: the score or the model would be wrong. ``warning``: it may be. ``note``: good to know.
        message: One sentence with numbers.
        count: How many records, groups, values or classes it is about.
        examples: At most 20: ids of records, or ``id1 | id2 (reason)``.
        advice: What to do.

    Raises:
        ValueError: If there are more than 20 examples.

    Example:
        >>> found = Finding("group-overlap", "error", "1 group is in two splits.", 1, ("a.png | b.png (lot 7)",))
        >>> found.to_dict()["examples"]
        ['a.png | b.png (lot 7)']
    """

    code: str
    severity: Literal["error", "warning", "note"]
    message: str
    count: int
    examples: tuple[str, ...] = ()
    advice: str = ""

    def __post_init__(self) -> None:
        if len(self.examples) > 20:
            raise ValueError(f"Expected at most 20 `examples`, got {len(self.examples)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "examples": list(self.examples)}
