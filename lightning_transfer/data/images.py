"""Turn image files into the tensors a pretrained backbone expects, and find the files that cannot be."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lightning_transfer.data.tables import OnBadFile, Skipped
from lightning_transfer.errors import DataError, listing
from lightning_transfer.types import BackboneCard, Record

__all__ = ["ImagePreprocessing", "ImageSource", "check_images", "read_image"]

# A path, a `PIL.Image.Image`, or an array (H, W) or (H, W, C). PIL is not imported for the type alone.
ImageSource = Any
Pixels = npt.NDArray[Any]

# What Pillow's decoders raise on broken files, as fuzzing of seven formats showed.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class ImagePreprocessing:
    """The full specification of how a picture becomes a tensor; it travels in the checkpoint.

    The picture keeps its proportions and all of its content: it is resized to fit, never cropped, and what is left
    of the frame is padded. ``mean`` fills it with the mean colour, which is 0 after normalisation, as the zero padding
    of convolutions is. ``reflect`` mirrors the picture: pooled features of textures then do not depend on the share of
    the frame that is empty, and no new edge appears; measured on surfaces, see ``benchmarks/README.md``. ``none`` does
    not keep the proportions: it stretches the picture over the frame.

    Args:
        size: Height and width in pixels.
        channels: 1 turns colour into luminance, 3 repeats grey.
        mean: For each channel, of pixels in ``[0, 1]``.
        std: For each channel, of pixels in ``[0, 1]``.
        interpolation: ``bilinear`` or ``bicubic``, both with antialiasing.
        pad: What fills the rest of the frame. The mean colour shows through transparent pixels in any case.

    Example:
        >>> to_tensor = ImagePreprocessing(size=(4, 8), channels=1, mean=(0.5,), std=(0.5,))
        >>> to_tensor(np.full((2, 2), 255, dtype=np.uint8))[0, 0]
        tensor([0., 0., 1., 1., 1., 1., 0., 0.])
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    pad: Literal["mean", "reflect", "none"] = "mean"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"Expected `size` as height and width of at least 1 pixel, got {self.size}.")
        if self.channels not in (1, 3):
            raise ValueError(f"Expected `channels` of 1 (grey) or 3 (colour), got {self.channels}.")
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f"Expected {self.channels} values of `mean` and of `std` (above 0), got {self.mean} and {self.std}."
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"Expected `interpolation` bilinear or bicubic, got `{self.interpolation}`.")
        if self.pad not in ("mean", "reflect", "none"):
            raise ValueError(f"Expected `pad` mean, reflect or none, got `{self.pad}`.")

    @classmethod
    def from_card(
        cls,
        card: BackboneCard,
        image_size: int | Sequence[int] | None = None,
        pad: Literal["mean", "reflect", "none"] = "mean",
    ) -> ImagePreprocessing:
        """Take over what the backbone was pretrained with.

        Args:
            card: Of the backbone.
            image_size: One number for a square, or height and width; None uses the card's.
            pad: What fills the rest of the frame.

        Raises:
            ValueError: If the card states no input size, mean or std.
        """
        missing = [key for key in ("input_size", "mean", "std") if getattr(card, key) is None]
        if card.input_size is None or card.mean is None or card.std is None:
            raise ValueError(f"The card of `{card.name}` states no {' and no '.join(missing)}. Give a complete card.")
        channels, *size = card.input_size
        if image_size is not None:
            size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        if len(size) != 2:
            raise ValueError(f"Expected `image_size` as one number or height and width, got {image_size}.")
        # Names that libraries use besides; both filters exist everywhere.
        interpolation: Literal["bilinear", "bicubic"] = "bicubic" if card.interpolation == "bicubic" else "bilinear"
        return cls((size[0], size[1]), channels, tuple(card.mean), tuple(card.std), interpolation, pad)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; ``kind`` tells image preprocessing from text and audio."""
        return {
            "kind": "image",
            "size": list(self.size),
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "pad": self.pad,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImagePreprocessing:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If the values describe something else than images.

        Example:
            >>> spec = ImagePreprocessing(size=(8, 8), channels=1, mean=(0.5,), std=(0.5,))
            >>> ImagePreprocessing.from_dict(spec.to_dict()) == spec
            True
        """
        if values.get("kind") != "image":
            raise ValueError(f"Expected preprocessing of kind `image`, got `{values.get('kind')}`.")
        names = ("size", "channels", "mean", "std", "interpolation", "pad")
        known = {name: values[name] for name in names if name in values}
        known.update({name: tuple(known[name]) for name in ("size", "mean", "std") if name in known})
        return cls(**known)

    def __call__(self, image: ImageSource) -> torch.Tensor:
        """Return the normalised picture as float tensor ``(channels, height, width)``.

        Args:
            image: Path, PIL image, or array ``(H, W)`` or ``(H, W, C)`` of uint8, uint16, bool or floats in ``[0, 1]``.

        Raises:
            DataError: If the file is missing, empty, broken, animated or too large; names it and the reason.
        """
        mean, std = (np.asarray(v, dtype=np.float32) for v in (self.mean, self.std))
        pixels = self._channels(read_image(image), mean)
        height, width = pixels.shape[:2]
        scale = min(self.size[0] / height, self.size[1] / width)
        new = (max(1, round(height * scale)), max(1, round(width * scale)))
        if self.pad == "none":
            new = self.size
        if new != (height, width):
            pixels = _resize(pixels, new, self.interpolation)
        top, left = (self.size[0] - new[0]) // 2, (self.size[1] - new[1]) // 2
        if self.pad == "reflect":
            rest = ((top, self.size[0] - new[0] - top), (left, self.size[1] - new[1] - left), (0, 0))
            frame = np.pad(_unit(pixels), rest, mode="symmetric")
        else:
            frame = np.empty((*self.size, self.channels), dtype=np.float32)
            frame[:] = mean
            frame[top : top + new[0], left : left + new[1]] = _unit(pixels)
        return torch.from_numpy(np.ascontiguousarray(((frame - mean) / std).transpose(2, 0, 1)))

    def _channels(self, pixels: Pixels, mean: Pixels) -> Pixels:
        """Return ``(H, W, channels)``; transparent pixels show the mean colour."""
        alpha = None
        if pixels.shape[2] in (2, 4):
            unit = _unit(pixels)
            pixels, alpha = unit[..., :-1], unit[..., -1:]
        if pixels.shape[2] < self.channels:
            pixels = np.repeat(pixels, 3, axis=2)
        elif pixels.shape[2] > self.channels:
            luminance = np.asarray([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow
            pixels = (_unit(pixels) @ luminance)[..., None]
        return pixels if alpha is None else pixels * alpha + mean * (1 - alpha)


def read_image(image: ImageSource) -> Pixels:
    """Decode a picture, upright as its EXIF orientation says, with the depth it has.

    Args:
        image: Path, PIL image or array.

    Returns:
        ``(H, W, C)`` of uint8, uint16 or float32 in ``[0, 1]``; C is 1 for grey, 3 for colour, and one more with alpha.

    Raises:
        DataError: If it cannot be used; names the file and the reason.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, np.ndarray):
        return _from_array(image, "the array")
    if isinstance(image, Image.Image):
        return _decode(image, "the image")
    path = Path(image)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"Cannot read the image `{path}`: the file is empty.")
        with Image.open(path) as opened:
            return _decode(opened, f"`{path}`")
    except FileNotFoundError as error:
        raise DataError(f"Cannot read the image `{path}`: there is no such file.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"Cannot read the image `{path}`: it is no image, or its header is broken.") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"Cannot read the image `{path}`: too large ({error}).") from error
    except _DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"Cannot read the image `{path}`: {reason}.") from error


def check_images(
    records: Sequence[Record], on_bad_file: OnBadFile = "error", *, show_progress: bool = False
) -> tuple[list[Record], list[Skipped]]:
    """Decode every file once, so that a broken one is found before training and not in the middle of it.

    Args:
        records: With paths, PIL images or arrays as input.
        on_bad_file: ``error`` raises for the first ones; ``skip`` returns them with reasons.
        show_progress: Show a bar.

    Returns:
        The records that can be used, and the others; ``position`` is the place in ``records``.

    Raises:
        DataError: With the count and the first few, or if no file at all can be used.
    """
    # Decoding leaves Python's lock; more threads than cores only cost memory.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        reasons = pool.map(_reason, [record.input for record in records])
        if show_progress:
            from tqdm.auto import tqdm  # type: ignore[import-untyped]  # the bar that Lightning uses

            reasons = tqdm(reasons, total=len(records), desc="Checking images", leave=False)
        found = list(reasons)
    good = [record for record, reason in zip(records, found, strict=True) if not reason]
    bad = [Skipped(record, found[i], i) for i, record in enumerate(records) if found[i]]
    if bad and (on_bad_file == "error" or not good):
        lines = listing((f"\n  {skip.record.id}: {skip.reason}" for skip in bad), 5)
        raise DataError(
            f"{len(bad)} of {len(records)} images cannot be used:{lines}\n"
            + ("Mend or remove them, or set `on_bad_file: skip`." if good else "Check the root and the files.")
        )
    return good, bad


def _reason(image: ImageSource) -> str:
    """Return why a picture cannot be used, or nothing."""
    try:
        read_image(image)
    except DataError as error:
        return str(error)
    return ""


def _decode(image: Any, name: str) -> Pixels:  # noqa: ANN401 - PIL.Image.Image, imported on use
    """Return the pixels of a PIL image."""
    from PIL import Image, ImageOps

    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise DataError(f"Cannot read the image {name}: too large, {width} x {height} pixels; the limit is {limit}.")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # cameras write MPO: the picture, then a preview
        raise DataError(
            f"Cannot read the image {name}: it holds {frames} frames. Save the wanted one as a still image."
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        top = 65535 if image.mode == "I" else 1
        if not (low >= 0 and high <= top):
            raise DataError(f"Cannot read the image {name}: values from {low:g} to {high:g}; expected 0 to {top}.")
        return values.astype(np.uint16 if image.mode == "I" else np.float32)[..., None]
    alpha = image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    if alpha:
        image = image.convert("RGBA")
        pixels = np.asarray(image)
        return pixels[..., [0, 3]] if grey else pixels
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _from_array(array: Pixels, name: str) -> Pixels:
    """Return an array as ``(H, W, C)``."""
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or 0 in pixels.shape:
        raise DataError(f"Cannot use {name} of shape {array.shape}. Expected (H, W) or (H, W, C) with C from 1 to 4.")
    if pixels.dtype == np.bool_:
        return pixels.astype(np.float32)
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        raise DataError(f"Cannot use {name} of {pixels.dtype}. Expected uint8, uint16, bool or floats in [0, 1].")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"Cannot use {name} with values from {low:g} to {high:g}. Floats must lie in [0, 1].")
    return pixels.astype(np.float32)


def _unit(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return pixels as float32 in ``[0, 1]``."""
    if np.issubdtype(pixels.dtype, np.integer):
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return pixels.astype(np.float32, copy=False)


def _resize(pixels: Pixels, size: tuple[int, int], interpolation: str) -> Pixels:
    """Resize ``(H, W, C)`` with antialiasing; 8-bit pixels in 8 bits, as the backbones were pretrained."""
    from PIL import Image

    resample = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    target = (size[1], size[0])
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize(target, resample))
    planes = pixels if pixels.dtype == np.uint8 else _unit(pixels)
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(planes[..., c])).resize(target, resample))
        for c in range(planes.shape[2])
    ]
    stacked = np.stack(resized, axis=2)
    # Bicubic overshoots; 8-bit results are clipped by Pillow.
    return stacked if stacked.dtype == np.uint8 else np.clip(stacked, 0.0, 1.0)
