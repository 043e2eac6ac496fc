from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data.audit_images import image_findings
from lightning_transfer.data.image_facts import inspect_image
from lightning_transfer.types import Finding, Record

RNG = np.random.default_rng(0)


def _picture(size: tuple[int, int] = (64, 64)) -> np.ndarray:
    small = Image.fromarray(RNG.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    return np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))


def _records(folder: Path, pictures: list[np.ndarray], suffix: str = ".png") -> list[Record]:
    records = []
    for place, pixels in enumerate(pictures):
        path = folder / f"{place}{suffix}"
        Image.fromarray(pixels).save(path)
        records.append(Record(path.name, path, "ab"[place % 2], "test" if place % 4 == 3 else "train"))
    return records


def _check(records: list[Record], **preprocessing: object) -> dict[str, Finding]:
    values = {"size": [64, 64], "tiling": None, "pad": "reflect", **preprocessing}
    found = image_findings(records, [inspect_image(record.input) for record in records], values)
    assert len({finding.code for finding in found}) == len(found)
    return {finding.code: finding for finding in found}


def test_sound_pictures_are_only_described(tmp_path: Path) -> None:
    found = _check(_records(tmp_path, [_picture() for _ in range(12)]))
    assert set(found) == {"image-sizes", "image-statistics"}
    assert "12 images of 1 size, most frequent 64 x 64 (height x width, 100%)" in found["image-sizes"].message


def test_an_exact_and_a_near_duplicate_across_splits(tmp_path: Path) -> None:
    pictures = [_picture() for _ in range(80)]
    pictures[3] = pictures[0]
    records = _records(tmp_path, pictures)
    Image.fromarray(pictures[4]).save(tmp_path / "7.jpg", quality=60)
    records[7] = Record("7.jpg", tmp_path / "7.jpg", "b", "test")
    found = _check(records)
    exact = found["duplicates-across-splits"]
    assert exact.examples == ("train 0.png | test 3.png (same file)",)
    assert exact.severity == "warning"
    assert "1 of them have different labels" in exact.message
    near = found["near-duplicates-across-splits"]
    assert near.count == 2
    assert near.examples[0].startswith("train 4.png | test 7.jpg (similarity ")


def test_without_near_only_copies_are_found(tmp_path: Path) -> None:
    pictures = [_picture() for _ in range(8)]
    pictures[7] = (pictures[4] * 0.9).astype(np.uint8)
    records = _records(tmp_path, pictures)
    facts = [inspect_image(record.input) for record in records]
    assert "near-duplicates-across-splits" in {item.code for item in image_findings(records, facts)}
    assert "near-duplicates-across-splits" not in {item.code for item in image_findings(records, facts, near=False)}


@pytest.mark.parametrize(("size", "severity"), [(48, "note"), (24, "warning")])
def test_pictures_smaller_than_the_networks_input(tmp_path: Path, size: int, severity: str) -> None:
    found = _check(_records(tmp_path, [_picture((size, size)) for _ in range(6)]))["small-images"]
    assert found.severity == severity
    assert (
        f"smaller than the network's input of 64 x 64 pixels, and enlarged up to {64 / size:.1f} times" in found.message
    )
    assert "small-images" not in _check(_records(tmp_path, [_picture((64, 48))] * 3))
    assert "small-images" not in _check(_records(tmp_path, [_picture((9, 9))] * 3), tiling={"size": [8, 8]})


def test_long_pictures_are_mostly_padding(tmp_path: Path) -> None:
    records = _records(tmp_path, [_picture((64, 64)), _picture((30, 100)), _picture((64, 64))])
    assert _check(records)["padded-images"].examples == ("1.png",)
    assert "padded-images" not in _check(records, pad="none")


def test_constant_pictures(tmp_path: Path) -> None:
    found = _check(_records(tmp_path, [_picture(), np.zeros((64, 64, 3), dtype=np.uint8), _picture()]))
    assert found["constant-images"].examples == ("1.png",)


def test_modes_and_whether_they_tell_the_class(tmp_path: Path) -> None:
    pictures = [_picture() for _ in range(12)]
    grey = [pixels.mean(axis=2).astype(np.uint8) for pixels in pictures]
    mixed = _check(_records(tmp_path, [*pictures[:10], *grey[10:]]))["mixed-modes"]
    assert "(colour 10, grey 2)" in mixed.message
    assert "tells the class" not in mixed.message
    by_class = _check(_records(tmp_path, [grey[i] if i % 2 else pictures[i] for i in range(12)]))["mixed-modes"]
    assert "The kind tells the class (colour: a 6; grey: b 6)" in by_class.message


def test_nothing_is_said_of_no_pictures() -> None:
    assert image_findings([], []) == []
