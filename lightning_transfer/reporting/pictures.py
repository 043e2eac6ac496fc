"""Small pictures as ``data:`` addresses, so that the report is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.worst_errors import DataFiles, WorstError
from lightning_transfer.scans import ImagePart

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_SIDE", "address", "explanations", "heat_maps", "thumbnail"]

MAX_SIDE = 176
"""Pixels of the longer side: twice what is shown, so that it is sharp on a fine screen."""


def thumbnail(source: Path | ImagePart, preprocessing: Mapping[str, Any] | None = None) -> str | None:
    """Return a picture's small copy as an address; None where it cannot be read.

    Pictures of more than eight bits are scaled to their own range, as a person would look at them; medical ones are
    shown as the network was given them.

    Args:
        source: The file, or part of one.
        preprocessing: Of the run, as plain values; medical images are read by it.
    """
    from lightning_transfer.errors import DataError

    try:
        return address(_eight_bits(_pixels(source, preprocessing or {})))
    except (DataError, OSError, ValueError):
        return None


def address(picture: Image) -> str:
    """Return a picture, at most `MAX_SIDE` long, as a ``data:`` address that holds a JPEG.

    Example:
        >>> from PIL import Image
        >>> address(Image.new("RGB", (8, 8)))[:23]
        'data:image/jpeg;base64,'
    """
    small = picture.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=80, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def explanations(run: RunFiles, errors: list[WorstError], files: DataFiles) -> tuple[dict[str, str], str]:
    """Return Grad-CAM of each record's explained class over its picture, and why there is none, if there is none.

    Returns:
        Id -> address; and the reason, empty where all went well.
    """
    from lightning_transfer.errors import TransferError
    from lightning_transfer.evaluation import load
    from lightning_transfer.evaluation.attributions import explain_classes
    from lightning_transfer.evaluation.normal_only_maps import heat_picture

    if not (run.folder / "model.ckpt").is_file():
        return {}, "the run has no `model.ckpt`"
    chosen = [(error, path) for error in errors if (path := files.find(error.path, error.id)) is not None]
    if not chosen:
        return {}, ""
    try:
        predictor = load(run.folder)
        places = {name: place for place, name in enumerate(predictor.schema.classes)}
        known = [(error, path) for error, path in chosen if error.explained in places]
        maps = explain_classes(predictor, [path for _, path in known], [places[error.explained] for error, _ in known])
        return {
            error.id: address(heat_picture(_pixels(path, run.preprocessing), found, _limits(float(found.max()))))
            for (error, path), found in zip(known, maps, strict=True)
        }, ""
    except (TransferError, RuntimeError, ValueError, OSError) as error:
        return {}, str(error).splitlines()[0]


def heat_maps(run: RunFiles, errors: list[WorstError]) -> dict[str, str]:
    """Return the heat maps that the test saved, by the records' ids."""
    from PIL import Image

    from lightning_transfer.evaluation.normal_only_maps import map_name

    folder = None if run.test is None else run.test / "maps"
    if folder is None or not folder.is_dir():
        return {}
    # A map is named after the record's place and its id; the place is not in the predictions.
    saved: dict[str, list[Path]] = {}
    for item in folder.glob("*.png"):
        saved.setdefault(item.name.partition("_")[2], []).append(item)
    found = {}
    for error in errors:
        paths = saved.get(map_name(0, error.id).partition("_")[2], [])
        if len(paths) != 1:
            continue  # none, or ids that look alike: better no map than another record's
        try:
            with Image.open(paths[0]) as picture:
                found[error.id] = address(picture)
        except OSError:
            continue
    return found


def _pixels(source: Path | ImagePart, preprocessing: Mapping[str, Any]) -> Any:  # noqa: ANN401 - (H, W, C)
    """Return a decoded picture; of several windows, which are no colours, the first."""
    if preprocessing.get("kind") != "scan":
        from lightning_transfer.data import read_image

        return read_image(str(source) if isinstance(source, ImagePart) else source)
    from lightning_transfer.data.scan_preprocessing import ScanPreprocessing

    pixels = ScanPreprocessing.from_dict(preprocessing).read(source)
    return pixels[..., :1] if preprocessing.get("windows") else pixels


def _limits(most: float) -> tuple[float, float]:
    """Return the ends of the colours of a picture: weak evidence is left out, or it would cover all."""
    return (0.3 * most, most) if most > 0 else (0.0, 1.0)


def _eight_bits(pixels: Any) -> Image:  # noqa: ANN401 - an array (H, W, C)
    import numpy as np
    from PIL import Image

    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    if colours.dtype != np.uint8:
        values = colours.astype(np.float64)
        low, high = float(values.min()), float(values.max())
        colours = np.rint(255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
    return Image.fromarray(colours if colours.shape[2] == 3 else colours[..., 0])
