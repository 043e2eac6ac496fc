"""Predict with an exported model of medical images: needs onnxruntime, numpy and pillow; pydicom for DICOM files.

    python predict_onnx_scan.py chest.dcm folder_of_images
    python predict_onnx_scan.py head.nii.gz#12 --output predictions.csv

``FILE#NUMBER`` is a slice of a NIfTI volume (which needs nibabel), or a frame of a DICOM file, from 0. What the model
knows (classes, temperature, thresholds, preprocessing) is read from ``model.onnx`` itself. This file and the folder
``scan_parts`` are written by the verb ``export``, which compares their decisions with the checkpoint's.

The table holds the paths that were given. No part of this is a medical device.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_transfer.data.dicom_header import is_dicom
from lightning_transfer.data.nifti_files import count_slices, is_nifti
from lightning_transfer.data.scan_files import read_scan
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.errors import DataError
from lightning_transfer.export.predict_onnx import SUFFIXES, Unreadable, find_files, place
from lightning_transfer.export.predict_onnx import Model as PictureModel
from lightning_transfer.export.predict_onnx import main as run
from lightning_transfer.scans import ImagePart

__all__ = ["Model", "find_scans", "main", "tensors"]

_PART = re.compile(r"(.+)#(\d+)")


class Model(PictureModel):
    """An exported model of medical images, and what it says of them.

    Args:
        path: Of ``model.onnx``, or of its int8 sibling.
        threads: Of onnxruntime; 0 takes all cores.
        max_false_reject_rate: Decide by the threshold of another rate that was fitted; None takes the chosen one.
    """

    def tensors(self, path: Any) -> np.ndarray:  # noqa: ANN401 - a path, or a part of a file
        """Return one image, prepared, as a batch of one."""
        return tensors(path, self.facts["preprocessing"])


def tensors(source: Any, spec: Mapping[str, Any]) -> np.ndarray:  # noqa: ANN401 - a path, or a part of a file
    """Return an image as ``(1, channels, height, width)`` float32; of a volume each slice that is judged.

    Args:
        source: Path, or `ImagePart`.
        spec: The preprocessing, as the model holds it.

    Raises:
        Unreadable: If it cannot be used.
    """
    try:
        options = ScanOptions.from_dict(spec)
        parts = [source] if spec["tiling"] is None else _slices(source, spec["tiling"]["step"], options)
        found = [_with_channels(read_scan(part, options).pixels, spec["channels"]) for part in parts]
    except DataError as error:
        raise Unreadable(str(error)) from error
    return np.stack([place(pixels, spec) for pixels in found])


def find_scans(paths: Sequence[str]) -> Iterator[Any]:
    """Yield files and parts of files as they are, and the images below folders in the order of their paths."""
    for path in paths:
        part = _PART.fullmatch(path)
        if part is not None and not Path(path).exists():
            yield ImagePart(part[1], int(part[2]))
        else:
            yield from find_files([path], _is_scan)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where an image could not be judged (its row says why)."""
    return run(words, Model, find_scans, __file__)


def _slices(source: Any, step: int, options: ScanOptions) -> list[Any]:  # noqa: ANN401
    """Return the slices of a volume that are judged, the middle one among them; of other files the file."""
    part = source if isinstance(source, ImagePart) else ImagePart(str(source))
    if part.index is not None or not is_nifti(part.path):
        return [source]
    count = count_slices(part.path, options)
    return [ImagePart(part.path, index) for index in range(count // 2 % step, count, step)]


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Return the network's channels: one is repeated, colour becomes luminance for one."""
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if found == 1:
        return np.repeat(pixels, channels, axis=2)
    if found == 3 and channels == 1:
        return np.asarray(pixels @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    raise Unreadable(f"it has {found} channels, and the model takes {channels}")


def _is_scan(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES or is_nifti(path) or is_dicom(path)


if __name__ == "__main__":
    sys.exit(main())
