"""Read medical pictures of every kind as values in ``[0, 1]``: DICOM, slices of NIfTI, rows of ``.npz``, plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lightning_transfer.data.dicom_facts import dicom_facts
from lightning_transfer.data.dicom_files import read_dicom
from lightning_transfer.data.dicom_header import DICOM_SUFFIXES, is_dicom
from lightning_transfer.data.image_files import from_array, image_size, read_image
from lightning_transfer.data.nifti_files import is_nifti, nifti_facts, read_nifti
from lightning_transfer.data.scan_arrays import array_shape, read_npz
from lightning_transfer.data.scan_options import Scan, ScanFacts, ScanOptions
from lightning_transfer.errors import DataError, listing
from lightning_transfer.scans import ImagePart

__all__ = ["ScanSource", "read_scan", "scan_kind", "scan_size"]

# A path, an `ImagePart`, a PIL image, or an array (H, W) or (H, W, C).
ScanSource = Any


def read_scan(source: ScanSource, options: ScanOptions | None = None) -> Scan:
    """Return a picture as values in ``[0, 1]`` with all the depth it has, and what is known of it.

    What a file is, its content says: a DICOM file is known by its preamble, whatever its name.

    Args:
        source: Path, `ImagePart`, PIL image or array.
        options: How values become ``[0, 1]``; None takes the defaults.

    Raises:
        DataError: If it cannot be used: the file's name, without its folders, and the reason. No value of the file that
            may name a person is quoted.

    Example:
        >>> scan = read_scan(np.array([[0, 40000]], dtype=np.uint16))
        >>> scan.pixels.shape, round(float(scan.pixels.max()), 4), scan.facts.bits
        ((1, 2, 1), 0.6104, 16)
    """
    options = options or ScanOptions()
    part = _part(source)
    if part is None:
        return _plain(source, "array" if isinstance(source, np.ndarray) else "picture", options)
    kind = scan_kind(part)
    if kind == "dicom":
        return read_dicom(part.path, options, part.index)
    if kind == "nifti":
        return read_nifti(part.path, part.index, options)
    if kind == "array":
        return _plain(read_npz(part.path, part.index, part.key), "array", options, part)
    _check_single(part)
    return _plain(part.path, "picture", options, part)


def scan_size(source: ScanSource, options: ScanOptions | None = None) -> tuple[int, int]:
    """Return height and width; of a file only the header is read.

    Raises:
        DataError: As `read_scan`, as far as the header tells.

    Example:
        >>> scan_size(np.zeros((2, 5), dtype=np.uint8))
        (2, 5)
    """
    options = options or ScanOptions()
    part = _part(source)
    if part is None:
        return image_size(source, options.max_megapixels)
    kind = scan_kind(part)
    if kind in ("dicom", "nifti"):
        facts = (dicom_facts if kind == "dicom" else nifti_facts)(part.path, options)
        return facts.height, facts.width
    if kind == "array":
        shape = array_shape(part.path, part.key)
        height, width = shape[1:3] if part.index is not None else shape[:2]
        return height, width
    _check_single(part)
    try:
        return image_size(part.path, options.max_megapixels)
    except DataError as error:
        raise _without_folders(error, part) from None


def scan_kind(source: str | Path | ImagePart) -> str:
    """Return ``dicom``, ``nifti``, ``array`` or ``picture``, by name and content.

    Example:
        >>> scan_kind("head.nii.gz"), scan_kind("chestmnist.npz"), scan_kind("chest.png")
        ('nifti', 'array', 'picture')
    """
    path = Path(source.path if isinstance(source, ImagePart) else source)
    suffix = path.suffix.lower()
    if is_nifti(path) and not (suffix in (".hdr", ".img") and is_dicom(path)):
        return "nifti"
    if suffix == ".npz":
        return "array"
    return "dicom" if suffix in DICOM_SUFFIXES or is_dicom(path) else "picture"


def _part(source: ScanSource) -> ImagePart | None:
    """Return a file's part; None for what is in memory."""
    if isinstance(source, ImagePart):
        return source
    return ImagePart(str(source)) if isinstance(source, str | Path) else None


def _check_single(part: ImagePart) -> None:
    if part.index not in (None, 0):
        raise DataError(
            f"Cannot read `{Path(part.path).name}`: it is one picture, and number {part.index} is asked for."
        )


def _plain(source: Any, kind: Any, options: ScanOptions, part: ImagePart | None = None) -> Scan:  # noqa: ANN401
    """Return a plain picture; it has no unit, so no windows, and no VOI LUT."""
    name = "the picture" if part is None else f"`{Path(part.path).name}`"
    if options.windows:
        raise DataError(
            f"Cannot read {name}: `windows` {listing(options.windows)} need values with a unit (DICOM, NIfTI)."
        )
    try:
        if isinstance(source, np.ndarray):
            pixels = from_array(source, name)
        else:
            pixels = read_image(source, options.max_megapixels)
    except DataError as error:
        raise error if part is None else _without_folders(error, part) from None
    if pixels.shape[2] in (2, 4):
        top = 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)
        if float(pixels[..., -1].min()) < top:
            raise DataError(
                f"Cannot read {name}: parts of it are transparent, and what is behind them is not known. Save it"
                " without an alpha channel."
            )
        pixels = pixels[..., :-1]
    bits = None if pixels.dtype == np.float32 else 8 * pixels.dtype.itemsize
    low, high = 0.0, 1.0 if bits is None else float(2**bits - 1)
    if bits == 16 and options.bit_depth is not None:
        bits, high = options.bit_depth, float(2**options.bit_depth - 1)
        if float(pixels.max()) > high:
            raise DataError(
                f"Cannot read {name}: a value of {pixels.max()} needs more than the {bits} bits of `bit_depth`, whose"
                f" highest is {high:g}. Raise `bit_depth`, or set it to null for 16 bits."
            )
    if options.scale == "min_max":
        low, high = float(pixels.min()), float(pixels.max())
    values = (pixels.astype(np.float64) - low) / (high - low) if high > low else np.zeros(pixels.shape)
    facts = ScanFacts(kind, pixels.shape[0], pixels.shape[1], bits, range_from=options.scale)
    return Scan(values.astype(np.float32), facts)


def _without_folders(error: DataError, part: ImagePart) -> DataError:
    """Return an error that names the file alone: folders are often named after patients."""
    path = Path(part.path)
    return DataError(str(error).replace(str(path), path.name))
