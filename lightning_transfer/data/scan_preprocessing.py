"""Turn medical pictures, and their masks, into the tensors a pretrained backbone expects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from lightning_transfer.data.image_facts import inspect_image
from lightning_transfer.data.image_files import Pixels
from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.data.scan_files import ScanSource, read_scan
from lightning_transfer.data.scan_options import Scan, ScanFacts, ScanOptions
from lightning_transfer.data.tiling import Tiling
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard

__all__ = ["ScanPreprocessing"]

_OWN_OPTIONS = {"bit_depth", "max_megapixels"}  # fields of the base, which those of `options` stand for
_GUARDS = {"max_megapixels", "modalities", "max_oblique"}


@dataclass(frozen=True)
class ScanPreprocessing(ImagePreprocessing):
    """The full specification of how a medical picture becomes a tensor; it travels in the checkpoint.

    As `ImagePreprocessing`, with the values made by `read_scan`: floats from the start, so 16 bits survive resizing and
    normalisation. With windows, the channels are the windows; one channel is repeated for a backbone that takes
    several.

    Args:
        size: Height and width in pixels.
        channels: What the backbone takes.
        mean: For each channel, of pixels in ``[0, 1]``.
        std: For each channel, of pixels in ``[0, 1]``.
        interpolation: ``bilinear`` or ``bicubic``, both with antialiasing.
        pad: What fills the rest of the frame: ``mean``, ``reflect`` or ``none``.
        bit_depth: That of ``options``; set it there.
        tiling: How pictures are cut before they are resized; None takes them whole.
        max_megapixels: That of ``options``; set it there.
        options: How a file becomes values.

    Example:
        >>> to_tensor = ScanPreprocessing(size=(2, 2), channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> to_tensor(np.array([[0, 65535], [65535, 0]], dtype=np.uint16))[2]
        tensor([[-1.,  1.],
                [ 1., -1.]])
    """

    options: ScanOptions = field(default_factory=ScanOptions)

    def __post_init__(self) -> None:
        for name in _OWN_OPTIONS:
            object.__setattr__(self, name, getattr(self.options, name))
        super().__post_init__()

    def _check_channels(self) -> None:
        if self.channels < 1:
            raise ValueError(f"Expected `channels` of at least 1, got {self.channels}.")
        if self.options.channels not in (None, 1, self.channels):
            raise ValueError(
                f"{self.options.channels} windows ({', '.join(self.options.windows)}) do not fit a backbone of"
                f" {self.channels} channels. Name 1 or {self.channels} windows, or load the backbone with"
                f" `in_channels: {self.options.channels}`."
            )

    @classmethod
    def from_card(
        cls,
        card: BackboneCard,
        image_size: int | Sequence[int] | None = None,
        pad: Literal["mean", "reflect", "none"] = "mean",
        **options: Any,  # noqa: ANN401 - further fields
    ) -> ScanPreprocessing:
        """Take over what the backbone was pretrained with.

        Args:
            card: Of the backbone. Where it states a mean and a deviation for three colours and takes another number of
                channels, their averages hold for each.
            image_size: One number for a square, or height and width; None uses the card's.
            pad: What fills the rest of the frame.
            **options: ``options`` (`ScanOptions`) and ``tiling``.

        Raises:
            ValueError: If the card states no input size, mean or std, or the windows do not fit its channels.
        """
        if card.input_size is not None and card.mean is not None and card.std is not None:
            channels = card.input_size[0]
            if len(card.mean) != channels:
                mean, std = (float(np.mean(values)) for values in (card.mean, card.std))
                card = replace(card, mean=(mean,) * channels, std=(std,) * channels)
        made: Any = super().from_card(card, image_size, pad, **options)
        return made  # type: ignore[no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, those of ``options`` beside the others; ``kind`` tells scans from plain images."""
        return {**super().to_dict(), **self.options.to_dict(), "kind": "scan"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScanPreprocessing:
        """Rebuild from `to_dict`.

        Raises:
            ValueError: If the values describe something else than scans.

        Example:
            >>> options = ScanOptions(windows=("lung", "bone"))
            >>> spec = ScanPreprocessing((8, 8), 2, (0.5, 0.5), (0.5, 0.5), options=options)
            >>> ScanPreprocessing.from_dict(spec.to_dict()) == spec
            True
        """
        if values.get("kind") != "scan":
            raise ValueError(f"Expected preprocessing of kind `scan`, got `{values.get('kind')}`.")
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known.update({name: tuple(known[name]) for name in ("size", "mean", "std") if name in known})
        if known.get("tiling") is not None:
            known["tiling"] = Tiling.from_dict(known["tiling"])
        return cls(**known, options=ScanOptions.from_dict(values))

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with every field that changes a pixel.

        Example:
            >>> spec = ScanPreprocessing((8, 8), 1, (0.5,), (0.5,))
            >>> other = ScanPreprocessing((8, 8), 1, (0.5,), (0.5,), options=ScanOptions(voi=False))
            >>> spec.fingerprint() == other.fingerprint(), len(spec.fingerprint())
            (False, 16)
        """
        values = {key: value for key, value in self.to_dict().items() if key not in _GUARDS}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def read(self, image: ScanSource) -> Pixels:
        """Return a picture as ``(H, W, C)`` float32 in ``[0, 1]``, for `from_pixels`.

        Raises:
            DataError: As `read_scan`.
        """
        return self.scan(image).pixels

    def scan(self, image: ScanSource) -> Scan:
        """Return what `read_scan` does, by these options.

        Raises:
            DataError: As `read_scan`.
        """
        return read_scan(image, self.options)

    def check(self, image: ScanSource) -> ScanFacts:  # type: ignore[override]
        """Return what one look at a picture tells, if it can be used, and cut into tiles; with ``image`` filled in.

        Raises:
            DataError: As `read_scan`, and if the picture is smaller than a tile or has channels that do not fit.
        """
        pixels, facts = self.scan(image)
        self._channels(pixels, np.zeros(self.channels, dtype=np.float32))
        if self.tiling is not None:
            self.tiling.boxes(facts.height, facts.width)
        return replace(facts, image=inspect_image(pixels if pixels.shape[2] in (1, 3) else pixels[..., :1]))

    def _channels(self, pixels: Pixels, mean: Pixels) -> Pixels:
        """Return ``(H, W, channels)``: one channel repeated, colour as luminance for one."""
        found = pixels.shape[2]
        if found == self.channels:
            return pixels
        if found == 1:
            return np.repeat(pixels, self.channels, axis=2)
        if found == 3 and self.channels == 1:
            return (pixels @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32))[..., None]  # ITU-R 601, as Pillow
        raise DataError(f"The picture has {found} channels, and the backbone takes {self.channels}.")
