"""A small image datamodule, and folders to feed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.types import BackboneCard, Record


@pytest.fixture
def card() -> BackboneCard:
    return BackboneCard(
        name="test/card", architecture="test/card", input_size=(3, 16, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5)
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a table of tickets."""

    def put(content: str | bytes, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return put


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write ``count`` small images into each class folder."""

    def make(classes: Sequence[str] = ("bad", "good"), count: int = 20, root: str = "images") -> Path:
        rng = np.random.default_rng(0)
        for name in classes:
            folder = tmp_path / root / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (12, 10), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"lot{index // 2}_{index}.png")
        return tmp_path / root

    return make


@pytest.fixture
def grouped_records() -> Callable[[int], list[Record]]:
    """Random groups of random sizes and random classes, some of them rare."""

    def make(seed: int, num_groups: int = 60) -> list[Record]:
        rng = np.random.default_rng(seed)
        classes = np.array(["a", "b", "c", "d"])
        records = []
        for group in range(num_groups):
            shares = rng.dirichlet([2.0, 1.0, 0.5, 0.2])
            for label in rng.choice(classes, size=rng.integers(1, 9), p=shares):
                records.append(Record(id=f"r{len(records)}", input=None, label=str(label), group=f"g{group}"))
        return records

    return make


@pytest.fixture
def make_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write a DICOM file by pydicom: a grey one of 16 bits unless told otherwise; tags that are None are left out."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    def make(pixels: np.ndarray | None = None, name: str = "a.dcm", syntax: str | None = None, **tags: object) -> Path:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = syntax or pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
        meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        values: dict[str, object] = {
            "SOPClassUID": meta.MediaStorageSOPClassUID,
            "SOPInstanceUID": "1.2.3.4",
            "PatientName": "Doe^Jane",
            "PatientID": "SECRET-77",
            "PatientBirthDate": "19500102",
            "StudyInstanceUID": "1.2.3",
            "Modality": "DX",
        }
        if pixels is not None:
            bits = 8 * pixels.dtype.itemsize
            colour = pixels.ndim == 3 and pixels.shape[-1] == 3
            values |= {
                "Rows": pixels.shape[0 if pixels.ndim == 2 or colour else 1],
                "Columns": pixels.shape[1 if pixels.ndim == 2 or colour else 2],
                "SamplesPerPixel": 3 if colour else 1,
                "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
                "BitsAllocated": bits,
                "BitsStored": bits,
                "HighBit": bits - 1,
                "PixelRepresentation": int(pixels.dtype.kind == "i"),
                "PlanarConfiguration": 0 if colour else None,
                "NumberOfFrames": None if pixels.ndim == 2 or colour else pixels.shape[0],
                "PixelData": pixels.tobytes(),
            }
            if tags.get("BitsStored") is not None:
                values["HighBit"] = int(tags["BitsStored"]) - 1  # type: ignore[call-overload]
        for keyword, value in (values | tags).items():
            if value is not None:
                setattr(data, keyword, value)
        if pixels is not None and "PixelData" in data:
            data["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
        data.save_as(path, enforce_file_format=True)
        return path

    return make
