"""Check medical images as a radiographer would: patients, burned-in text, modality, spacing, hints at labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_transfer.data.audit_associations import association_findings
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.errors import listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import SPLITS, Record

if TYPE_CHECKING:
    from lightning_transfer.data.scan_options import ScanFacts

__all__ = ["flip_findings", "patient_findings", "scan_findings"]

_MAX_SPACING = 2.0
_COLUMNS = ("site", "view", "scanner", "sex")


def patient_findings(records: Sequence[Record]) -> list[Finding]:
    """Count patients in each split, and find those whose rows contradict each other.

    Args:
        records: With splits; ``group`` is the patient.

    Returns:
        ``patients``, ``patient-contradiction``.

    Example:
        >>> rows = [Record(sex, None, "x", "train", "p1", {"sex": sex}) for sex in ("F", "M")]
        >>> [found.code for found in patient_findings(rows)]
        ['patients', 'patient-contradiction']
    """
    members: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.group is not None and record.split != "predict":
            members[record.group].append(record)
    if not members:
        return []
    by_split = {
        split: len({record.group for record in records if record.split == split and record.group is not None})
        for split in SPLITS
        if split != "predict"
    }
    parts = ", ".join(f"{split} {count}" for split, count in by_split.items() if count)
    sizes = [len(rows) for rows in members.values()]
    findings = [
        Finding(
            "patients",
            "note",
            f"{sum(sizes)} images of {len(members)} patients ({parts}); up to {max(sizes)} of one, median"
            f" {int(np.median(sizes))}.",
            len(members),
        )
    ]
    odd = []
    for patient, rows in sorted(members.items()):
        values = {str(row.meta.get("sex") or "").strip().upper()[:1] for row in rows} - {"", "O", "U"}
        if len(values) > 1:
            odd.append(patient)
    if odd:
        findings.append(
            Finding(
                "patient-contradiction",
                "warning",
                f"{len(odd)} patients have images of both sexes: {listing(odd)}.",
                len(odd),
                tuple(odd[:MAX_EXAMPLES]),
                "Are two people under one number? Where each site numbers its own patients, set"
                " `data.patients_by_site: true`.",
            )
        )
    return findings


def scan_findings(
    records: Sequence[Record], facts: Sequence[ScanFacts], labels: Sequence[str], *, of_classes: bool = True
) -> list[Finding]:
    """Return what is to be said of medical images and of the columns beside them; none is opened.

    Args:
        records: With splits, labels, patients as groups.
        facts: Of each record.
        labels: Names of the findings, or of the classes.
        of_classes: Whether a label is a class or findings; else no column can tell it.

    Returns:
        ``column-tells-label``, ``burned-in-annotation``, ``burned-in-unknown``, ``other-modality``, ``pixel-spacing``,
        ``bits``.
    """
    if not records:
        return []
    columns = {
        name: [str(record.meta.get(name) or "") for record in records]
        for name in (*_COLUMNS, "license_class")
        if any(record.meta.get(name) for record in records)
    }
    for name, read in _FACT_COLUMNS.items():
        columns.setdefault(name, [read(found) for found in facts])
    findings = association_findings(records, columns, labels) if of_classes else []
    return [
        *findings,
        *_burned_in(records, facts),
        *_modalities(records, facts),
        *_spacing(records, facts),
        *_bits(facts),
    ]


def flip_findings(names: Sequence[str]) -> list[Finding]:
    """Warn of an augmentation that turns left into right.

    Example:
        >>> [found.code for found in flip_findings(["brightness", "horizontal_flip"])]
        ['horizontal-flip']
    """
    if "horizontal_flip" not in names:
        return []
    return [
        Finding(
            "horizontal-flip",
            "warning",
            "`augmentations` flips images left to right: the heart comes to lie on the right, and marks are mirrored.",
            1,
            (),
            "Leave it out unless the images have no side, such as cells under a microscope.",
        )
    ]


def _burned_in(records: Sequence[Record], facts: Sequence[ScanFacts]) -> list[Finding]:
    marked = [record.id for record, found in zip(records, facts, strict=True) if found.burned_in]
    findings = []
    if marked:
        findings.append(
            Finding(
                "burned-in-annotation",
                "warning",
                f"{len(marked)} images say that text is burned into their pixels: {listing(marked)}.",
                len(marked),
                tuple(marked[:MAX_EXAMPLES]),
                "It may name the patient, who is then in every picture of a report, or the side and the device, which a"
                " model learns. Cover it, or leave the images out.",
            )
        )
    silent = sum(found.burned_in is None and bool(found.modality) for found in facts)
    if silent:
        findings.append(
            Finding(
                "burned-in-unknown",
                "note",
                f"{silent} DICOM images do not say whether text is burned into their pixels.",
                silent,
                (),
                "Look at some before pictures leave the hospital: no tag can be trusted to tell.",
            )
        )
    return findings


def _modalities(records: Sequence[Record], facts: Sequence[ScanFacts]) -> list[Finding]:
    counts = Counter(found.modality or "unknown" for found in facts)
    if len(counts) < 2:
        return []
    most = counts.most_common(1)[0][0]
    others = [record.id for record, found in zip(records, facts, strict=True) if (found.modality or "unknown") != most]
    named = ", ".join(f"{name} {number}" for name, number in counts.most_common())
    return [
        Finding(
            "other-modality",
            "warning",
            f"The images are of {len(counts)} modalities ({named}).",
            len(others),
            tuple(others[:MAX_EXAMPLES]),
            "Leave out what the model is not for: `data.modalities` names those that are read.",
        )
    ]


def _spacing(records: Sequence[Record], facts: Sequence[ScanFacts]) -> list[Finding]:
    sizes = np.array([float(found.spacing[0]) if found.spacing else np.nan for found in facts])
    known = sizes[~np.isnan(sizes)]
    if not len(known):
        return []
    low, high = float(known.min()), float(known.max())
    wide = low > 0 and high / low > _MAX_SPACING
    missing = len(sizes) - len(known)
    middle = float(np.median(known))
    far = [
        record.id
        for record, size in zip(records, sizes, strict=True)
        if not np.isnan(size) and not middle / _MAX_SPACING <= size <= middle * _MAX_SPACING
    ]
    return [
        Finding(
            "pixel-spacing",
            "warning" if wide else "note",
            f"Pixels of {low:.3g} to {high:.3g} mm (median {middle:.3g})"
            + (f"; {missing} images do not say" if missing else "")
            + ("; the same organ is shown at sizes that differ more than twofold." if wide else "."),
            len(far) if wide else len(known),
            tuple(far[:MAX_EXAMPLES]),
            "Look at those that are far from the median: another body part, or a tag that is wrong." if wide else "",
        )
    ]


def _bits(facts: Sequence[ScanFacts]) -> list[Finding]:
    counts = Counter(found.bits for found in facts if found.bits)
    if not counts:
        return []
    named = ", ".join(f"{bits} bits {number}" for bits, number in sorted(counts.items()))
    return [Finding("bits", "note", f"Depth of the images: {named}.", sum(counts.values()))]


# What a file says of itself may tell the label as well as a column of the table does.
_FACT_COLUMNS: Mapping[str, Callable[[ScanFacts], str]] = {
    "view": lambda found: found.view,
    "scanner": lambda found: found.scanner,
    "photometric": lambda found: found.photometric,
    "bits": lambda found: str(found.bits or ""),
    "kind of file": lambda found: found.kind,
}
