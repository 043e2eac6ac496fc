"""Small chests in the formats that hospitals have: 16-bit DICOM and PNG, a table of findings, two sites."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.cli import main
from recipes.medical.cli import RECIPE
from tests.recipes.verbs import Run, runner

NAME = "Doe^Jane"
"""Stands in every identifying place of the files and tables here, and may stand in nothing that comes out."""

COLUMNS = ["path", "patient", "study", "site", "view", "age", "sex", "note", "edema", "mass"]
SMALL = ["--model.head_norm=batchnorm", "--trainer.max_epochs=2", "--trainer.accelerator=cpu",
         "--trainer.enable_progress_bar=false", "--data.batch_size=16", "--seed_everything=0",
         "--evaluation.latency_batch_sizes=[]"]  # fmt: skip


def draw(seed: int, *, mass: bool, edema: bool, size: int = 32) -> np.ndarray:
    """Return 12-bit grey values of a chest: two dark lungs, a bright round mass, a bright base of the lungs."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    values = 0.75 + 0.03 * random.standard_normal((size, size))
    for centre in (0.3, 0.7):
        lung = ((x - centre) / 0.16) ** 2 + ((y - 0.5) / 0.35) ** 2 < 1
        values[lung] -= 0.5
        if edema:
            values[lung & (y > 0.6)] += 0.3
    if mass:
        at = random.uniform(0.25, 0.75), random.uniform(0.3, 0.6)
        values[(x - at[0]) ** 2 + (y - at[1]) ** 2 < 0.006] += 0.4
    return np.clip(values * 4095, 0, 4095).astype(np.uint16)


def write_dicom(path: Path, pixels: np.ndarray, *, photometric: str = "MONOCHROME2", **tags: object) -> Path:
    """Write a real DICOM file of 12 bits; ``MONOCHROME1`` files hold the inverse, and show the same."""
    pydicom = pytest.importorskip("pydicom")
    stored = 4095 - pixels if photometric == "MONOCHROME1" else pixels
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header = pydicom.Dataset()
    header.file_meta = meta
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.Modality, header.PatientName, header.PatientID = "DX", NAME, f"{NAME} 7"
    header.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["study", str(path.parent)])
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, photometric
    header.BurnedInAnnotation = "NO"
    header.PixelData = stored.tobytes()
    for keyword, value in tags.items():
        if value is None:
            delattr(header, keyword)
        else:
            setattr(header, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels.astype(np.uint32) * 16).astype(np.uint16)).save(path)
    return path


def make_rows(root: Path, patients: int = 32, images: int = 3, suffix: str = "png") -> list[dict[str, str]]:
    """Draw the images, and return a row of the table for each."""
    rows = []
    for patient in range(patients):
        site = "north" if patient % 4 < 3 else "south"
        for number in range(images):
            seed = 100 * patient + number
            mass, edema = seed % 3 == 0, patient % 2 == 0
            path = Path(site, f"{NAME} {patient:03}", f"{number}.{suffix}")
            pixels = draw(seed, mass=mass, edema=edema)
            if suffix == "png":
                write_png(root / path, pixels)
            else:
                kind = "MONOCHROME1" if site == "south" else "MONOCHROME2"
                write_dicom(root / path, pixels, photometric=kind, PatientID=f"{NAME} {patient}")
            rows.append(
                {
                    "path": path.as_posix(),
                    "patient": f"{NAME} {patient:03}",
                    "study": f"{NAME} {patient}-{number}",
                    "site": site,
                    "view": ("PA", "AP")[seed % 2],
                    "age": str(30 + 2 * patient),
                    "sex": "FM"[patient % 2],
                    "note": f"seen by {NAME}",
                    "edema": str(int(edema)),
                    "mass": str(int(mass)),
                }
            )
    return rows


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "chests"
    write_table(root.parent / "rows.csv", rows := make_rows(root))
    write_table(root / "manifest.csv", rows)
    return root


@pytest.fixture
def chests(drawn: Path, tmp_path: Path) -> Path:
    """Its own table over the shared images; a test may change it."""
    root = tmp_path / "chests"
    root.mkdir()
    for folder in ("north", "south"):
        for item in sorted((drawn / folder).rglob("*.png")):
            target = root / item.relative_to(drawn)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(item.read_bytes())
    (root / "manifest.csv").write_bytes((drawn / "manifest.csv").read_bytes())
    return root


Edit = Callable[[Callable[[list[dict[str, str]]], object]], None]


@pytest.fixture
def edit(chests: Path) -> Edit:
    """Change the rows of the table in place."""

    def change(how: Callable[[list[dict[str, str]]], object]) -> None:
        with (chests / "manifest.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        how(rows)
        write_table(chests / "manifest.csv", rows)

    return change


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb in an empty folder; return its exit code and all that it printed."""
    return runner(RECIPE, tmp_path, monkeypatch, capsys)


def small_fit(root: Path, *findings: str) -> list[str]:
    names = ", ".join(findings or ("edema",))
    return ["fit", "--model.backbone=timm/test_resnet", "--model.weights=random", f"--data.root={root}",
            f"--data.findings=[{names}]", *SMALL]  # fmt: skip


@pytest.fixture(scope="session")
def fitted(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one finding, in a folder of its own."""
    place = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(RECIPE, small_fit(drawn)) == 0
    (found,) = (place / "runs" / "medical").iterdir()
    return found
