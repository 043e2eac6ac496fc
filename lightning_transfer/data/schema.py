"""Say what the data look like, and whether they fit a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.data.new_classes import add_classes
from lightning_transfer.data.splits import fingerprint
from lightning_transfer.errors import CheckpointError, DataError, closest, listing
from lightning_transfer.types import SPLITS, Record, Schema, Task

__all__ = ["ORIGINAL_LABEL", "POSITIVE_CLASS", "Preprocessing", "build_schema", "check_preprocessing", "count_labels"]
__all__ += [
    "as_read",
    "count_negatives",
    "known_schema",
    "learnt_from_alone",
    "resolve_classes",
    "take_together",
    "warn_of_other_records",
]

POSITIVE_CLASS = "defect"
"""Name of everything but the negative class, where a model tells only these two apart."""

ORIGINAL_LABEL = "original_label"
"""Key of ``Record.meta`` under which the label stays that was taken together with others."""


class Preprocessing(Protocol):
    """What turns one input into tensors, and can say so in plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Return the full specification."""


# They decide which files are refused, and change no pixel of the others.
_GUARDS = {"max_megapixels", "max_oblique", "modalities"}


def resolve_classes(
    records: Sequence[Record],
    task: Task,
    *,
    classes: Sequence[str] | None = None,
    negative_class: str | None = None,
    restored: Schema | None = None,
    expands: Schema | None = None,
) -> tuple[str, ...]:
    """Return the classes in the order of the logits.

    Args:
        records: Their labels are the classes, sorted, unless ``classes`` names them.
        task: Multi-label needs ``classes``.
        classes: Names and order.
        negative_class: Comes first.
        restored: Schema of a checkpoint, whose order holds; the data may lack some of its classes.
        expands: Schema of a model that gets more classes: its classes come first, see `add_classes`.

    Raises:
        CheckpointError: If the data have a class, a negative class or a task that the checkpoint has not.
        DataError: If ``negative_class`` is no class, or a binary task has more than two classes.

    Example:
        >>> rows = [Record(id="1", input=None, label="bad"), Record(id="2", input=None, label="good")]
        >>> resolve_classes(rows, "binary", negative_class="good")
        ('good', 'bad')
    """
    labels = {record.label for record in records if isinstance(record.label, str)}
    found = tuple(classes) if classes is not None else tuple(sorted(labels))
    if expands is not None:
        found = add_classes(labels, task, expands, classes=classes)
    before = restored or expands
    if negative_class is not None and task != "multilabel":
        if negative_class not in (restored.classes if restored is not None else found):
            raise DataError(
                f"No class is `{negative_class}` (`negative_class`).{closest(negative_class, found)}"
                f" Classes: {listing(found, 20)}."
            )
        if negative_class in found and expands is None:
            found = (negative_class, *(name for name in found if name != negative_class))
    if restored is not None:
        other = classes is not None and set(found) != set(restored.classes)
        if labels - set(restored.classes) or other or restored.task != task:
            raise CheckpointError(
                f"The data do not fit the checkpoint. Data: {task}, {listing(found, 20)}. Checkpoint:"
                f" {restored.task}, {listing(restored.classes, 20)}. Use the data that belong to it, or train anew."
            )
    if before is not None and negative_class is not None and before.negative_class not in (None, negative_class):
        raise CheckpointError(
            f"`negative_class` is `{negative_class}`, and the checkpoint was trained with"
            f" `{before.negative_class}`. Use the checkpoint's."
        )
    if restored is not None:
        return restored.classes
    if task == "binary" and len(found) > 2:
        raise DataError(f"The task binary needs two classes, found {len(found)}: {listing(found, 10)}.")
    return found


def learnt_from_alone(
    records: Sequence[Record], task: Task, negative_class: str | None, restored: Schema | None = None
) -> str:
    """Return the negative class, for a model that learns from it alone.

    Args:
        records: Of all splits.
        task: Of the config.
        negative_class: Of the config.
        restored: Schema of a checkpoint; data for its test may lack the class.

    Raises:
        DataError: If there is no such class; names what exists.
    """
    if task == "multilabel":
        raise DataError("The task `multilabel` has no negative class, so a model cannot learn from it alone.")
    found = sorted({record.label for record in records if isinstance(record.label, str)})
    negative = negative_class or (restored.negative_class if restored is not None else None)
    if negative is None:
        raise DataError(
            "A model that learns from good parts alone must know which class they are: set `data.negative_class`."
            f" Classes: {listing(found, 20)}."
        )
    if restored is None and negative not in found:
        raise DataError(
            f"No class is `{negative}` (`negative_class`).{closest(negative, found)} Classes: {listing(found, 20)}."
        )
    return negative


def take_together(records: Sequence[Record], negative_class: str) -> list[Record]:
    """Return copies in which every label but the negative class is ``defect``; the label as read stays in ``meta``.

    Records that are so already stay as they are.

    Example:
        >>> [record] = take_together([Record(id="1", input=None, label="pit")], "good")
        >>> record.label, dict(record.meta)
        ('defect', {'original_label': 'pit'})
    """
    return [
        record
        if record.label is None or record.label == negative_class or ORIGINAL_LABEL in record.meta
        else replace(record, label=POSITIVE_CLASS, meta={**record.meta, ORIGINAL_LABEL: record.label})
        for record in records
    ]


def as_read(records: Sequence[Record]) -> list[Record]:
    """Return the records with the labels that `take_together` replaced.

    Example:
        >>> [record] = as_read(take_together([Record(id="1", input=None, label="pit")], "good"))
        >>> record.label, dict(record.meta)
        ('pit', {})
    """
    return [
        replace(
            record,
            label=record.meta[ORIGINAL_LABEL],
            meta={key: value for key, value in record.meta.items() if key != ORIGINAL_LABEL},
        )
        if ORIGINAL_LABEL in record.meta
        else record
        for record in records
    ]


def known_schema(schema: Schema | None) -> Schema:
    """Return the schema that a prediction needs.

    Raises:
        DataError: If there is none.
    """
    if schema is None:
        raise DataError(
            "Prediction needs the classes of a trained model, and the module has none. Use a module made by"
            " `from_checkpoint`, or call `datamodule.use_schema(schema)` before."
        )
    return schema


def warn_of_other_records(schema: Schema, restored: Schema) -> None:
    """Say that data differ from those a checkpoint was trained with, where both are known."""
    if restored.fingerprint not in ("", schema.fingerprint):
        rank_zero_warn(
            "The records or their splits differ from those the checkpoint was trained with. If they overlap, the"
            " test split may hold training records and the score is too good."
        )


def build_schema(
    records: Sequence[Record],
    classes: tuple[str, ...],
    task: Task,
    *,
    negative_class: str | None,
    sampling: str | None,
    preprocessing: Mapping[str, Any],
) -> Schema:
    """Return what the module and the checkpoint keep of the data.

    Args:
        records: With splits.
        classes: In the order of the logits.
        task: For binary the first class is the negative one.
        negative_class: The class that means "nothing found".
        sampling: ``weighted`` where batches are balanced.
        preprocessing: Plain values.
    """
    by_split = {split: [r for r in records if r.split == split] for split in SPLITS if split != "predict"}
    return Schema(
        task=task,
        classes=classes,
        counts={split: _count(rows, classes, task) for split, rows in by_split.items() if rows},
        negative_class=classes[0] if task in ("binary", "segmentation") and classes else negative_class,
        num_groups={
            split: len({record.group for record in rows})
            for split, rows in by_split.items()
            if rows and all(record.group is not None for record in rows)
        },
        columns=tuple(sorted({key for record in records for key in record.meta})),
        sampling=sampling,
        preprocessing=_plain(preprocessing),
        fingerprint=fingerprint(records),
        negatives=count_negatives(by_split["train"], classes) if task == "multilabel" else {},
    )


def check_preprocessing(current: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse another preprocessing than the checkpoint was trained with.

    Raises:
        CheckpointError: Names every key that differs, with both values.
    """
    now, then = _plain(current), _plain(saved)
    different = sorted(key for key in (now.keys() | then.keys()) - _GUARDS if now.get(key) != then.get(key))
    if then and different:
        lines = "; ".join(f"`{key}` is {now.get(key)}, the checkpoint has {then.get(key)}" for key in different)
        raise CheckpointError(f"The preprocessing differs from training's: {lines}. Use the checkpoint's values.")


