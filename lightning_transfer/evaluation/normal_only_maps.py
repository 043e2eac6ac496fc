"""Bring the distances of patches back onto the image: maps at its size, what is known of the defect, heat maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.data import read_image, record_mask
from lightning_transfer.files import atomic
from lightning_transfer.modules.normal_only_patches import anomaly_map
from lightning_transfer.types import Record

__all__ = ["image_map", "known_mask", "write_heat_map"]

# Purple to bright through red and yellow, rising in lightness, so that it reads in grey too.
_COLOURS = np.array([[87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float64)
# Longer pictures are written smaller: a heat map has no detail to lose.
_LONGEST = 1024


def image_map(
    grid: Tensor, image_size: tuple[int, int], preprocessing: Mapping[str, Any], sigma: float
) -> NDArray[np.float32]:
    """Return the distances of patches ``(h, w)`` as a map ``(H, W)`` of the image as it lies on the disk.

    Interpolated and smoothed in the model's frame, then without the frame's padding, then resized.

    Args:
        grid: Distance of each patch.
        image_size: Height and width of the image.
        preprocessing: Of the schema: its ``size`` and ``pad`` say how the image was put into the frame.
        sigma: Of the Gaussian, in pixels of the frame.
    """
    frame = (int(preprocessing["size"][0]), int(preprocessing["size"][1]))
    found = anomaly_map(grid[None], frame, sigma)
    top, left, height, width = _content(image_size, frame, str(preprocessing.get("pad", "none")))
    inside = found[:, None, top : top + height, left : left + width]
    resized: NDArray[np.float32] = F.interpolate(inside, image_size, mode="bilinear", align_corners=False)[0, 0].numpy()
    return resized


def _content(image: tuple[int, int], frame: tuple[int, int], pad: str) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the image within the frame, as `ImagePreprocessing` puts it there."""
    if pad == "none":
        return 0, 0, *frame
    scale = min(frame[0] / image[0], frame[1] / image[1])
    height, width = max(1, round(image[0] * scale)), max(1, round(image[1] * scale))
    return (frame[0] - height) // 2, (frame[1] - width) // 2, height, width


def known_mask(record: Record, negative_class: str) -> NDArray[np.bool_] | None:
    """Return where the defect is, ``(H, W)`` at the image's size: zeros for a good part, None where nobody said.

    Raises:
        DataError: If the mask cannot be read, or has another size than its image.
    """
    if record.mask is None and record.label != negative_class:
        return None
    mask = record_mask(record, negative_class)
    # A defect whose mask shows nothing: where it is, is not known.
    return mask if mask.any() or record.label == negative_class else None


def write_heat_map(
    path: str | Path,
    image: Any,  # noqa: ANN401
    distances: NDArray[np.float32],
    limits: tuple[float, float],
) -> Path:
    """Write a picture, with colours laid over it where its anomaly map is high, as PNG.

    Args:
        path: The file; it appears whole or not at all.
        image: Path, PIL image or array.
        distances: Map at the image's size, ``(H, W)``.
        limits: Distance up to which the picture stays as it is, and that of the brightest colour. The same for all
            images of a run, so that they compare.

    Raises:
        ValueError: If the limits do not rise.
    """
    from PIL import Image

    low, high = limits
    if not low < high:
        raise ValueError(f"Expected rising `limits`, got {low} and {high}. 1 and 1.5 times a good score are usual.")
    grey = _grey(read_image(image))
    share = np.clip((distances - low) / (high - low), 0.0, 1.0)
    places = share * (len(_COLOURS) - 1)
    colour = np.stack([np.interp(places, range(len(_COLOURS)), channel) for channel in _COLOURS.T], axis=2)
    # Covers quickly, so that the first colours are seen, and never wholly, so that the part is.
    cover = np.minimum(4 * share, 0.6)[..., None]
    picture = Image.fromarray(np.rint((1 - cover) * grey[..., None] + cover * colour).astype(np.uint8))
    picture.thumbnail((_LONGEST, _LONGEST))
    with atomic(path) as part:
        picture.save(part, format="PNG")
    return Path(path)


def _grey(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the brightness ``(H, W)`` from 0 to 255; transparency is left out."""
    top = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1.0
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    return np.asarray(colours.astype(np.float64).mean(axis=2) * (255.0 / top))
