import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data.masks import check_masks, read_mask, record_mask
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

DEFECT = np.zeros((6, 9), dtype=bool)
DEFECT[2:4, 5:8] = True


def _save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("kind", ["1", "L", "one", "RGB", "P", "16", "LA", "RGBA", "opaque"])
def test_every_nonzero_pixel_counts_whatever_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.png"
    bytes_ = (DEFECT * 255).astype(np.uint8)
    red = np.stack([bytes_, bytes_ * 0, bytes_ * 0], axis=2)
    full = np.full((*DEFECT.shape, 1), 255, np.uint8)
    if kind in ("1", "L", "P"):
        _save(path, bytes_, kind)
    else:
        pixels = {
            "one": DEFECT.astype(np.uint8),
            "RGB": red,
            "16": DEFECT.astype(np.uint16) * 3,
            "LA": np.dstack([bytes_, full]),
            "RGBA": np.dstack([full, full, full, bytes_]),  # white everywhere, and transparent beside the defect
            "opaque": np.dstack([red, full]),
        }[kind]
        _save(path, pixels)
    found = read_mask(path)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, DEFECT)


def test_a_jpeg_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`.*m.jpg` is a JPEG.*PNG"):
        read_mask(_save(tmp_path / "m.jpg", (DEFECT * 255).astype(np.uint8)))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return _save(tmp_path / "image.png", np.zeros((6, 9), np.uint8))


def test_a_good_part_without_mask_has_one_of_zeros(image: Path) -> None:
    found = record_mask(Record("a", image, "good"), "good")
    assert found.shape == (6, 9)
    assert not found.any()
    for record, negative in ((Record("a", image, "pit"), "good"), (Record("a", image, None), None)):
        with pytest.raises(DataError, match=rf"`a` is labelled `{record.label}` and has no mask"):
            record_mask(record, negative)


def test_a_mask_of_another_size(image: Path, tmp_path: Path) -> None:
    small = _save(tmp_path / "m.png", DEFECT[:5])
    with pytest.raises(DataError, match=r"m.png` has 5 x 9 pixels .*its image 6 x 9"):
        record_mask(Record("a", image, "pit", mask=small))


def test_a_mask_belongs_to_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((9, 6), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    mask = _save(tmp_path / "m.png", DEFECT)
    assert record_mask(Record("a", tmp_path / "a.jpg", "pit", mask=mask)).shape == (6, 9)


@pytest.fixture
def records(image: Path, tmp_path: Path) -> list[Record]:
    right, small = _save(tmp_path / "m.png", DEFECT), _save(tmp_path / "s.png", DEFECT[:, :4])
    return [
        Record("right", image, "pit", mask=right),
        Record("small", image, "pit", mask=small),
        Record("gone", image, "pit", mask=tmp_path / "gone.png"),
        Record("good", image, "good"),
    ]


def test_bad_masks_are_counted_and_named(records: list[Record]) -> None:
    with pytest.raises(
        DataError, match=r"(?s)2 of 3 masks cannot be used:.*small: .*6 x 4.*gone: .*no such file.*on_bad_file: skip"
    ):
        check_masks(records, negative_class="good")


def test_images_of_bad_masks_stay_where_asked(records: list[Record]) -> None:
    with pytest.warns(UserWarning, match="(?s)2 of 3 masks cannot be used.*without a mask"):
        found = check_masks(records, "skip", negative_class="good")
    assert [record.id for record in found] == ["right", "small", "gone", "good"]
    assert [record.mask is not None for record in found] == [True, False, False, False]


def test_right_masks_raise_no_warning(records: list[Record]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_masks([records[0], records[3]], negative_class="good") == [records[0], records[3]]


def test_masks_that_contradict_the_label_or_are_lacking(image: Path, tmp_path: Path, records: list[Record]) -> None:
    empty = _save(tmp_path / "e.png", DEFECT & False)
    odd = [
        records[0],
        Record("empty", image, "pit", mask=empty),
        Record("false", image, "good", mask=records[0].mask),
        Record("fine", image, "good", mask=empty),
        Record("lacking", image, "pit"),
    ]
    with pytest.warns(UserWarning, match="mask") as caught:
        found = check_masks(odd, negative_class="good")
    texts = [str(item.message) for item in caught]
    assert len(texts) == 3
    assert any(t.startswith("1 images labelled `good` have a mask that shows a defect: false") for t in texts)
    assert any(t.startswith("1 images of defects have an empty mask: empty.") for t in texts)
    assert any(t.startswith("1 images of defects have no mask, others have: lacking.") for t in texts)
    assert [record.mask for record in found] == [records[0].mask, None, records[0].mask, empty, None]
