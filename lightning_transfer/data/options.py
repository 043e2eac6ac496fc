"""Check the options that all datamodules share."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_options"]


def check_options(
    *,
    batch_size: int,
    num_workers: int,
    val_fraction: float,
    calibration_fraction: float,
    test_fraction: float,
    num_folds: int | None,
    fold: int,
    on_bad_file: str,
    given_splits: str,
    split_by_time: str | None,
    sampler: str | None,
    classes: Sequence[str] | None,
    task: str,
) -> None:
    """Refuse options of `BaseDataModule` that are out of range or contradict each other.

    Raises:
        ValueError: Names the option and its value.
    """
    if batch_size < 1 or num_workers < 0:
        raise ValueError(
            f"Expected `batch_size` of at least 1 and `num_workers` of at least 0, got {batch_size}, {num_workers}."
        )
    for name, value in (("val", val_fraction), ("calibration", calibration_fraction), ("test", test_fraction)):
        if not 0 <= value < 1:
            raise ValueError(f"Expected `{name}_fraction` in [0, 1), got {value}. Use 0 for no such split.")
    if val_fraction + calibration_fraction >= 1:
        raise ValueError(
            f"`val_fraction` {val_fraction} and `calibration_fraction` {calibration_fraction} leave no train split."
        )
    if num_folds is not None and (num_folds < 2 or not 0 <= fold < num_folds):
        raise ValueError(f"Expected `num_folds` of at least 2 and `fold` below it, got {num_folds} and {fold}.")
    if num_folds is not None and split_by_time is not None:
        raise ValueError(
            f"`split_by_time` {split_by_time} and `num_folds` {num_folds} exclude each other: time has one order."
            " Set one of them to null."
        )
    if on_bad_file not in ("error", "skip"):
        raise ValueError(f"Expected `on_bad_file` error or skip, got `{on_bad_file}`.")
    if given_splits not in ("keep", "ignore"):
        raise ValueError(f"Expected `given_splits` keep or ignore, got `{given_splits}`.")
    if task not in ("multiclass", "binary", "multilabel", "transcription", "segmentation"):
        raise ValueError(
            f"Expected `task` multiclass, binary, multilabel, transcription or segmentation, got `{task}`."
        )
    if sampler not in (None, "weighted") or (sampler and task in ("multilabel", "transcription")):
        raise ValueError(f"`sampler` {sampler!r} does not fit the task `{task}`. Use null, or class weights.")
    if task == "multilabel" and classes is None:
        raise ValueError("`classes` is None. The task multilabel needs the names of its columns, in order.")
    if classes is not None and task == "transcription":
        raise ValueError(f"`classes` is {list(classes)}, and texts have none. Leave it out, or change `task`.")
    if classes is not None and len(set(classes)) < max(len(classes), 2):
        raise ValueError(f"Expected at least two different `classes`, got {list(classes)}.")
