"""Draw the demo's chests, so that a first run needs neither network nor patients.

Two sites. `clinic` stores 12 bits as MONOCHROME2, with a window; `bedside` stores 14 bits as MONOCHROME1, blurred and
noisy, and has most of the effusions: whoever recognises the device is often right. Patients come more than once.

    python -m recipes.medical.sample.make FOLDER [--seed 0]
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_transfer.errors import DataError
from lightning_transfer.files import write_folder
from recipes.medical.sample.phantoms import FINDINGS, Chest, Scanner, draw_chest

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["COLUMNS", "SITES", "Site", "write_phantoms"]

COLUMNS = ("path", "patient", "study", "site", "view", "age", "sex", "scanner", *FINDINGS)
_MARKER = "phantoms.json"
_FORMAT = 1  # of the set: raise it when the same arguments give other pictures or columns
# Of the cells of the table; reports leave something open, too.
_UNCERTAIN, _UNKNOWN = 0.03, 0.03
_DAY = date(2024, 1, 1)


class Site(NamedTuple):
    """A hospital: its device, what it sees, and how it positions patients."""

    name: str
    scanner: Scanner
    rates: tuple[float, ...]  # of patients with each finding
    share_pa: float
    share: float  # of the patients


SITES: tuple[Site, ...] = (
    Site(
        "clinic",
        Scanner("Formula DX-12", 12, "MONOCHROME2", (2048.0, 4096.0), 0, 0.012, 1.0, 0.0, 1.0),
        rates=(0.4, 0.35, 0.12),
        share_pa=0.95,
        share=0.55,
    ),
    Site(
        "bedside",
        Scanner("Formula Mobile-14", 14, "MONOCHROME1", None, 1, 0.035, 1.3, 0.08, 1.15),
        rates=(0.35, 0.4, 0.7),
        share_pa=0.15,
        share=0.45,
    ),
)


def write_phantoms(folder: Path | str, *, seed: int = 0, num_patients: int = 160, size: int = 160) -> Path:
    """Draw chests into a folder as DICOM, with a table, unless the same are there already.

    The table is ``manifest.csv``: `COLUMNS`, findings as 1, 0, -1 (uncertain) or nothing (unknown). The folder appears
    whole or not at all.

    Args:
        folder: Where to write; its parents are made.
        seed: Another seed gives other patients.
        num_patients: Each with one to three studies of an image.
        size: Pixels on a side.

    Returns:
        The folder.

    Raises:
        ValueError: If an argument is out of range.
        DataError: If the folder holds something else, or pydicom is missing.
    """
    for name, value, least in (("seed", seed, 0), ("num_patients", num_patients, 2), ("size", size, 32)):
        if value < least:
            raise ValueError(f"Expected `{name}` of at least {least}, got {value}.")
    root = Path(folder)
    wanted = {"format": _FORMAT, "seed": seed, "num_patients": num_patients, "size": size}
    write_folder(root, lambda part: _write(part, wanted), lambda: _is_there(root, wanted))
    return root


def _write(folder: Path, wanted: dict[str, int]) -> None:
    rows = []
    folder.mkdir()
    for number in range(wanted["num_patients"]):
        for row, dataset in _patient(number, wanted):
            path = folder / row["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            dataset.save_as(path, enforce_file_format=True)
            rows.append(row)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    # Last: a folder without it is not whole.
    (folder / _MARKER).write_text(json.dumps({**wanted, "images": len(rows)}) + "\n", encoding="utf-8")


def _patient(number: int, wanted: dict[str, int]) -> Iterator[tuple[dict[str, str], Dataset]]:
    """Draw all studies of a patient; each patient has random numbers of its own."""
    rng = np.random.default_rng((wanted["seed"], number))
    site = SITES[int(rng.choice(len(SITES), p=[site.share for site in SITES]))]
    chest = Chest.draw(rng)
    age, sex = int(rng.integers(25, 90)), str(rng.choice(("F", "M")))
    has = dict(zip(FINDINGS, rng.random(len(FINDINGS)) < site.rates, strict=True))
    day = _DAY + timedelta(days=int(rng.integers(0, 300)))
    for study in range(1, 2 + int(rng.integers(0, 3))):
        # A nodule stays; fluid and infection may have come later, or be gone.
        now = [name for name in FINDINGS if has[name] and (name == "nodule" or rng.random() < 0.85)]
        view = "PA" if rng.random() < site.share_pa else "AP"
        pixels = draw_chest(rng, chest, site.scanner, now, wanted["size"])
        row = {
            "path": f"{site.name}/phantom{number:04d}/{study}.dcm",
            "patient": f"phantom{number:04d}",
            "study": f"phantom{number:04d}-{study}",
            "site": site.name,
            "view": view,
            "age": str(age),
            "sex": sex,
            "scanner": site.scanner.name,
        }
        for name in FINDINGS:
            drawn = rng.random()
            known = str(int(name in now))
            row[name] = "-1" if drawn < _UNCERTAIN else "" if drawn < _UNCERTAIN + _UNKNOWN else known
        yield row, _dataset(row, pixels, site, day + timedelta(days=30 * (study - 1)), wanted["seed"])


def _stored(pixels: NDArray[np.float64], scanner: Scanner) -> NDArray[np.uint16]:
    """Return what the file holds: MONOCHROME1 is stored with dense tissue low."""
    highest = 2**scanner.bits - 1
    shown = 1 - pixels if scanner.photometric == "MONOCHROME1" else pixels
    return np.round(shown * highest).astype("<u2")


def _dataset(row: dict[str, str], pixels: NDArray[np.float64], site: Site, day: date, seed: int) -> Dataset:
    try:
        from pydicom import Dataset
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
    except ImportError as error:
        raise DataError("The phantoms are written by pydicom: pip install 'lightning-transfer[medical]'.") from error

    def uid(*parts: str) -> Any:  # noqa: ANN401 - pydicom's own class of text
        return generate_uid(entropy_srcs=["phantom", str(seed), *parts])

    scanner = site.scanner
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid("image", row["path"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = Dataset()
    found.file_meta = meta
    values: dict[str, Any] = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": uid("study", row["study"]),
        "SeriesInstanceUID": uid("series", row["study"]),
        "StudyDate": f"{day:%Y%m%d}",
        "Modality": "DX",
        "PatientName": f"Phantom^{row['patient'].removeprefix('phantom')}",
        "PatientID": row["patient"],
        "PatientSex": row["sex"],
        "PatientAge": f"{int(row['age']):03d}Y",
        "InstitutionName": site.name,
        "Manufacturer": "Formula",
        "ManufacturerModelName": scanner.name.removeprefix("Formula "),
        "ViewPosition": row["view"],
        "BodyPartExamined": "CHEST",
        "BurnedInAnnotation": "NO",
        "ImagerPixelSpacing": [400 / len(pixels)] * 2,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": scanner.photometric,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": scanner.bits,
        "HighBit": scanner.bits - 1,
        "PixelRepresentation": 0,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
    }
    if scanner.window is not None:
        values["WindowCenter"], values["WindowWidth"] = scanner.window
    for keyword, value in values.items():
        setattr(found, keyword, value)
    found.PixelData = _stored(pixels, scanner).tobytes()
    found["PixelData"].VR = "OW"
    return found


def _is_there(root: Path, wanted: dict[str, int]) -> bool:
    """Tell whether the same set already stands at ``root``; False if there is nothing, an error if there is else."""
    remedy = "Name another folder, or delete this one to have it drawn anew."
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / _MARKER).read_text(encoding="utf-8"))
        known = {name: found.get(name) for name in wanted}
    except (OSError, ValueError, AttributeError):
        raise DataError(f"`{root}` is not empty and holds no phantoms (no readable `{_MARKER}`). {remedy}") from None
    other = ", ".join(f"{name} {known[name]}, now {value}" for name, value in wanted.items() if known[name] != value)
    if other:
        raise DataError(f"`{root}` holds phantoms of other arguments: {other}. {remedy}")
    images = sum(1 for _ in root.glob("*/*/*.dcm"))
    if images != found.get("images") or not (root / "manifest.csv").is_file():
        raise DataError(f"`{root}` is damaged: {images} of {found.get('images')} images, or no table. {remedy}")
    return True


def main(args: Sequence[str] | None = None) -> None:
    """Draw the phantoms, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_patients", type=int, default=160)
    parser.add_argument("--size", type=int, default=160)
    found = vars(parser.parse_args(args))
    print(f"Phantoms: {write_phantoms(found.pop('folder'), **found)}")


if __name__ == "__main__":
    main()
