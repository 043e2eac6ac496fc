"""Find splits that leak or that no model can learn from; each problem is a finding."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from lightning_transfer.errors import closest, listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import SPLITS, Record, Split

__all__ = ["MAX_EXAMPLES", "find_split_problems", "group_key"]

MAX_EXAMPLES = 20
"""Examples that a finding holds."""


def find_split_problems(
    records: Sequence[Record],
    *,
    expected: Sequence[Split] = ("train", "val", "test"),
    classes: Sequence[str] | None = None,
    given: bool = False,
    enough: str | None = None,
    known: Collection[str] = (),
    by_class: bool = True,
) -> list[Finding]:
    """Return what is wrong with the splits, each an error: a fit refuses them.

    Args:
        records: With splits.
        expected: Splits that must not be empty. Without ``train`` in it, classes are not looked at.
        classes: Class names that training must show; None takes those of the data.
        given: Whether the data brought the splits along; else no class may be of one group.
        enough: The one class that training needs, where a model learns from it alone; then ``classes`` does not count.
        known: Classes that the model has learnt before; training may lack them.
        by_class: Whether labels are classes; texts must be there, and no more.

    Returns:
        ``group-overlap``, ``empty-split``, ``missing-label``, ``class-missing-in-train``, ``unknown-class``,
        ``single-class``, ``class-in-one-group``, ``label-width``, ``one-sided-class``, ``no-negative-class``.

    Example:
        >>> rows = [Record("a", None, "x", "train", group="lot 1"), Record("b", None, "y", "test", group="lot 1")]
        >>> [problem.code for problem in find_split_problems(rows, expected=["test"])]
        ['group-overlap']
    """
    problems: list[Finding] = []
    by_split: dict[str, list[Record]] = {name: [r for r in records if r.split == name] for name in SPLITS}
    groups: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        if record.group is not None and record.split is not None:
            groups[record.group].setdefault(record.split, record.id)
    leaks = {name: sides for name, sides in sorted(groups.items()) if len(sides) > 1}
    if leaks:
        named = (f"`{name}` ({' and '.join(s for s in SPLITS if s in sides)})" for name, sides in leaks.items())
        problems.append(
            _error(
                "group-overlap",
                f"{len(leaks)} groups are in more than one split: {listing(named)}.",
                len(leaks),
                (f"{_sides(sides)} (group {name})" for name, sides in leaks.items()),
                "A group must stay on one side; correct the split column, or leave it out and let the groups decide.",
            )
        )
    for name in expected:
        if not by_split[name]:
            sizes = ", ".join(f"{key} {len(rows)}" for key, rows in by_split.items() if rows)
            num_groups = len({group_key(record) for record in records})
            problems.append(
                _error(
                    "empty-split",
                    f"The split `{name}` is empty ({sizes or 'no records'}; {num_groups} groups).",
                    1,
                    (),
                    f"Raise `{name}_fraction` or bring more groups.",
                )
            )
    # A mask is enough where pixels have the classes.
    bare = [r for name, rows in by_split.items() if name != "predict" for r in rows if r.label is None]
    unlabelled = [record.id for record in bare if by_class or record.mask is None]
    if unlabelled:
        problems.append(
            _error(
                "missing-label",
                f"{len(unlabelled)} records have no label: {listing(f'`{name}`' for name in unlabelled)}.",
                len(unlabelled),
                unlabelled,
                "Label or remove them.",
            )
        )
    if "train" in expected and by_class:
        found = _label_problems(by_split, classes, known) if enough is None else _lacks(by_split["train"], enough)
        if found and given:
            hint = "These splits came with the data: `given_splits: ignore` divides all records anew."
            found[-1] = replace(found[-1], advice=f"{found[-1].advice} {hint}")
        problems.extend(found)
        if enough is None and not given and not leaks and len(expected) > 1:
            problems.extend(_one_group_problems(record for record in records if record.label not in known))
    return problems


def group_key(record: Record) -> str:
    """Return the group's name, or one that no group has for a record of its own.

    Example:
        >>> group_key(Record("a", None, group="7")), group_key(Record("7", None))
        ('group 7', 'record 7')
    """
    return f"group {record.group}" if record.group is not None else f"record {record.id}"


def _sides(first: Mapping[str, str]) -> str:
    """Name a record of each split."""
    return " | ".join(f"{split} {first[split]}" for split in SPLITS if split in first)


def _error(code: str, message: str, count: int, examples: Iterable[str], advice: str) -> Finding:
    return Finding(code, "error", message, count, tuple(examples)[:MAX_EXAMPLES], advice)


def _label_problems(
    by_split: dict[str, list[Record]], classes: Sequence[str] | None, known: Collection[str]
) -> list[Finding]:
    """Name what keeps a model from learning or from being tested."""
    problems = []
    if any(isinstance(record.label, tuple) for rows in by_split.values() for record in rows):
        return _multilabel_problems(by_split["train"], classes)
    train = Counter(str(record.label) for record in by_split["train"] if record.label is not None)
    reported: set[str] = set()
    for name in ("val", "calibration", "test"):
        labelled = [record for record in by_split[name] if record.label is not None]
        unseen = sorted({str(record.label) for record in labelled} - train.keys() - set(known))
        reported.update(unseen)
        if unseen:
            problems.append(
                _error(
                    "class-missing-in-train",
                    f"Labels in `{name}` that `train` lacks: {listing(f'`{label}`' for label in unseen)}. `train` has"
                    f" {listing((f'`{label}` {n}' for label, n in sorted(train.items())), 8) or 'none'}.",
                    len(unseen),
                    (f"{record.id} ({record.label})" for record in labelled if record.label in unseen),
                    "Add training records of them or leave them out; with few groups, another `split_seed` may help.",
                )
            )
    absent = sorted(set(classes or ()) - train.keys() - reported - set(known))
    if absent:
        problems.append(
            _error(
                "class-missing-in-train",
                f"Classes without training records: {listing(f'`{name}`' for name in absent)}. `train` has"
                f" {listing((f'`{label}`' for label in sorted(train)), 8) or 'none'}.",
                len(absent),
                absent,
                "Add training records of them, or take them out of `classes`.",
            )
        )
    foreign = sorted(train.keys() - set(classes)) if classes is not None else []
    if foreign:
        problems.append(
            _error(
                "unknown-class",
                f"Labels that are not in `classes`: {listing(f'`{name}`' for name in foreign)}. `classes` has"
                f" {', '.join(f'`{name}`' for name in classes or ())}.",
                len(foreign),
                foreign,
                "Name them in `classes`, or leave `classes` out to take the labels as they are.",
            )
        )
    if len(train) == 1 and not known:
        only = next(iter(train))
        problems.append(
            _error(
                "single-class",
                f"`train` has one class only: `{only}`.",
                1,
                (),
                "At least two are needed to learn from.",
            )
        )
    return problems


def _one_group_problems(records: Iterable[Record]) -> list[Finding]:
    """Name classes that cannot be both learnt and tested, wherever their group goes."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        if isinstance(record.label, str) and record.split != "predict":
            groups[record.label].add(group_key(record))
    return [
        _error(
            "class-in-one-group",
            f"The class `{label}` has one group only (`{next(iter(keys)).split(' ', 1)[1]}`), so it cannot be both"
            " learnt and tested.",
            1,
            (),
            "Bring records of another group, join it with another class, leave it out, or give the splits yourself.",
        )
        for label, keys in sorted(groups.items())
        if len(keys) == 1
    ]


