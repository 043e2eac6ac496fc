"""Patients stay on one side, and other sites are the test where that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning_transfer.data.deidentification import source_path
from lightning_transfer.data.findings_table import suggest_patient
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

__all__ = ["UnknownPatients", "external_test", "patients_by_site", "require_patients"]

UnknownPatients = Literal["error", "each_image"]


def require_patients(
    records: Sequence[Record], unknown: UnknownPatients, columns: Sequence[str] = ()
) -> tuple[list[Record], list[Finding]]:
    """Refuse records without a patient, unless the user says that each image is of another one.

    Args:
        records: ``group`` is the patient.
        unknown: What to do with those that have none.
        columns: Of the table, for the hint.

    Returns:
        The records, each with a group where some have one, and a warning for those that had none. Images of one study
        stay together.

    Raises:
        DataError: If a patient is unknown and that is not allowed.

    Example:
        >>> rows = [Record("a", "a.png", group="p1"), Record("b", "b.png")]
        >>> require_patients(rows, "each_image")[1][0].message
        '1 of 2 images has no patient, and counts as one of a patient of its own.'
    """
    nameless = [record for record in records if record.group is None]
    if not nameless:
        return list(records), []
    if unknown == "error":
        names = listing((Path(source_path(record.input)).name or record.id for record in nameless), 3)
        what = "No patient is known" if len(nameless) == len(records) else (
            f"{len(nameless)} of {len(records)} images have no patient ({names})"
        )  # fmt: skip
        raise DataError(
            f"{what}, so images of one patient may be on both sides of a split, and the score too good. Name the"
            f" column (`patient_column`)" + suggest_patient(columns) + ", or a pattern for the path"
            " (`patient_pattern`). If each image is of another patient, say so: `unknown_patients: each_image`."
        )
    one = len(nameless) == 1
    finding = Finding(
        "unknown-patients",
        "warning",
        f"{len(nameless)} of {len(records)} images {'has' if one else 'have'} no patient, and"
        f" {'counts as one' if one else 'each counts as one'} of a patient of its own.",
        len(nameless),
        tuple(record.id for record in nameless[:20]),
        "If some are of one patient, splits leak, and intervals are too narrow.",
    )
    if len(nameless) == len(records) and not any(record.meta.get("study") for record in records):
        return list(records), [finding]
    taken = {record.group for record in records}
    found = []
    for record in records:
        if record.group is None:
            study = record.meta.get("study")
            name = f"study {study}" if study else f"image {record.id}"
            found.append(replace(record, group=name if name not in taken else f"{name} alone"))
        else:
            found.append(record)
    return found, [finding]


def patients_by_site(records: Sequence[Record]) -> list[Record]:
    """Return records whose patients are told apart by site, where each site numbers its own.

    Example:
        >>> [record] = patients_by_site([Record("a", None, group="7", meta={"site": "north"})])
        >>> record.group
        'north/7'
    """
    return [
        record if record.group is None else replace(record, group=f"{record.meta.get('site') or ''}/{record.group}")
        for record in records
    ]


def external_test(
    records: Sequence[Record], sites: Sequence[str], *, ignore_given: bool
) -> tuple[list[Record], list[Finding]]:
    """Make all images of some sites the test, and leave the division of the others open.

    Args:
        records: ``meta["site"]`` is the site.
        sites: Whose images nothing learns from.
        ignore_given: Whether splits that the data bring along do not count.

    Raises:
        DataError: If a site is unknown, all sites are named, or other sites have a test split already.

    Example:
        >>> rows = [Record("a", None, "x", meta={"site": "north"}), Record("b", None, "x", meta={"site": "south"})]
        >>> [record.split for record in external_test(rows, ["south"], ignore_given=False)[0]]
        [None, 'test']
    """
    counts = Counter(str(record.meta.get("site") or "") for record in records)
    known = sorted(name for name in counts if name)
    wrong = [name for name in sites if name not in counts]
    if wrong or not known:
        named = listing((f"{name} {counts[name]}" for name in known), 10)
        raise DataError(
            f"No image is of the site `{(wrong or list(sites))[0]}` (`external_sites`)."
            f"{closest((wrong or list(sites))[0], known)} Sites:"
            f" {named or 'none; name their column as `site_column`'}."
        )
    if not set(counts) - set(sites):
        raise DataError(f"`external_sites` names all {len(counts)} sites, so none is left to learn from.")
    found = []
    for record in records:
        outside = str(record.meta.get("site") or "") in sites
        split = None if ignore_given else record.split
        if not outside and split == "test":
            raise DataError(
                "The data name a `test` split at sites that are not in `external_sites`, and two tests would be mixed."
                " Leave one out, or set `given_splits: ignore`."
            )
        found.append(replace(record, split="test" if outside else split))
    chosen = [record for record in found if record.split == "test"]
    finding = Finding(
        "external-test",
        "note",
        f"`test` is {len(chosen)} images of {len({record.group for record in chosen})} patients of the"
        f" site{'s' * (len(sites) > 1)} {listing(f'`{name}`' for name in sites)}; nothing is learnt or chosen there.",
        len(chosen),
    )
    return found, [finding]
