"""Turn images into the tensors a pretrained backbone expects, and masks and maps along with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from lightning_transfer.data.image_facts import ImageFacts, inspect_image
from lightning_transfer.data.image_files import MAX_MEGAPIXELS, ImageSource, Pixels, read_image
from lightning_transfer.data.tiling import Box, Tiling
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard

__all__ = ["ImagePreprocessing"]


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
        bit_depth: Bits that the camera uses of a 16-bit grey file: its values are divided by ``2 ** bit_depth - 1``,
            the same for all images, so that brightness stays comparable. None is 16.
        tiling: How images are cut before they are resized; None takes them whole.
        max_megapixels: Larger files are refused before they are decoded.

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
    bit_depth: int | None = None
    tiling: Tiling | None = None
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"Expected `size` as height and width of at least 1 pixel, got {self.size}.")
        self._check_channels()
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ValueError(
                f"Expected {self.channels} values of `mean` and of `std` (above 0), got {self.mean} and {self.std}."
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"Expected `interpolation` bilinear or bicubic, got `{self.interpolation}`.")
        if self.pad not in ("mean", "reflect", "none"):
            raise ValueError(f"Expected `pad` mean, reflect or none, got `{self.pad}`.")
        if self.bit_depth is not None and not 9 <= self.bit_depth <= 16:
            raise ValueError(f"Expected `bit_depth` from 9 to 16, got {self.bit_depth}. Use null for 16 bits.")
        if self.max_megapixels <= 0:
            raise ValueError(f"Expected `max_megapixels` above 0, got {self.max_megapixels}.")

    def _check_channels(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"Expected `channels` of 1 (grey) or 3 (colour), got {self.channels}.")

    @classmethod
    def from_card(
        cls,
        card: BackboneCard,
        image_size: int | Sequence[int] | None = None,
        pad: Literal["mean", "reflect", "none"] = "mean",
        **options: Any,  # noqa: ANN401 - further fields
    ) -> ImagePreprocessing:
        """Take over what the backbone was pretrained with.

        Args:
            card: Of the backbone.
            image_size: One number for a square, or height and width; None uses the card's.
            pad: What fills the rest of the frame.
            **options: Further fields: bit depth, tiling, limit.

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
        return cls((size[0], size[1]), channels, tuple(card.mean), tuple(card.std), interpolation, pad, **options)

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
            "bit_depth": self.bit_depth,
            "tiling": None if self.tiling is None else self.tiling.to_dict(),
            "max_megapixels": self.max_megapixels,
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
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known.update({name: tuple(known[name]) for name in ("size", "mean", "std") if name in known})
        if known.get("tiling") is not None:
            known["tiling"] = Tiling.from_dict(known["tiling"])
        return cls(**known)

    def __call__(self, image: ImageSource, box: Box | None = None) -> torch.Tensor:
        """Return the normalised picture as float tensor ``(channels, height, width)``.

        Args:
            image: Path, PIL image, or array ``(H, W)`` or ``(H, W, C)`` of uint8, uint16, bool or floats in ``[0, 1]``.
            box: The part of it to take, as one tile; None takes all.

        Raises:
            DataError: If the file is missing, empty, broken, animated or too large; names it and the reason.
        """
        return self.from_pixels(self.read(image), box)

    def tiles(self, image: ImageSource) -> torch.Tensor:
        """Return all tiles of a picture ``(tiles, channels, height, width)``; one, the whole, without a `tiling`.

        Raises:
            DataError: As for a call, and if the picture is smaller than a tile.
        """
        pixels = self.read(image)
        boxes: Sequence[Box | None] = [None] if self.tiling is None else self.tiling.boxes(*pixels.shape[:2])
        return torch.stack([self.from_pixels(pixels, box) for box in boxes])

    def read(self, image: ImageSource) -> Pixels:
        """Decode a picture and scale 16-bit values by the bit depth, as ``(H, W, C)``, for `from_pixels`.

        Raises:
            DataError: As `read_image`, and if a value needs more than ``bit_depth`` bits.
        """
        pixels = read_image(image, self.max_megapixels)
        if self.bit_depth is None or pixels.dtype != np.uint16:
            return pixels
        self._check_depth(int(pixels.max()), image)
        return pixels.astype(np.float32) / np.float32(2**self.bit_depth - 1)

    def check(self, image: ImageSource) -> ImageFacts:
        """Return what one look at a picture tells, if it can be used, and cut into tiles.

        Raises:
            DataError: As `tiles`.
        """
        facts = inspect_image(image, self.max_megapixels)
        if facts.mode.startswith("16-bit"):
            self._check_depth(int(facts.high), image)
        if self.tiling is not None:
            self.tiling.boxes(facts.height, facts.width)
        return facts

    def from_pixels(self, pixels: Pixels, box: Box | None = None) -> torch.Tensor:
        """Return what a call does, of a picture that `read` has decoded."""
        mean, std = (np.asarray(v, dtype=np.float32) for v in (self.mean, self.std))
        pixels = self._channels(pixels if box is None else pixels[box.slices], mean)
        inner = self.placement(*pixels.shape[:2])
        new = (inner.height, inner.width)
        if new != pixels.shape[:2]:
            pixels = _resize(pixels, new, self.interpolation)
        if self.pad == "reflect":
            frame = np.pad(_unit(pixels), (*self._margins(inner), (0, 0)), mode="symmetric")
        else:
            frame = np.empty((*self.size, self.channels), dtype=np.float32)
            frame[:] = mean
            frame[inner.slices] = _unit(pixels)
        return torch.from_numpy(np.ascontiguousarray(((frame - mean) / std).transpose(2, 0, 1)))

    def placement(self, height: int, width: int) -> Box:
        """Return where in the frame a picture, or a tile, of that size lies; the rest is padding.

        Example:
            >>> ImagePreprocessing(size=(4, 8), channels=1, mean=(0.5,), std=(0.5,)).placement(20, 20)
            Box(top=0, left=2, height=4, width=4)
        """
        if self.pad == "none":
            return Box(0, 0, *self.size)
        scale = min(self.size[0] / height, self.size[1] / width)
        new = (max(1, round(height * scale)), max(1, round(width * scale)))
        return Box((self.size[0] - new[0]) // 2, (self.size[1] - new[1]) // 2, *new)

    def place_mask(self, mask: npt.NDArray[np.bool_], box: Box | None = None) -> npt.NDArray[np.bool_]:
        """Return a mask in the frame, each pixel where the picture's is, to compare with maps of the model's size.

        Resized to the nearest pixel, which may lose what is thinner than a pixel of the frame; `restore_map` goes the
        other way and loses nothing. Mirrored padding mirrors the mask too, other padding is False.

        Args:
            mask: ``(H, W)``, of the picture's size.
            box: The tile; None takes all.

        Returns:
            ``size`` bool.
        """
        from PIL import Image

        part = np.asarray(mask if box is None else mask[box.slices], dtype=bool)
        inner = self.placement(part.shape[0], part.shape[1])
        resized = Image.fromarray(part).resize((inner.width, inner.height), Image.Resampling.NEAREST)
        if self.pad == "reflect":
            return np.pad(np.asarray(resized), self._margins(inner), mode="symmetric")
        frame = np.zeros(self.size, dtype=bool)
        frame[inner.slices] = np.asarray(resized)
        return frame

    def restore_map(self, scores: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[np.float32]:
        """Return a map of scores at the picture's own size, without the padding, to compare with the mask itself.

        Args:
            scores: Of any resolution ``(h, w)``; it stands for the whole frame.
            height: Of the picture.
            width: Of the picture.

        Returns:
            ``(height, width)`` float32, interpolated bilinearly.
        """
        from PIL import Image

        inner = self.placement(height, width)
        # In units of the map's pixels; they need not be whole.
        down, right = scores.shape[0] / self.size[0], scores.shape[1] / self.size[1]
        top, bottom = inner.top * down, (inner.top + inner.height) * down
        left, end = inner.left * right, (inner.left + inner.width) * right
        # Cut first: Pillow would mix what lies beyond the region into its edges.
        first, start = math.floor(top), math.floor(left)
        part = np.asarray(scores[first : math.ceil(bottom), start : math.ceil(end)], dtype=np.float32)
        region = (left - start, top - first, end - start, bottom - first)
        image = Image.fromarray(np.ascontiguousarray(part))
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=region))

    def _check_depth(self, highest: int, image: ImageSource) -> None:
        """Refuse a value of a 16-bit picture that the camera's depth cannot hold."""
        top = 65535 if self.bit_depth is None else 2**self.bit_depth - 1
        if highest > top:
            name = "the image" if hasattr(image, "shape") or hasattr(image, "mode") else f"the image `{image}`"
            raise DataError(
                f"Cannot read {name}: a value of {highest} needs more than the {self.bit_depth} bits of `bit_depth`,"
                f" whose highest is {top}. Raise `bit_depth`, or set it to null for 16 bits."
            )

    def _margins(self, inner: Box) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the padding above and below, left and right."""
        below = self.size[0] - inner.top - inner.height
        return (inner.top, below), (inner.left, self.size[1] - inner.left - inner.width)

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
