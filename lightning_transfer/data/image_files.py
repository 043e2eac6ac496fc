"""Decode image files with the depth that they have, and find those that cannot be decoded."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.file_checks import check_files
from lightning_transfer.data.tables import OnBadFile, Skipped
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

__all__ = [
    "MAX_MEGAPIXELS",
    "ImageSource",
    "Pixels",
    "check_images",
    "decode",
    "from_array",
    "image_size",
    "read_image",
    "with_image",
]

# A path, a `PIL.Image.Image`, or an array (H, W) or (H, W, C). PIL is not imported for the type alone.
ImageSource = Any
Pixels = npt.NDArray[Any]

MAX_MEGAPIXELS = 100.0
"""A file of a few kilobytes can claim any size; above this one it is not decoded unless the user says so."""

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
EXIF_ORIENTATION = 274
_RAISE_LIMIT = "If it is a real picture, raise `max_megapixels`."

# Pillow's own limit is a global of the process; ours stands in its place while a header is read.
_OPENING = threading.Lock()


def read_image(image: ImageSource, max_megapixels: float = MAX_MEGAPIXELS) -> Pixels:
    """Decode a picture, upright as its EXIF orientation says, with the depth it has.

    16-bit grey stays 16-bit. 48-bit colour becomes 24-bit, since Pillow keeps the upper byte of each channel. A file of
    several frames is refused: which of them shows the part is not ours to guess.

    Args:
        image: Path, PIL image or array.
        max_megapixels: A larger file is refused before it is decoded.

    Returns:
        ``(H, W, C)`` of uint8, uint16 or float32 in ``[0, 1]``; C is 1 for grey, 3 for colour, and one more with alpha.

    Raises:
        DataError: If it cannot be used; names the file and the reason.
    """
    if isinstance(image, np.ndarray):
        return from_array(image, "the array")
    pixels: Pixels = with_image(image, max_megapixels, decode)
    return pixels


def image_size(image: ImageSource, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """Return height and width of the upright picture; of a file only the header is read.

    Raises:
        DataError: If it cannot be used; names the file and the reason.

    Example:
        >>> image_size(np.zeros((2, 5), dtype=np.uint8))
        (2, 5)
    """
    if isinstance(image, np.ndarray):
        height, width = from_array(image, "the array").shape[:2]
        return height, width
    size: tuple[int, int] = with_image(image, max_megapixels, _upright_size)
    return size


def with_image(image: ImageSource, max_megapixels: float, use: Callable[[Any, str], Any]) -> Any:  # noqa: ANN401
    """Open a file, pass the image to ``use``, and turn what a broken one raises into our error."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(image, Image.Image):
        _check_image(image, "the image", max_megapixels)
        return use(image, "the image")
    path = Path(image)
    try:
        if path.stat().st_size == 0:
            raise DataError(f"Cannot read the image `{path}`: the file is empty.")
        with _open(path, max_megapixels) as opened:
            _check_image(opened, f"`{path}`", max_megapixels)
            return use(opened, f"`{path}`")
    except FileNotFoundError as error:
        raise DataError(f"Cannot read the image `{path}`: there is no such file.") from error
    except UnidentifiedImageError as error:
        raise DataError(f"Cannot read the image `{path}`: it is no image, or its header is broken.") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            f"Cannot read the image `{path}`: too large, more than twice the limit of {max_megapixels:g} megapixels"
            f" ({error}). {_RAISE_LIMIT}"
        ) from error
    except _DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"Cannot read the image `{path}`: {reason}.") from error


def _open(path: Path, max_megapixels: float) -> Any:  # noqa: ANN401 - PIL.Image.Image
    """Read a header under our limit: Pillow warns above it and refuses twice as much."""
    from PIL import Image

    with _OPENING:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_image(image: Any, name: str, max_megapixels: float) -> None:  # noqa: ANN401 - PIL.Image.Image
    """Refuse what is too large or has several frames, before it is decoded."""
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise DataError(
            f"Cannot read the image {name}: too large, {width} x {height} pixels are {width * height / 1e6:.4g}"
            f" megapixels; the limit is {max_megapixels:g}. {_RAISE_LIMIT}"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # cameras write MPO: the picture, then a preview
        raise DataError(
            f"Cannot read the image {name}: it holds {frames} frames. Save the wanted one as a still image."
        )


def _upright_size(image: Any, name: str) -> tuple[int, int]:  # noqa: ANN401 - PIL.Image.Image
    width, height = image.size
    lies = image.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (width, height) if lies else (height, width)


def check_images(
    records: Sequence[Record],
    on_bad_file: OnBadFile = "error",
    *,
    check: Callable[[ImageSource], Any] = read_image,
    facts: dict[str, Any] | None = None,
    show_progress: bool = False,
) -> tuple[list[Record], list[Skipped]]:
    """Decode every file once, so that a broken one is found before training and not in the middle of it.

    Args:
        records: With paths, PIL images or arrays as input.
        on_bad_file: ``error`` raises for the first ones; ``skip`` returns them with reasons.
        check: Raises a `DataError` for a picture that cannot be used; called from several threads.
        facts: Receives what ``check`` returned, by the record's id; None keeps nothing.
        show_progress: Show a bar.

    Returns:
        The records that can be used, and the others; ``position`` is the place in ``records``.

    Raises:
        DataError: With the count and the first few, or if no file at all can be used.
    """
    return check_files(records, check, "images", on_bad_file, facts=facts, show_progress=show_progress)


def decode(image: Any, name: str) -> Pixels:  # noqa: ANN401 - PIL.Image.Image, imported on use
    """Return the pixels of a PIL image."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        top = 65535 if image.mode == "I" else 1
        if not (low >= 0 and high <= top):
            raise DataError(
                f"Cannot read the image {name}: values from {low:g} to {high:g}; expected 0 to {top}."
                " Scale them before, by one factor for all images."
            )
        return values.astype(np.uint16 if image.mode == "I" else np.float32)[..., None]
    alpha = image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    if alpha:
        image = image.convert("RGBA")
        pixels = np.asarray(image)
        return pixels[..., [0, 3]] if grey else pixels
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def from_array(array: Pixels, name: str) -> Pixels:
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
