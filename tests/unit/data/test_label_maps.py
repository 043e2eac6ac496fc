"""Masks as they are stored, in every form; placed where `ImagePreprocessing` puts the picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data import ImagePreprocessing
from lightning_transfer.data.label_maps import (
    UNKNOWN,
    check_label_maps,
    content_box,
    place_labels,
    read_label_map,
    record_labels,
)
from lightning_transfer.errors import DataError
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

VALUES = np.array([[0, 1, 2], [2, 0, 1]])
CLASSES = ("good", "pit", "crack")


def _save(path: Path, values: np.ndarray, mode: str = "L") -> str:
    if mode == "P":
        image = Image.fromarray(values.astype(np.uint8)).convert("P")
        image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    else:
        image = Image.fromarray(values.astype(np.uint8))
    image.save(path)
    return str(path)


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_numbers_are_read_as_they_are(tmp_path: Path, mode: str) -> None:
    assert np.array_equal(read_label_map(_save(tmp_path / "a.png", VALUES, mode)), VALUES)


def test_a_row_of_a_file_of_many(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", masks=np.stack([0 * VALUES, VALUES]))
    assert np.array_equal(read_label_map(ImagePart(str(tmp_path / "all.npz"), 1, "masks")), VALUES)
    with pytest.raises(DataError, match=r"all.npz#7"):
        read_label_map(ImagePart(str(tmp_path / "all.npz"), 7, "masks"))


def test_what_names_no_class_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="mode RGB"):
        read_label_map(tmp_path / "a.png")
    Image.new("L", (3, 2)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="is a JPEG"):
        read_label_map(tmp_path / "a.jpg")
    np.savez(tmp_path / "half.npz", a=np.full((2, 2), 0.5))
    with pytest.raises(DataError, match="not whole"):
        read_label_map(ImagePart(str(tmp_path / "half.npz"), None, "a"))
    with pytest.raises(DataError, match="no such file"):
        read_label_map(tmp_path / "none.png")


def test_what_a_mask_holds(tmp_path: Path) -> None:
    mask = _save(tmp_path / "a.png", VALUES)
    shown = VALUES > 0
    crack = Record("a", None, "crack", mask=mask)
    assert np.array_equal(record_labels(crack, ("good", "defect"), "defect", (2, 3)), shown.astype(int))
    assert np.array_equal(record_labels(crack, CLASSES, "label", (2, 3)), 2 * shown)
    assert np.array_equal(record_labels(crack, CLASSES, "index", (2, 3)), VALUES)


def test_without_a_mask_only_the_first_class_is_known(tmp_path: Path) -> None:
    good = record_labels(Record("a", None, "good"), CLASSES, "label", (2, 3))
    assert good is not None
    assert not good.any()
    assert good.shape == (2, 3)
    assert record_labels(Record("a", None, "pit"), CLASSES, "label", (2, 3)) is None
    empty = _save(tmp_path / "empty.png", 0 * VALUES)
    assert record_labels(Record("a", None, "pit", mask=empty), CLASSES, "label", (2, 3)) is None
    shown = _save(tmp_path / "shown.png", VALUES)
    assert record_labels(Record("a", None, "good", mask=shown), CLASSES, "label", (2, 3)) is None


def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    mask = _save(tmp_path / "a.png", VALUES)
    with pytest.raises(DataError, match=r"has 2 x 3 pixels.*its image 4 x 4"):
        record_labels(Record("a", None, mask=mask), CLASSES, "index", (4, 4))
    with pytest.raises(DataError, match="holds 2, and the classes are 0 to 1: good, pit"):
        record_labels(Record("a", None, mask=mask), CLASSES[:2], "index", (2, 3))
    with pytest.raises(DataError, match="labelled `scratch`, which is no class"):
        record_labels(Record("a", None, "scratch", mask=mask), CLASSES, "label", (2, 3))


def test_masks_that_cannot_be_used_are_named_or_dropped(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    rows = [Record("a", None, mask=_save(tmp_path / "a.png", VALUES)), Record("b", None, mask="none.png")]
    with pytest.raises(DataError, match=r"1 masks cannot be used:\n  b: .*no such file"):
        check_label_maps(rows, CLASSES, lambda _: (2, 3))
    kept = check_label_maps(rows, CLASSES, lambda _: (2, 3), "skip")
    assert [record.mask is None for record in kept] == [False, True]
    assert "without a mask" in str(recwarn[0].message)


@pytest.mark.parametrize("pad", ["none", "mean", "reflect"])
def test_the_picture_lies_where_the_preprocessing_puts_it(pad: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        frame, size = rng.integers(3, 40, 2), rng.integers(3, 40, 2)
        spec = ImagePreprocessing((int(frame[0]), int(frame[1])), 1, (0.5,), (0.5,), pad=pad)
        assert content_box((int(size[0]), int(size[1])), spec.to_dict()) == tuple(spec.placement(*map(int, size)))


def test_enlarged_by_whole_steps_it_is_the_nearest_pixel() -> None:
    spec = ImagePreprocessing((6, 9), 1, (0.5,), (0.5,), pad="none")
    found = place_labels((VALUES == 1).astype(np.int64), spec.to_dict())
    assert np.array_equal(found == 1, spec.place_mask(VALUES == 1))
    assert np.array_equal(found, np.kron(VALUES == 1, np.ones((3, 3))))


def test_made_smaller_the_larger_share_wins_and_of_equal_ones_the_defect() -> None:
    spec = {"size": [1, 3], "pad": "none"}
    labels = np.array([[0, 0, 0, 1, 2, 2], [0, 1, 0, 1, 2, UNKNOWN]])
    assert place_labels(labels, spec).tolist() == [[0, 1, 2]]


def test_padding_is_unknown() -> None:
    found = place_labels(np.ones((4, 2), dtype=np.int64), {"size": [4, 4], "pad": "reflect"})
    assert found.tolist() == [[UNKNOWN, 1, 1, UNKNOWN]] * 4


def test_a_volume_of_several_slices_needs_the_number_of_one(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    labels = np.zeros((4, 5, 3), np.uint8)
    labels[..., 2] = 1
    path, single = tmp_path / "mask.nii.gz", tmp_path / "single.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
    nibabel.save(nibabel.Nifti1Image(labels[..., 2:], np.eye(4)), single)
    assert read_label_map(ImagePart(str(path), 0)).max() == 0
    assert read_label_map(ImagePart(str(path), 2)).min() == 1
    assert read_label_map(ImagePart(str(single))).min() == 1
    with pytest.raises(DataError, match="3"):
        read_label_map(ImagePart(str(path)))
