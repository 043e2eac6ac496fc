"""The script for medical images prepares them as the checkpoint does, and runs without this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.data.scan_preprocessing import ScanPreprocessing
from lightning_transfer.export import SCAN_PARTS, predict_onnx_scan, write_script
from lightning_transfer.export.predict_onnx import Unreadable
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import BackboneCard
from tests.recipes.medical.conftest import draw, write_dicom, write_png

CARD = BackboneCard("toy", "toy", input_size=(3, 24, 40), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def spec(**options) -> ScanPreprocessing:
    pad = options.pop("pad", "mean")
    return ScanPreprocessing.from_card(CARD, None, pad, options=ScanOptions(**options))


def same(preprocessing: ScanPreprocessing, source) -> None:
    ours = preprocessing(source).numpy()
    theirs = predict_onnx_scan.tensors(source, preprocessing.to_dict())
    assert theirs.shape == (1, *ours.shape)
    np.testing.assert_allclose(theirs[0], ours, atol=1e-6)


@pytest.mark.parametrize("pad", ["mean", "reflect", "none"])
def test_pictures_and_dicom_are_prepared_alike(pad: str, tmp_path: Path) -> None:
    pixels = draw(3, mass=True, edema=False)
    for source in (
        write_png(tmp_path / "a.png", pixels),
        write_dicom(tmp_path / "b.dcm", pixels),
        write_dicom(tmp_path / "c", pixels, photometric="MONOCHROME1", WindowCenter=2000, WindowWidth=1500),
    ):
        same(spec(pad=pad), source)
        same(spec(pad=pad), ImagePart(str(source)))
    same(spec(scale="min_max"), source)
    same(spec(voi=False), source)


def test_both_photometric_interpretations_give_one_tensor(tmp_path: Path) -> None:
    pixels = draw(3, mass=True, edema=False)
    one, other = (
        write_dicom(tmp_path / f"{kind}.dcm", pixels, photometric=kind) for kind in ("MONOCHROME1", "MONOCHROME2")
    )
    values = spec().to_dict()
    np.testing.assert_allclose(
        predict_onnx_scan.tensors(one, values), predict_onnx_scan.tensors(other, values), atol=1e-6
    )


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no image")
    with pytest.raises(Unreadable, match=r"a\.png"):
        predict_onnx_scan.tensors(path, spec().to_dict())


def test_files_folders_and_parts(tmp_path: Path) -> None:
    write_dicom(tmp_path / "in" / "IM1", draw(0, mass=False, edema=False))
    Image.new("L", (4, 4)).save(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "notes.txt").write_text("x")
    found = list(predict_onnx_scan.find_scans([str(tmp_path / "in"), "head.nii.gz#12"]))
    assert found == [tmp_path / "in" / "IM1", tmp_path / "in" / "b.png", ImagePart("head.nii.gz", 12)]


def test_what_is_written_imports_nothing_of_ours_and_no_torch(tmp_path: Path) -> None:
    write_script(Path(predict_onnx_scan.__file__), tmp_path, SCAN_PARTS)
    write_dicom(tmp_path / "a.dcm", draw(0, mass=False, edema=False))
    values = spec().to_dict()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import predict_onnx_scan as script\n"
        f"print(script.tensors('a.dcm', {values!r}).shape)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'lightning', 'lightning_transfer')])\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["(1, 3, 24, 40)", "[]"], done.stderr
