"""Read the labels of tickets: one or several, in levels, out of scope, or none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_transfer.data.texts_tables import cell_text
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.types import Task

__all__ = ["LabelReader", "label_at", "split_labels"]

_LABEL_SEPARATOR = "|"
_LEVEL_SEPARATOR = "/"


@dataclass(frozen=True)
class LabelReader:
    """Reads the labels of a table's rows, and gives them their final form when all rows are known.

    Args:
        task: ``multilabel`` allows several labels in a row.
        classes: Labels that are allowed, and for multi-label their order; None takes those of the table.
        level: Levels of a label such as ``billing/refund`` that are kept; None keeps all.
        out_of_scope: The label of what belongs nowhere.

    Example:
        >>> reader = LabelReader("multilabel", out_of_scope="other")
        >>> rows = [reader.parse(cell) for cell in ("billing|login", "other", "")]
        >>> classes = reader.find_classes(rows, "t.csv")
        >>> classes, [reader.encode(row, classes) for row in rows]
        (('billing', 'login'), [(1.0, 1.0), (0.0, 0.0), None])
    """

    task: Task = "multiclass"
    classes: tuple[str, ...] | None = None
    level: int | None = None
    out_of_scope: str | None = None

    def parse(self, value: Any) -> str | tuple[str, ...] | None:  # noqa: ANN401 - a cell
        """Return the label of a cell, of a multi-label row a tuple of names; None if it has none.

        Raises:
            DataError: If the row has several labels where one is expected, or one that is not allowed.
        """
        names = split_labels(value)
        if self.level is not None:
            names = tuple(dict.fromkeys(label_at(name, self.level) for name in names))
        if not names:
            return None
        if self.task != "multilabel":
            if len(names) > 1:
                raise DataError(
                    f"{len(names)} labels, {listing(f'`{name}`' for name in names)}. Keep one, or set"
                    " `task: multilabel`."
                )
        elif self.out_of_scope in names and len(names) > 1:
            raise DataError(f"`{self.out_of_scope}` (out of scope) stands beside {listing(names)}. Keep one of them.")
        if self.classes is not None:
            known = (*self.classes, *([self.out_of_scope] if self.out_of_scope is not None else []))
            for name in names:
                if name not in known:
                    raise DataError(
                        f"`{name}` is none of the `classes`.{closest(name, known)} There are {listing(known, 20)}."
                    )
        return names if self.task == "multilabel" else names[0]

    def find_classes(
        self, labels: Iterable[str | tuple[str, ...] | None], file: str, *, optional: bool = False
    ) -> tuple[str, ...]:
        """Return the classes, now that every row is known, without that of what is out of scope.

        Args:
            labels: As `parse` returns them.
            file: For the message.
            optional: ``out_of_scope`` need not appear.

        Raises:
            DataError: If no row is ``out_of_scope``, though others have labels.
        """
        names = {name for label in labels if label for name in (label if isinstance(label, tuple) else (label,))}
        if self.out_of_scope is not None and self.out_of_scope not in names and names and not optional:
            raise DataError(
                f"No row of `{file}` has the label `{self.out_of_scope}` (`out_of_scope`)."
                f"{closest(self.out_of_scope, names)} Labels: {listing(sorted(names), 20)}."
            )
        return self.classes if self.classes is not None else tuple(sorted(names - {self.out_of_scope}))

    def encode(
        self, label: str | tuple[str, ...] | None, classes: Sequence[str]
    ) -> str | tuple[float | None, ...] | None:
        """Return a multi-label row's names as 1.0 and 0.0, and other labels as they are."""
        if not isinstance(label, tuple):
            return label
        return tuple(float(name in label) for name in classes)


def split_labels(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - a cell
    """Return the labels of a cell: a list, a JSON list, or text parted by ``|``; each once, without spaces around it.

    Example:
        >>> split_labels(" billing | delivery "), split_labels('["a", "b|c"]'), split_labels(["a", "a"])
        (('billing', 'delivery'), ('a', 'b|c'), ('a',))
    """
    if isinstance(value, str):
        items: Sequence[Any] = value.split(_LABEL_SEPARATOR)
        if value.lstrip().startswith("["):
            try:
                items = json.loads(value)
            except ValueError:
                pass  # a label that begins with a bracket
    else:
        items = value if isinstance(value, list | tuple) else [value]
    names = [cell_text(item).strip() for item in items]
    return tuple(dict.fromkeys(name for name in names if name))


def label_at(label: str, level: int) -> str:
    """Return the first levels of a label such as ``queue/sub-queue``.

    Raises:
        DataError: If a level of the label is empty.
        ValueError: If ``level`` is smaller than 1.

    Example:
        >>> label_at("billing/refund", 1), label_at("returns", 1), label_at("billing / refund", 2)
        ('billing', 'returns', 'billing/refund')
    """
    if level < 1:
        raise ValueError(f"Expected `label_level` of at least 1, got {level}. Use null to keep labels whole.")
    parts = [part.strip() for part in label.split(_LEVEL_SEPARATOR)]
    if not all(parts):
        raise DataError(f"the label `{label}` has an empty level. Write `queue/sub-queue`, or set `label_level: null`.")
    return _LEVEL_SEPARATOR.join(parts[:level])
