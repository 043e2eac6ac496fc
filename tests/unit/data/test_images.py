from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.data.tiling import Box, Tiling
from lightning_transfer.errors import DataError

GREY = ImagePreprocessing(size=(8, 8), channels=1, mean=(0.5,), std=(0.25,))
COLOUR = ImagePreprocessing(size=(8, 8), channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)


def _back(tensor: torch.Tensor, spec: ImagePreprocessing) -> np.ndarray:
    """Undo the normalisation: ``(H, W, C)`` in [0, 1]."""
    return tensor.numpy().transpose(1, 2, 0) * np.array(spec.std) + np.array(spec.mean)


def _save(path: Path, array: np.ndarray | Image.Image, **options) -> Path:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(path, **options)
    return path


def test_colour_of_the_right_size_is_only_normalised(tmp_path: Path) -> None:
    tensor = COLOUR(_save(tmp_path / "a.png", RGB))
    expected = (RGB / 255 - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    np.testing.assert_allclose(tensor.numpy(), expected.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("source", ["path", "str", "pil", "array"])
def test_every_kind_of_source_gives_the_same(tmp_path: Path, source: str) -> None:
    path = _save(tmp_path / "a.png", RGB)
    image = {"path": path, "str": str(path), "pil": Image.open(path), "array": RGB}[source]
    assert torch.equal(COLOUR(image), COLOUR(Image.fromarray(RGB)))


def test_grey_is_repeated_for_colour() -> None:
    values = _back(COLOUR(RGB[..., 0]), COLOUR)
    np.testing.assert_allclose(values, np.repeat(RGB[..., :1] / 255, 3, axis=2), atol=1e-6)


def test_colour_becomes_luminance_for_grey() -> None:
    expected = np.asarray(Image.fromarray(RGB).convert("L"))[..., None] / 255
    np.testing.assert_allclose(_back(GREY(RGB), GREY), expected, atol=0.6 / 255)


@pytest.mark.parametrize("source", ["file", "array"])
def test_sixteen_bits_keep_their_depth(tmp_path: Path, source: str) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) + 40_000
    image = _save(tmp_path / "a.png", values) if source == "file" else values
    np.testing.assert_allclose(_back(GREY(image), GREY)[..., 0], values / 65535, atol=1e-6)
    assert len(GREY(image).unique()) == 64


def test_sixteen_bits_are_resized_in_full_depth(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.tiff", np.full((16, 16), 30_001, dtype=np.uint16))
    np.testing.assert_allclose(_back(GREY(path), GREY), 30_001 / 65535, atol=1e-6)


def test_32_bit_integers_must_be_16_bit_values(tmp_path: Path) -> None:
    values = np.full((8, 8), 65535, dtype=np.int32)
    assert _back(GREY(_save(tmp_path / "a.tiff", values)), GREY).max() == pytest.approx(1)
    with pytest.raises(DataError, match="from 0 to 70000; expected 0 to 65535"):
        GREY(_save(tmp_path / "b.tiff", np.where(np.eye(8) > 0, 70_000, 0).astype(np.int32)))


def test_float_images_must_lie_between_0_and_1(tmp_path: Path) -> None:
    values = RNG.random((8, 8), dtype=np.float32)
    np.testing.assert_allclose(_back(GREY(_save(tmp_path / "a.tiff", values)), GREY)[..., 0], values, atol=1e-6)
    with pytest.raises(DataError, match=r"values from .* to 1\.5; expected 0 to 1"):
        GREY(_save(tmp_path / "b.tiff", np.where(np.eye(8) > 0, 1.5, 0).astype(np.float32)))


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    palette = Image.fromarray(np.kron(np.eye(2), np.ones((4, 4))).astype(np.uint8))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    values = _back(COLOUR(_save(tmp_path / "a.png", palette)), COLOUR)
    np.testing.assert_allclose(values[0, 0] * 255, [200, 100, 50], atol=1e-3)
    np.testing.assert_allclose(values[0, 7] * 255, [10, 20, 30], atol=1e-3)


def test_black_and_white_is_0_and_1(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.png", Image.fromarray(np.eye(8) > 0))
    np.testing.assert_allclose(_back(GREY(path), GREY)[..., 0], np.eye(8), atol=1e-6)


def test_transparent_pixels_show_the_mean(tmp_path: Path) -> None:
    rgba = np.dstack([RGB, np.full((8, 8), 255, dtype=np.uint8)])
    rgba[:4, :, 3] = 0
    rgba[4, :, 3] = 51  # a fifth
    tensor = COLOUR(_save(tmp_path / "a.png", rgba))
    assert tensor[:, :4].abs().max() < 1e-6
    opaque = COLOUR(RGB)
    assert torch.allclose(tensor[:, 5:], opaque[:, 5:], atol=1e-6)
    assert torch.allclose(tensor[:, 4], opaque[:, 4] * 0.2, atol=1e-5)


@pytest.mark.parametrize("mode", ["LA", "P", "L"])
def test_other_kinds_of_transparency(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (90, 90, 90, 0)).convert("LA") if mode == "LA" else Image.new(mode, (8, 8), 0)
    options = {} if mode == "LA" else {"transparency": 0}
    path = _save(tmp_path / "a.png", image, **options)
    assert COLOUR(path).abs().max() < 1e-6
    assert GREY(path).abs().max() < 1e-6


def test_cmyk_becomes_colour(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    expected = np.asarray(image.convert("RGB"))[0, 0] / 255
    np.testing.assert_allclose(_back(COLOUR(image), COLOUR)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_respected(tmp_path: Path, orientation: int) -> None:
    # By hand: what the EXIF standard says of row 0 and column 0.
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, 3),
    }[orientation]
    upright = np.arange(64, dtype=np.uint8).reshape(8, 8)
    exif = Image.Exif()
    exif[274] = orientation
    path = _save(tmp_path / "a.png", np.ascontiguousarray(undo(upright)), exif=exif)
    np.testing.assert_allclose(_back(GREY(path), GREY)[..., 0] * 255, upright, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "inner"), [((4, 16), (2, 8)), ((16, 4), (8, 2)), ((2, 4), (4, 8)), ((1, 40), (1, 8))]
)
def test_proportions_are_kept_and_the_rest_is_zero(shape: tuple[int, int], inner: tuple[int, int]) -> None:
    tensor = COLOUR(np.full((*shape, 3), 255, dtype=np.uint8))
    filled = (tensor.abs() > 1e-6).all(dim=0)
    rows, columns = (8 - inner[0]) // 2, (8 - inner[1]) // 2
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[rows : rows + inner[0], columns : columns + inner[1]] = True
    assert torch.equal(filled, expected)


def test_nothing_is_cropped() -> None:
    image = np.zeros((40, 24), dtype=np.uint8)
    image[0, :], image[-1, :], image[:, 0], image[:, -1] = 255, 255, 255, 255
    spec = replace(GREY, size=(20, 20))
    inner = _back(spec(image), spec)[:, 4:16, 0]
    assert min(inner[0].min(), inner[-1].min(), inner[:, 0].min(), inner[:, -1].min()) > 0.3


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_is_that_of_torchvision(interpolation: str) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    image = RNG.integers(0, 256, (30, 30, 3), dtype=np.uint8)
    spec = replace(COLOUR, interpolation=interpolation)
    resized = functional.resize(
        Image.fromarray(image), [8, 8], functional.InterpolationMode(interpolation), antialias=True
    )
    np.testing.assert_allclose(_back(spec(image), spec), np.asarray(resized) / 255, atol=1e-6)


def test_bicubic_of_floats_stays_in_range() -> None:
    spec = replace(GREY, interpolation="bicubic", size=(24, 24))
    values = _back(spec((np.indices((8, 8)).sum(axis=0) % 2).astype(np.float32)), spec)
    assert values.min() >= -1e-6
    assert values.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((2, 2, 5), np.uint8), r"shape \(2, 2, 5\)"),
        (np.zeros((0, 2), np.uint8), r"shape \(0, 2\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.full((2, 2), 255.0), "from 255 to 255"),
        (np.full((2, 2), np.nan), "from nan to nan"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, match: str) -> None:
    with pytest.raises(DataError, match=match):
        GREY(array)


def test_the_card_decides(card) -> None:
    spec = ImagePreprocessing.from_card(replace(card, interpolation="bicubic"))
    assert spec == ImagePreprocessing((16, 24), 3, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5), "bicubic")
    assert ImagePreprocessing.from_card(card, 32).size == (32, 32)
    assert ImagePreprocessing.from_card(card, [32, 48]).size == (32, 48)


@pytest.mark.parametrize(
    ("change", "match"), [({"mean": None}, "`test/card` states no mean"), ({"input_size": None}, "no input_size")]
)
def test_an_incomplete_card(card, change, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ImagePreprocessing.from_card(replace(card, **change))


def test_the_specification_survives_a_checkpoint(tmp_path: Path) -> None:
    torch.save(COLOUR.to_dict(), tmp_path / "a.pt")
    assert ImagePreprocessing.from_dict(torch.load(tmp_path / "a.pt", weights_only=True)) == COLOUR
    with pytest.raises(ValueError, match="got `text`"):
        ImagePreprocessing.from_dict({"kind": "text"})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"size": (0, 8)}, r"\(0, 8\)"),
        ({"channels": 2}, "got 2"),
        ({"mean": (0.5,)}, "Expected 3 values"),
        ({"std": (0.1, 0.0, 0.1)}, "above 0"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"pad": "edge"}, "edge"),
        ({"bit_depth": 8}, "from 9 to 16, got 8"),
        ({"max_megapixels": 0.0}, "above 0, got 0"),
    ],
)
def test_impossible_specifications(change, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(COLOUR, **change)


def test_reflected_padding_mirrors_the_picture() -> None:
    spec = ImagePreprocessing(size=(7, 11), channels=1, mean=(0.5,), std=(0.25,), pad="reflect")
    picture = np.random.default_rng(0).integers(0, 256, (7, 3), dtype=np.uint8)
    expected = (np.pad(picture, ((0, 0), (4, 4)), mode="symmetric") / 255 - 0.5) / 0.25
    np.testing.assert_allclose(spec(picture)[0].numpy(), expected, atol=1e-5)


def test_no_padding_stretches_the_picture() -> None:
    spec = ImagePreprocessing(size=(8, 8), channels=1, mean=(0.0,), std=(1.0,), pad="none")
    picture = np.zeros((4, 16), dtype=np.uint8)
    picture[:2] = 255
    found = spec(picture)[0]
    assert found.shape == (8, 8)
    assert found[0].min() == 1.0
    assert found[-1].max() == 0.0


# A power of two of pixels a block, so that blocks stay blocks when they are halved, and edges lie between pixels.
BLOCKS = np.kron(np.random.default_rng(3).random((4, 6)) > 0.5, np.ones((8, 8))) > 0
FRAMES = [("mean", (16, 32), 2, (0, 0), (4, 4)), ("reflect", (16, 32), 2, (0, 0), (4, 4)),
          ("reflect", (64, 48), 1, (16, 16), (0, 0)), ("mean", (72, 96), 0.5, (4, 4), (0, 0))]  # fmt: skip


@pytest.mark.parametrize(("pad", "size", "shrink", "rows", "columns"), FRAMES)
def test_a_mask_lies_where_its_picture_lies(pad: str, size, shrink: float, rows, columns) -> None:
    spec = ImagePreprocessing(size=size, channels=1, mean=(0.3,), std=(1.0,), pad=pad)
    resized = BLOCKS[::shrink, ::shrink] if shrink >= 1 else np.kron(BLOCKS, np.ones((2, 2))) > 0
    options = {"mode": "symmetric"} if pad == "reflect" else {"mode": "constant"}
    found = spec.place_mask(BLOCKS)
    np.testing.assert_array_equal(found, np.pad(resized, (rows, columns), **options))
    picture = (BLOCKS * 255).astype(np.uint8)
    np.testing.assert_array_equal(found, _back(spec(picture), spec)[..., 0] > 0.5)


def test_a_stretched_mask() -> None:
    spec = ImagePreprocessing(size=(64, 24), channels=1, mean=(0.0,), std=(1.0,), pad="none")
    expected = np.kron(BLOCKS[:, ::2], np.ones((2, 1))) > 0
    np.testing.assert_array_equal(spec.place_mask(BLOCKS), expected)
    np.testing.assert_array_equal(spec((BLOCKS * 255).astype(np.uint8))[0].numpy() > 0.5, expected)


def test_the_mask_of_a_tile() -> None:
    box = Box(8, 16, 16, 16)
    spec = ImagePreprocessing(size=(16, 16), channels=1, mean=(0.0,), std=(1.0,))
    np.testing.assert_array_equal(spec.place_mask(BLOCKS, box), BLOCKS[8:24, 16:32])
    np.testing.assert_array_equal(spec((BLOCKS * 255).astype(np.uint8), box)[0].numpy() > 0.5, BLOCKS[8:24, 16:32])


@pytest.mark.parametrize("pad", ["mean", "reflect", "none"])
@pytest.mark.parametrize("coarser", [1, 4])
def test_a_map_goes_back_to_the_pictures_size_without_its_padding(pad: str, coarser: int) -> None:
    spec = ImagePreprocessing(size=(32, 64), channels=1, mean=(0.0,), std=(1.0,), pad=pad)
    ramp = np.linspace(0.2, 0.8, 50, dtype=np.float32)[None, :].repeat(40, axis=0)
    frame = spec(ramp)[0].numpy()
    if pad == "mean":
        frame[frame == 0] = 9.0  # what a model says of padding is no score of the picture
    coarse = frame.reshape(32 // coarser, coarser, 64 // coarser, coarser).mean(axis=(1, 3))
    found = spec.restore_map(coarse, 40, 50)
    assert found.shape == (40, 50)
    assert np.abs(found - ramp)[:, 5:-5].max() < 0.03
    if coarser == 1:
        assert np.abs(found - ramp).max() < 0.03


def test_twelve_bits_in_a_16_bit_file(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65
    path = _save(tmp_path / "a.png", values)
    spec = replace(GREY, bit_depth=12)
    np.testing.assert_allclose(_back(spec(path), spec)[..., 0], values / 4095, atol=1e-6)
    assert torch.equal(spec(RGB), GREY(RGB))  # 8-bit files are as they were
    for source in (path, values):
        with pytest.raises(DataError, match=r"a value of 4095 needs more than the 11 bits of `bit_depth`.* 2047"):
            replace(GREY, bit_depth=11).check(source)


def test_tiles_are_parts_of_the_picture() -> None:
    tiling = Tiling((8, 8), overlap=2)
    spec = replace(GREY, tiling=tiling)
    picture = RNG.integers(0, 256, (14, 20), dtype=np.uint8)
    expected = torch.stack([GREY(picture[box.slices]) for box in tiling.boxes(14, 20)])
    assert expected.shape == (6, 1, 8, 8)
    assert torch.equal(spec.tiles(picture), expected)
    assert torch.equal(GREY.tiles(picture), GREY(picture)[None])
    with pytest.raises(DataError, match=r"7 x 20 pixels .* a tile has 8 x 8"):
        spec.check(picture[:7])


def test_tiling_survives_a_checkpoint(tmp_path: Path) -> None:
    spec = replace(GREY, tiling=Tiling((8, 6), 2, top_k=None), bit_depth=12, max_megapixels=200.0)
    torch.save(spec.to_dict(), tmp_path / "a.pt")
    assert ImagePreprocessing.from_dict(torch.load(tmp_path / "a.pt", weights_only=True)) == spec
    old = {name: GREY.to_dict()[name] for name in ("kind", "size", "channels", "mean", "std")}
    assert ImagePreprocessing.from_dict(old) == GREY