def _count(records: Sequence[Record], classes: Sequence[str], task: Task) -> dict[str, int]:
    """Return what `Schema.counts` says of one split."""
    if task == "transcription":
        return {"utterances": len(records)}
    if task == "segmentation":
        # By the label of the whole image, which need not be a class of pixels.
        named = [str(record.label) if isinstance(record.label, str) else "images" for record in records]
        return {name: named.count(name) for name in sorted(set(named))}
    return count_labels(records, classes)


def count_labels(records: Sequence[Record], classes: Sequence[str]) -> dict[str, int]:
    """Return the number of records (multi-label: of positives) for each class.

    Example:
        >>> count_labels([Record("1", None, (1.0, None)), Record("2", None, (1.0, 0.0))], ("x", "y"))
        {'x': 2, 'y': 0}
    """
    counts = dict.fromkeys(classes, 0)
    for record in records:
        if isinstance(record.label, tuple):
            for name, value in zip(classes, record.label, strict=True):
                counts[name] += int(value == 1.0)
        elif record.label is not None:
            counts[record.label] = counts.get(record.label, 0) + 1
    return counts


def count_negatives(records: Sequence[Record], classes: Sequence[str]) -> dict[str, int]:
    """Return for each label of multi-label records how many are known not to have it.

    Example:
        >>> count_negatives([Record("1", None, (0.0, None)), Record("2", None, (0.0, 0.3))], ("x", "y"))
        {'x': 2, 'y': 0}
    """
    labels = [record.label for record in records if isinstance(record.label, tuple)]
    return {name: sum(label[place] == 0.0 for label in labels) for place, name in enumerate(classes)}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON keeps of the values, so that tuples and lists are alike."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
