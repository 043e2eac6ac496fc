from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.data.scan_preprocessing import ScanPreprocessing
from lightning_transfer.data.schema import check_preprocessing
from lightning_transfer.data.tiling import Tiling
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.types import BackboneCard

Make = Callable[..., Path]
RNG = np.random.default_rng(0)
GREY = ScanPreprocessing((8, 8), 1, (0.5,), (0.25,))
COLOUR = ScanPreprocessing((8, 8), 3, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
SIXTEEN = RNG.integers(0, 65536, (8, 8)).astype(np.uint16)


@pytest.mark.parametrize("pad", ["mean", "reflect", "none"])
@pytest.mark.parametrize("shape", [(8, 8), (20, 12), (5, 16), (16, 24, 3)])
def test_plain_pictures_become_what_they_do_elsewhere(pad: str, shape: tuple) -> None:
    """Within rounding: of 8 bits, plain images are resized in 8 bits."""
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    values = {"size": (8, 8), "channels": 3, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.5), "pad": pad}
    expected = ImagePreprocessing(**values)(pixels)
    np.testing.assert_allclose(ScanPreprocessing(**values)(pixels), expected, atol=1.5 / 255 / 0.2)


def test_sixteen_bits_survive_into_the_tensor(make_dicom: Make) -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    spec = replace(GREY, size=(256, 256))
    tensor = spec(make_dicom(every))
    assert tensor.dtype == torch.float32
    assert len(tensor.unique()) == 65536
    np.testing.assert_allclose(tensor[0] * 0.25 + 0.5, every / 65535, atol=1e-6)
    assert len(replace(GREY, size=(128, 128))(make_dicom(every)).unique()) > 256


def test_twins_give_one_tensor(make_dicom: Make) -> None:
    values = RNG.integers(0, 4096, (30, 20)).astype(np.uint16)
    plain = make_dicom(values, BitsStored=12, WindowCenter=1800, WindowWidth=3000)
    twin = make_dicom(
        4095 - values, name="twin.dcm", BitsStored=12, WindowCenter=4096 - 1800, WindowWidth=3000,
        PhotometricInterpretation="MONOCHROME1",
    )  # fmt: skip
    assert torch.equal(COLOUR(plain), COLOUR(twin))


def test_one_channel_is_repeated_and_colour_becomes_luminance(tmp_path: Path) -> None:
    tensor = COLOUR(SIXTEEN)
    values = tensor.numpy().transpose(1, 2, 0) * np.array(COLOUR.std) + np.array(COLOUR.mean)
    np.testing.assert_allclose(values, np.repeat(SIXTEEN[..., None] / 65535, 3, axis=2), atol=1e-6)
    colour = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(colour).convert("L")) / 255
    np.testing.assert_allclose(GREY(colour)[0] * 0.25 + 0.5, expected, atol=0.6 / 255)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_windows_are_the_channels(make_dicom: Make, count: int) -> None:
    windows = ("1000/2000", "2000/1000", "2000/4000", "500/100")[:count]
    values = RNG.integers(0, 4096, (8, 8)).astype(np.uint16)
    spec = ScanPreprocessing((8, 8), count, (0.0,) * count, (1.0,) * count, options=ScanOptions(windows=windows))
    limits = ((0, 2000), (1500, 2500), (0, 4000), (450, 550))
    tensor = spec(make_dicom(values, RescaleSlope=1, RescaleIntercept=0))
    for channel, (low, high) in zip(tensor, limits, strict=False):
        np.testing.assert_allclose(channel, np.clip((values * 1.0 - low) / (high - low), 0, 1), atol=1e-6)
    assert spec.check(make_dicom(values)).image is not None


def test_windows_that_do_not_fit_the_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 windows \(lung, bone\) do not fit a backbone of 3 channels"):
        ScanPreprocessing((8, 8), 3, (0.5,) * 3, (0.5,) * 3, options=ScanOptions(windows=("lung", "bone")))
    assert ScanPreprocessing((8, 8), 3, (0.5,) * 3, (0.5,) * 3, options=ScanOptions(windows=("lung",))).channels == 3


def test_the_card_says_size_and_normalisation(card: BackboneCard) -> None:
    spec = ScanPreprocessing.from_card(card, options=ScanOptions(voi=False), tiling=Tiling((4, 4), 1))
    assert (spec.size, spec.channels, spec.mean, spec.std) == ((16, 24), 3, card.mean, card.std)
    assert (spec.options.voi, spec.tiling, spec.pad) == (False, Tiling((4, 4), 1), "mean")
    assert ScanPreprocessing.from_card(card, 32, "reflect").size == (32, 32)


