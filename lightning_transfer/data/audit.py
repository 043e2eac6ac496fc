"""The cheap check of data: all that can be said of records without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from lightning_transfer.data.audit_columns import group_column_findings, time_findings
from lightning_transfer.data.audit_labels import label_findings
from lightning_transfer.data.audit_preprocessing import preprocessing_findings
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.schema import ORIGINAL_LABEL, as_read
from lightning_transfer.data.split_problems import MAX_EXAMPLES, find_split_problems
from lightning_transfer.data.tables import Skipped
from lightning_transfer.errors import DataError, listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import SPLITS, BackboneCard, Record

if TYPE_CHECKING:
    from lightning_transfer.data.datamodule import BaseDataModule

__all__ = ["audit_data", "audit_records", "count_records"]

_OF_TAUGHT_CLASSES = ("class-missing-in-split", "class-imbalance", "few-records")
_ORDER = ("error", "warning", "note")


def audit_records(
    records: Sequence[Record],
    *,
    classes: Sequence[str] | None = None,
    by_class: bool = True,
    shared: Collection[str] = (),
) -> list[Finding]:
    """Return what is to be said of records of any kind: labels, groups in their columns, order of time.

    Args:
        records: With splits.
        classes: Names of the columns of multi-label records.
        by_class: Whether labels are classes; of texts nothing is said here.
        shared: Columns that are known to be no groups.

    Example:
        >>> rows = [Record("1", "x", "free", "train"), Record("2", "y", "Free", "train"), Record("3", "z", "a", "test")]
        >>> [finding.code for finding in audit_records(rows) if finding.severity == "warning"]
        ['label-case', 'class-missing-in-split', 'few-records']
    """
    labels = label_findings(records, classes) if by_class else []
    return _sorted([*labels, *group_column_findings(records, shared), *time_findings(records)])


def audit_data(
    data: BaseDataModule,
    card: BackboneCard | None = None,
    *,
    failure: DataError | None = None,
    bad_files_are_errors: bool = False,
    near_limit: int | None = None,
    progress: Progress = quiet,
) -> list[Finding]:
    """Return all findings on the data that a datamodule has read, errors first.

    Args:
        data: After ``setup("fit")``, whether that was content or raised ``failure``.
        card: Of the backbone, to compare the preprocessing with.
        failure: What ``setup`` raised; the records that it had read by then are checked all the same.
        bad_files_are_errors: Whether files that cannot be used, and were left out, are errors; else they are warnings.
        near_limit: Records above which nearly equal ones are not searched for; None always searches.
        progress: Makes the bars.
    """
    records = as_read(data.records)
    findings = [*_skipped(data.list_skipped("fit"), error=bad_files_are_errors), *data.findings]
    if failure is not None and failure.findings:
        findings += failure.findings
    elif failure is not None:
        findings.append(Finding("unusable-data", "error", str(failure), 1, (), "Correct this first."))
        # It came before the check of the splits.
        findings += find_split_problems(records, expected=["train"] if records else [], by_class=data.has_classes)
    classes = data.classes if data.task == "multilabel" else None
    shared = getattr(data, "shared_columns", ())
    found = audit_records(records, classes=classes, by_class=data.has_classes, shared=shared)
    if any(ORIGINAL_LABEL in record.meta for record in data.records):
        # Learnt from the negative class alone: how many there are of the others is no matter.
        found = [finding for finding in found if finding.code not in _OF_TAUGHT_CLASSES]
    findings += found
    near = near_limit is None or len(records) <= near_limit
    if records:
        findings += data.audit_inputs(records, near=near, progress=progress)
    if not near:
        findings.append(
            Finding(
                "near-duplicates-not-searched",
                "note",
                f"Inputs that are nearly the same were not searched for: {len(records)} records, above {near_limit}.",
                len(records),
                (),
                "`check-data` searches, whatever their number.",
            )
        )
    if card is not None and data.preprocessing is not None:
        findings += preprocessing_findings(data.preprocessing.to_dict(), card)
    return _sorted(findings)


def count_records(records: Sequence[Record]) -> dict[str, int]:
    """Return split -> number of records, in the order of the splits.

    Example:
        >>> count_records([Record("1", None, split="test"), Record("2", None, split="train")])
        {'train': 1, 'test': 1}
    """
    found = Counter(record.split for record in records)
    return {split: found[split] for split in SPLITS if found[split]}


def _skipped(skipped: Sequence[Skipped], *, error: bool) -> list[Finding]:
    if not skipped:
        return []
    empty = sum("the file is empty" in skip.reason for skip in skipped)
    named = [f"{skip.record.id} ({skip.reason})" for skip in skipped]
    return [
        Finding(
            "unreadable-file",
            "error" if error else "warning",
            f"{len(skipped)} records cannot be used{f', {empty} of them empty files' if empty else ''}:"
            f" {listing(skip.record.id for skip in skipped)}.",
            len(skipped),
            tuple(named[:MAX_EXAMPLES]),
            "Mend or remove them, or set `data.on_bad_file: skip` to train without them.",
        )
    ]


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
