"""Which classes data add to those of a finished model, in what order; a misspelt old class is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightning_transfer.errors import CheckpointError, DataError, listing
from lightning_transfer.types import Schema, Task

__all__ = ["add_classes", "misspelt"]

# Shorter names (`A1`, `IT`) are often one letter apart and mean different things.
_SHORTEST = 5


def add_classes(
    found: Iterable[str], task: Task, old: Schema, *, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the old classes in their order, then the new ones: sorted, or as ``classes`` names them.

    Args:
        found: Labels of the data; old classes may be absent.
        task: Of the data.
        old: Of the model that gets more classes.
        classes: All classes, or the new ones, by name; then a name may look like an old one.

    Raises:
        CheckpointError: If the task is another one.
        DataError: If there is no new class, or one looks like a misspelt old one.

    Example:
        >>> add_classes({"refund", "billing"}, "multiclass", Schema("multiclass", ("delivery", "billing")))
        ('delivery', 'billing', 'refund')
    """
    if task != old.task:
        raise CheckpointError(
            f"The data are for {task}, and the model to expand for {old.task}. Set `task: {old.task}`."
        )
    labels = set(found)
    if task == "multilabel" and (classes is None or tuple(classes[: old.num_classes]) != old.classes):
        raise DataError(
            "Labels of multi-label data stand in the order of `classes`, so name them all: first those of the model to "
            f"expand, {listing(old.classes, 20)}, then the new ones."
        )
    if classes is None:
        new = sorted(labels - set(old.classes))
        wrong = [(name, meant) for name in new if (meant := misspelt(name, old.classes)) is not None]
        if wrong:
            named = listing(f"`{name}` (`{meant}`?)" for name, meant in wrong)
            raise DataError(
                f"New classes that look like misspelt old ones: {named}. Correct the labels; or if they are new, name "
                "all new classes in `classes`."
            )
    else:
        new = [name for name in classes if name not in old.classes]
        missing = sorted(labels - set(old.classes) - set(new))
        if missing:
            raise DataError(f"Labels that are neither old classes nor in `classes`: {listing(missing)}.")
    if not new:
        raise DataError(
            f"The data have no class that is new: they have {listing(sorted(labels), 20)}, and the model to expand has "
            f"{listing(old.classes, 20)}. To go on with the same classes, train without `expand_from`."
        )
    return (*old.classes, *new)


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that another writing, or a single slip, makes of this one; None if there is none.

    Case, spaces and signs do not count. A slip is one letter more, less or other, or two that changed places, in a name
    of at least 5 letters; another digit is another name.

    Example:
        >>> [misspelt(name, ["Delivery", "tier 1"]) for name in ("delivery ", "delivrey", "deliveries", "tier 2")]
        ['Delivery', 'Delivery', None, None]
    """
    wanted = _letters(name)
    for other in known:
        if name == other:
            continue
        letters = _letters(other)
        if letters == wanted:
            return other
        digits = [character for character in wanted if character.isdigit()]
        if digits != [character for character in letters if character.isdigit()]:
            continue
        if min(len(wanted), len(letters)) >= _SHORTEST and _one_slip(wanted, letters):
            return other
    return None


def _letters(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _one_slip(first: str, second: str) -> bool:
    """Tell whether two different words are one letter, or one exchange of neighbours, apart."""
    short, long = sorted((first, second), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next((place for place, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    exchanged = long[start + 1 : start + 2] + long[start : start + 1] + long[start + 2 :]
    return short[start + 1 :] == long[start + 1 :] or short[start:] == exchanged
