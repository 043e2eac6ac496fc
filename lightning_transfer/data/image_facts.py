"""Decode an image once, at reduced size where its format can, and keep what the checks of the data ask of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.image_files import (
    EXIF_ORIENTATION,
    MAX_MEGAPIXELS,
    ImageSource,
    decode,
    from_array,
    with_image,
)

__all__ = ["THUMBNAIL", "ImageFacts", "file_keys", "inspect_image"]

THUMBNAIL = 16
"""Pixels on a side: enough to tell pictures apart, and half a kilobyte for each."""

_DECODED = 256  # a JPEG is decoded at the least size above this: an eighth to a half of the work
_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


@dataclass(frozen=True)
class ImageFacts:
    """What is known of a picture after one look.

    Attributes:
        height: Upright, in pixels.
        width: Likewise.
        mode: ``grey`` or ``colour``, with ``+ alpha``, ``16-bit`` or ``float`` where it has that.
        low: Least grey value.
        high: Highest grey value; of an 8-bit JPEG at reduced size.
        num_bytes: Of the file; None if it was none.
        thumbnail: ``(16, 16)`` float16, mean grey of each part of the picture.
        digest: SHA-256 of an array's or a PIL image's pixels; of files it is found later, where it is needed.
    """

    height: int
    width: int
    mode: str
    low: float
    high: float
    num_bytes: int | None
    thumbnail: npt.NDArray[np.float16]
    digest: str | None = None

    @property
    def is_constant(self) -> bool:
        """Whether all pixels have one value, within two of 255 grey levels: compression makes that of noise."""
        kind = self.mode.split()[0]
        top = {"16-bit": 65535.0, "float": 1.0}.get(kind, 255.0)
        return self.high - self.low <= 2.0 / 255.0 * top


def inspect_image(image: ImageSource, max_megapixels: float = MAX_MEGAPIXELS) -> ImageFacts:
    """Decode a picture as `read_image` does, JPEG at reduced size, and return what is known of it.

    Args:
        image: Path, PIL image or array.
        max_megapixels: A larger file is refused before it is decoded.

    Raises:
        DataError: If it cannot be used; names the file and the reason.

    Example:
        >>> facts = inspect_image(np.full((20, 30), 7, dtype=np.uint8))
        >>> facts.height, facts.width, facts.mode, facts.is_constant
        (20, 30, 'grey', True)
    """
    if isinstance(image, np.ndarray):
        return _of_pixels(from_array(image, "the array"))
    path = Path(image) if isinstance(image, str | Path) else None
    facts: ImageFacts = with_image(image, max_megapixels, partial(_look, path=path))
    return facts


def file_keys(sources: Sequence[ImageSource], facts: Sequence[ImageFacts]) -> list[str | None]:
    """Return a key for each picture that is equal for equal bytes (of arrays: equal pixels), None for a lone one.

    Only files of the same length and with the same thumbnail are read again, to compare their SHA-256.

    Args:
        sources: Paths, PIL images or arrays.
        facts: Of the same.
    """
    alike: dict[tuple[int | None, bytes], list[int]] = {}
    for place, found in enumerate(facts):
        alike.setdefault((found.num_bytes, found.thumbnail.tobytes()), []).append(place)
    keys: list[str | None] = [None] * len(facts)
    for places in alike.values():
        if len(places) > 1:
            for place in places:
                keys[place] = facts[place].digest or _digest(Path(sources[place]))
    return keys


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def _look(image: Any, name: str, path: Path | None) -> ImageFacts:  # noqa: ANN401 - PIL.Image.Image
    """Return the facts of a PIL image; unusual modes are decoded in full, with the checks of `read_image`."""
    from PIL import Image, ImageOps

    num_bytes = None if path is None else path.stat().st_size
    mode = image.mode
    if mode not in _PLAIN_MODES:
        return _of_pixels(decode(image, name), num_bytes)
    alpha = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    kind = "grey" if mode in ("1", "L", "LA") else "colour"
    width, height = image.size
    orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    if path is not None:
        image.draft("L", (_DECODED, _DECODED))  # changes the object, so not that of a caller; only JPEG can
    upright = image if orientation == 1 else ImageOps.exif_transpose(image)
    plain = upright.convert("L")
    values = np.asarray(plain)
    low, high = float(values.min()), float(values.max())
    if mode in ("RGBA", "LA", "PA"):
        opacity = np.asarray(upright.getchannel("A"))
        low, high = min(low, float(opacity.min())), max(high, float(opacity.max()))
    digest = None if path is not None else hashlib.sha256(image.tobytes()).hexdigest()
    # In two steps: the first keeps whole grey levels, and the mean of its 16 pixels has finer ones.
    if min(plain.size) > 4 * THUMBNAIL:
        plain = plain.resize((4 * THUMBNAIL, 4 * THUMBNAIL), Image.Resampling.BOX)
    small = plain.convert("F").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    thumbnail = np.asarray(small, dtype=np.float16)
    mode = kind + (" + alpha" if alpha else "")
    return ImageFacts(height, width, mode, low, high, num_bytes, thumbnail, digest)


def _of_pixels(pixels: npt.NDArray[Any], num_bytes: int | None = None) -> ImageFacts:
    """Return the facts of decoded pixels ``(H, W, C)``."""
    from PIL import Image

    channels = pixels.shape[2]
    kind = "grey" if channels < 3 else "colour"
    if pixels.dtype == np.uint16:
        kind = f"16-bit {kind}"
    elif pixels.dtype != np.uint8:
        kind = f"float {kind}"
    grey = pixels[..., : 3 if channels >= 3 else 1].astype(np.float32).mean(axis=2)
    top = 65535.0 if pixels.dtype == np.uint16 else 1.0 if pixels.dtype != np.uint8 else 255.0
    small = Image.fromarray(grey * np.float32(255.0 / top)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return ImageFacts(
        pixels.shape[0],
        pixels.shape[1],
        kind + (" + alpha" if channels in (2, 4) else ""),
        float(pixels.min()),
        float(pixels.max()),
        num_bytes,
        np.asarray(small, dtype=np.float16),
        hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest() if num_bytes is None else None,
    )
