"""Volumes are judged by their slices: which are seen, and that the rule travels; slices against nibabel's own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.data.scan_preprocessing import ScanPreprocessing
from lightning_transfer.data.scan_volumes import VolumePreprocessing, is_volume, reads_scans
from lightning_transfer.errors import DataError
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

nibabel = pytest.importorskip("nibabel")


def spec(top_k: int | None = None, step: int = 1) -> VolumePreprocessing:
    plain = ScanPreprocessing((6, 5), 1, (0.5,), (0.5,), options=ScanOptions(nifti_window=(0.0, 100.0)))
    return VolumePreprocessing.of(plain, top_k, step)


def write(path: Path, depth: int = 7) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(depth).uniform(0, 100, (5, 6, depth)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return path, values


@pytest.mark.parametrize(("step", "seen"), [(1, range(7)), (2, (1, 3, 5)), (3, (0, 3, 6)), (5, (3,))])
def test_every_step_th_slice_with_the_middle_one(step: int, seen, tmp_path: Path) -> None:
    path, _ = write(tmp_path / "a.nii.gz")
    assert [part.index for part in spec(step=step).slices(path)] == list(seen)
    assert spec(step=step).middle(path).index == 3


def test_tiles_are_the_slices_as_nibabel_has_them(tmp_path: Path) -> None:
    path, values = write(tmp_path / "a.nii")
    found = spec().tiles(ImagePart(str(path)))
    assert found.shape == (7, 1, 6, 5)
    expected = torch.from_numpy(np.ascontiguousarray(values[::-1, ::-1, 2].T)) / 100
    torch.testing.assert_close(found[2, 0], (expected - 0.5) / 0.5)


def test_a_slice_or_a_picture_is_one_piece(tmp_path: Path) -> None:
    part = ImagePart(str(write(tmp_path / "a.nii")[0]), 2)
    assert spec().slices(part) == [part]
    assert not is_volume(part)
    assert is_volume(tmp_path / "a.nii")
    assert spec().slices("a.png") == ["a.png"]


def test_pieces_have_the_label_of_the_volume(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "a.nii", depth=2)
    pieces = spec().pieces(Record("a", path, "ill", "train", "p"))
    assert [(piece.id, piece.label, piece.group, piece.input.index) for piece in pieces] == [
        ("a#0", "ill", "p", 0),
        ("a#1", "ill", "p", 1),
    ]


def test_the_rule_travels(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "a.nii")
    made = spec(top_k=3, step=2)
    values = made.to_dict()
    assert values["tiling"] == {"top_k": 3, "step": 2}
    assert VolumePreprocessing.from_dict(values) == made
    torch.testing.assert_close(reads_scans(values)(path), made.tiles(path))
    assert isinstance(reads_scans({**values, "tiling": None}), ScanPreprocessing)


def test_the_check_reads_every_slice_and_shows_the_middle(tmp_path: Path) -> None:
    path, values = write(tmp_path / "a.nii")
    facts = spec().check(path)
    assert facts.frames == 7
    assert facts.image.high == pytest.approx(values[:, :, 3].max() / 100, abs=1e-6)
    values[0, 0, 6] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    with pytest.raises(DataError, match=r"`a\.nii`: 1 of 30 values in slice 6"):
        spec().check(path)


@pytest.mark.parametrize("values", [{"step": 0}, {"top_k": 0}])
def test_wrong_numbers(values) -> None:
    with pytest.raises(ValueError, match="of at least 1"):
        spec(**values)