def _lacks(train: Sequence[Record], name: str) -> list[Finding]:
    """Say so where the one class that is needed has no training record."""
    found = Counter(str(record.label) for record in train)
    if found[name] or not train:
        return []
    return [
        _error(
            "no-negative-class",
            f"`train` has no record of `{name}` (`negative_class`), and it is learnt from alone.{closest(name, found)}"
            f" `train` has {listing((f'`{label}` {n}' for label, n in sorted(found.items())), 8)}.",
            1,
            (),
            "Correct `negative_class`, or the splits.",
        )
    ]


def _multilabel_problems(train: Sequence[Record], classes: Sequence[str] | None) -> list[Finding]:
    """Name classes that training shows on one side only."""
    widths = sorted({len(record.label) for record in train if isinstance(record.label, tuple)})
    if len(widths) > 1 or (classes is not None and widths and widths[0] != len(classes)):
        wanted = f"`classes` has {len(classes)}" if classes is not None else "all must agree"
        values = " and ".join(map(str, widths))
        return [
            _error(
                "label-width", f"Multi-label records have {values} values; {wanted}.", 1, (), "Give one value a class."
            )
        ]
    problems = []
    for column in range(widths[0] if widths else 0):
        seen = {record.label[column] for record in train if isinstance(record.label, tuple)} - {None}
        if len(seen) < 2:
            name = classes[column] if classes is not None else f"column {column}"
            state = f"only {int(next(iter(seen)) or 0)}" if seen else "no value"
            problems.append(
                _error(
                    "one-sided-class",
                    f"The class `{name}` has {state} in `train`.",
                    1,
                    (),
                    "Both 1 and 0 are needed to learn it.",
                )
            )
    return problems
