import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data.image_facts import ImageFacts, file_keys, inspect_image
from lightning_transfer.data.image_files import read_image
from lightning_transfer.errors import DataError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (96, 64, 3), dtype=np.uint8)


def _save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def _mean_of_parts(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape
    return pixels.reshape(16, height // 16, 16, width // 16).mean(axis=(1, 3))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tif"])
def test_a_thumbnail_holds_the_mean_of_each_part(tmp_path: Path, name: str) -> None:
    path = _save(tmp_path / name, NOISE, **({"lossless": True} if name.endswith("webp") else {}))
    facts = inspect_image(path)
    assert (facts.height, facts.width, facts.mode) == (96, 64, "colour")
    assert facts.num_bytes == path.stat().st_size
    grey = np.asarray(Image.open(path).convert("L"), dtype=np.float64)
    np.testing.assert_allclose(facts.thumbnail, _mean_of_parts(grey), atol=1.0)
    assert (facts.low, facts.high) == (grey.min(), grey.max())


def test_a_large_jpeg_is_decoded_at_reduced_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.linspace(0, 255, 2048)[None].repeat(1024, 0).astype(np.uint8)
    path = _save(tmp_path / "a.jpg", ramp)
    sizes: list[tuple[int, int]] = []
    convert = Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, *a, **k: (sizes.append(self.size), convert(self, *a, **k))[1]
    )
    facts = inspect_image(path)
    assert (facts.height, facts.width) == (1024, 2048)
    assert sizes[0] == (512, 256)
    np.testing.assert_allclose(facts.thumbnail, _mean_of_parts(ramp.astype(float)), atol=1.5)


@pytest.mark.parametrize("orientation", [3, 6])
def test_pictures_are_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = _save(tmp_path / "a.png", NOISE, exif=exif)
    facts = inspect_image(path)
    grey = read_image(path).astype(np.float64) @ [0.299, 0.587, 0.114]
    assert (facts.height, facts.width) == grey.shape
    np.testing.assert_allclose(facts.thumbnail, _mean_of_parts(grey), atol=1.5)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "grey"), ("RGB", "colour"), ("RGBA", "colour + alpha"), ("LA", "grey + alpha"), ("1", "grey"),
     ("P", "colour"), ("I;16", "16-bit grey")],
)  # fmt: skip
def test_modes(tmp_path: Path, mode: str, name: str) -> None:
    image = Image.fromarray(NOISE)
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.png")
    assert inspect_image(tmp_path / "a.png").mode == name
    assert inspect_image(str(tmp_path / "a.png")).mode == name


def test_what_is_constant(tmp_path: Path) -> None:
    flat = np.full((40, 40), 100, dtype=np.uint8)
    assert inspect_image(_save(tmp_path / "a.png", flat)).is_constant
    flat[3, 3] = 110  # the smallest defect is no constant picture
    assert not inspect_image(_save(tmp_path / "b.png", flat)).is_constant
    assert inspect_image(np.full((8, 8), 500, dtype=np.uint16)).is_constant
    assert not inspect_image(np.array([[0.0, 0.1]], dtype=np.float32)).is_constant
    cut = np.full((40, 40, 4), 100, dtype=np.uint8)
    cut[:20, :, 3] = 0
    assert not inspect_image(_save(tmp_path / "c.png", cut)).is_constant


def _reason(read: object, source: object) -> str:
    try:
        read(source)  # type: ignore[operator]
    except DataError:
        return "refused"
    return "read"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.bmp", "a.webp"])
def test_what_reading_refuses_a_look_refuses_too(tmp_path: Path, name: str) -> None:
    whole = _save(tmp_path / name, NOISE[:40, :24]).read_bytes()
    broken = tmp_path / f"broken-{name}"
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(0, len(whole) + 1)] if rng.random() < 0.5 else whole)
        for place in rng.integers(0, max(1, len(damaged)), 3 if damaged else 0):
            damaged[place] = rng.integers(0, 256)
        broken.write_bytes(damaged)
        assert _reason(inspect_image, broken) == _reason(read_image, broken), bytes(damaged)
        outcomes.add(_reason(inspect_image, broken))
    assert "refused" in outcomes
    assert _reason(inspect_image, tmp_path / name) == "read"


def test_empty_missing_and_large_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"a.png`: the file is empty"):
        inspect_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b.png`: there is no such file"):
        inspect_image(tmp_path / "b.png")
    with pytest.raises(DataError, match="too large"):
        inspect_image(_save(tmp_path / "c.png", NOISE), max_megapixels=0.001)


def test_a_callers_picture_is_left_as_it_is(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.jpg", np.zeros((1024, 1024, 3), dtype=np.uint8))
    with Image.open(path) as image:
        inspect_image(image)
        assert (image.size, image.mode) == ((1024, 1024), "RGB")


def test_only_equal_files_have_equal_keys(tmp_path: Path) -> None:
    paths = [_save(tmp_path / f"{name}.png", NOISE) for name in "ab"]
    other = NOISE.copy()
    other[0, 0, 0] ^= 1
    paths.append(_save(tmp_path / "c.png", other))
    paths.append(_save(tmp_path / "d.png", 255 - NOISE))
    facts = [inspect_image(path) for path in paths]
    keys = file_keys(paths, facts)
    assert keys[0] == keys[1] == hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert keys[2] not in keys[:2]
    assert keys[3] is None
    arrays = [NOISE, NOISE.copy(), other]
    same, again, different = file_keys(arrays, [inspect_image(array) for array in arrays])
    assert same == again
    assert same != different


def test_files_that_cannot_be_copies_are_not_read_again(tmp_path: Path) -> None:
    facts = [inspect_image(_save(tmp_path / f"{i}.png", np.roll(NOISE, i, axis=1))) for i in range(3)]
    assert isinstance(facts[0], ImageFacts)
    assert file_keys([tmp_path / "gone.png"] * 3, facts) == [None] * 3