def test_a_card_of_one_channel_with_three_means_gets_their_average(card: BackboneCard) -> None:
    spec = ScanPreprocessing.from_card(replace(card, input_size=(1, 16, 24)))
    assert (spec.channels, spec.mean[0]) == (1, pytest.approx(0.4))
    assert spec.std[0] == pytest.approx((0.2 + 0.25 + 0.5) / 3)


def test_an_incomplete_card_is_refused(card: BackboneCard) -> None:
    with pytest.raises(ValueError, match="states no mean"):
        ScanPreprocessing.from_card(replace(card, mean=None))


CHANGES = {
    "size": {"size": (8, 9)},
    "pad": {"pad": "reflect"},
    "mean": {"mean": (0.4,)},
    "tiling": {"tiling": Tiling((4, 4), 1)},
    "voi": {"options": ScanOptions(voi=False)},
    "scale": {"options": ScanOptions(scale="min_max")},
    "windows": {"options": ScanOptions(windows=("lung",))},
    "bit_depth": {"options": ScanOptions(bit_depth=12)},
    "nifti_window": {"options": ScanOptions(nifti_window=(0, 1))},
    "frame": {"options": ScanOptions(frame=1)},
    "nan_value": {"options": ScanOptions(nan_value=0.0)},
    "voi_index": {"options": ScanOptions(voi_index=1)},
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_changes_pixels_changes_the_fingerprint_and_is_named(field: str) -> None:
    other = replace(GREY, **CHANGES[field])
    assert other.fingerprint() != GREY.fingerprint()
    assert ScanPreprocessing.from_dict(other.to_dict()) == other
    with pytest.raises(CheckpointError, match=f"`{field}` is"):
        check_preprocessing(other.to_dict(), GREY.to_dict())


@pytest.mark.parametrize("options", [{"max_megapixels": 3.0}, {"modalities": ("CT",)}, {"max_oblique": 20.0}])
def test_what_refuses_files_does_not(options: dict) -> None:
    other = replace(GREY, options=ScanOptions(**options))
    assert other.fingerprint() == GREY.fingerprint()
    check_preprocessing(other.to_dict(), GREY.to_dict())
    assert ScanPreprocessing.from_dict(other.to_dict()) == other


def test_scans_and_images_are_not_each_other() -> None:
    plain = ImagePreprocessing((8, 8), 1, (0.5,), (0.25,))
    with pytest.raises(CheckpointError, match="`kind` is image, the checkpoint has scan"):
        check_preprocessing(plain.to_dict(), GREY.to_dict())
    with pytest.raises(ValueError, match="kind `scan`, got `image`"):
        ScanPreprocessing.from_dict(plain.to_dict())
    with pytest.raises(ValueError, match="kind `image`, got `scan`"):
        ImagePreprocessing.from_dict(GREY.to_dict())


def test_limits_and_depth_are_those_of_the_options() -> None:
    spec = replace(GREY, options=ScanOptions(max_megapixels=1e-5, bit_depth=12))
    assert (spec.max_megapixels, spec.bit_depth) == (1e-5, 12)


def test_one_look_tells_all(make_dicom: Make) -> None:
    facts = GREY.check(make_dicom(SIXTEEN, Modality="CR"))
    assert (facts.modality, facts.bits, facts.height) == ("CR", 16, 8)
    assert facts.image is not None
    assert facts.image.high == pytest.approx(SIXTEEN.max() / 65535)
    assert not facts.image.is_constant
    assert GREY.check(np.zeros((8, 8), dtype=np.uint8)).image.is_constant
    with pytest.raises(DataError, match="a tile has 16 x 16"):
        replace(GREY, tiling=Tiling((16, 16), 1)).check(SIXTEEN)


def test_channels_that_do_not_fit() -> None:
    spec = ScanPreprocessing((8, 8), 2, (0.5,) * 2, (0.5,) * 2)
    with pytest.raises(DataError, match="3 channels, and the backbone takes 2"):
        spec(np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ScanPreprocessing((8, 8), 0, (), ())


def test_tiles_are_cut(make_dicom: Make) -> None:
    spec = replace(GREY, size=(4, 4), tiling=Tiling((4, 4), 0))
    tiles = spec.tiles(make_dicom(SIXTEEN))
    assert tiles.shape == (4, 1, 4, 4)
    np.testing.assert_allclose(tiles[3, 0] * 0.25 + 0.5, SIXTEEN[4:, 4:] / 65535, atol=1e-6)
