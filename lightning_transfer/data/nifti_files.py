"""Read slices of NIfTI volumes, straightened to the patient's axes, with spacing and orientation checked."""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.scan_options import Scan, ScanFacts, ScanOptions, window_limits
from lightning_transfer.errors import DataError

__all__ = ["NIFTI_SUFFIXES", "count_slices", "is_nifti", "nifti_facts", "read_nifti", "read_nifti_slice"]

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")

_BROKEN = (EOFError, OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError, zlib.error)
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
_SPACING = (0.001, 1000.0)  # millimetres, from electron microscopy to nonsense
_ALIKE = 0.01  # relative difference of spacings that rounding in single precision explains many times over


def is_nifti(path: str | Path) -> bool:
    """Return whether a name is that of a NIfTI file.

    Example:
        >>> is_nifti("head.nii.gz"), is_nifti("head.gz")
        (True, False)
    """
    return str(path).lower().endswith(NIFTI_SUFFIXES)


def count_slices(path: str | Path, options: ScanOptions | None = None) -> int:
    """Return how many slices a volume has along the third axis in RAS+ order; only the header is read.

    Raises:
        DataError: As `read_nifti`, as far as the header tells.
    """
    return _Volume(path, options or ScanOptions()).num_slices


def nifti_facts(path: str | Path, options: ScanOptions | None = None) -> ScanFacts:
    """Return what the header says; nothing in it names a person but free texts, which are not kept.

    Raises:
        DataError: As `read_nifti`, as far as the header tells.
    """
    return _Volume(path, options or ScanOptions()).facts


def read_nifti_slice(path: str | Path, index: int | None, options: ScanOptions | None = None) -> npt.NDArray[Any]:
    """Return one slice in the file's own units, as it lies in pictures: of masks the labels, as they are.

    The slice is looked at from the feet, as radiologists do: rows go from front to back, and columns from the patient's
    right to left. It is number ``index`` of ``nibabel.as_closest_canonical``, ``[::-1, ::-1, index].T``.

    Args:
        path: The volume.
        index: From 0, along the third axis in RAS+ order (from the feet up); None if it has one slice only.
        options: Whose limits hold.

    Returns:
        ``(H, W)``: whole numbers stay whole numbers where the file does not scale them.

    Raises:
        DataError: As `read_nifti`, but for NaN, and for values without a range.
    """
    return _Volume(path, options or ScanOptions()).slice(index)


def read_nifti(path: str | Path, index: int | None, options: ScanOptions | None = None) -> Scan:
    """Return one slice as values in ``[0, 1]``, and what is known of it; oriented as `read_nifti_slice` has it.

    Args:
        path: The volume.
        index: Of the slice, see `read_nifti_slice`.
        options: How. Files of 8 bits and of unsigned 16 bits have a range; others need ``windows``, ``nifti_window``,
            or ``cal_min`` and ``cal_max`` in the header.

    Raises:
        DataError: If it cannot be read, has more than three dimensions, axes that lie oblique, spacings that contradict
            each other, NaN, or no range of values. Names the file and the reason.
    """
    options = options or ScanOptions()
    volume = _Volume(path, options)
    values = volume.slice(index)
    finite = np.isfinite(values)
    if not finite.all():
        if options.nan_value is None:
            raise volume.refusal(
                f"{(~finite).sum()} of {values.size} values in slice {index or 0} are NaN or infinite. Set `nan_value`"
                " to what stands for them, such as the value of air"
            )
        values = np.where(finite, values, options.nan_value)
    ranges, source = volume.ranges()
    channels = []
    for low, high in ranges:
        scaled = (values.astype(np.float64) - low) / (high - low) if high > low else np.zeros(values.shape)
        channels.append(np.clip(scaled, 0.0, 1.0))
    pixels = np.stack(channels, axis=2).astype(np.float32)
    return Scan(pixels, volume.facts_with(source))


class _Volume:
    """An open volume: header checked, values still in the file."""

    def __init__(self, path: str | Path, options: ScanOptions) -> None:
        self.path = Path(path)
        self.options = options
        try:
            self.image = _open(self.path)
        except DataError:
            raise
        except FileNotFoundError:
            raise self.refusal("there is no such file") from None
        except _BROKEN as error:
            raise self.refusal(f"it is no NIfTI file, or a broken one ({type(error).__name__})") from None
        self._check_shape()
        self._check_axes()

    def refusal(self, reason: str) -> DataError:
        """Return the error; of the path the file name alone, since folders are often named after patients."""
        return DataError(f"Cannot read the NIfTI file `{self.path.name}`: {reason}.")

    def _check_shape(self) -> None:
        shape = tuple(int(length) for length in self.image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) > 3:
            raise self.refusal(
                f"it has {len(shape)} dimensions ({' x '.join(map(str, shape))}): a series of volumes, and which of"
                " them is meant is not ours to guess. Save the wanted one as a volume"
            )
        if len(shape) < 2 or min(shape) < 1:
            raise self.refusal(f"its shape is {' x '.join(map(str, shape)) or 'empty'}, expected a volume")
        self.shape = (*shape, 1)[:3]
        self.dtype = self.image.get_data_dtype()
        if self.dtype.kind not in "iuf":
            raise self.refusal(f"its values are {self.dtype.name}, expected one number for each voxel")

    def _check_axes(self) -> None:
        """Find which axis of the file is which of the patient, and refuse what has no good answer."""
        from nibabel.affines import obliquity, voxel_sizes
        from nibabel.orientations import aff2axcodes, io_orientation

        header, affine = self.image.header, np.asarray(self.image.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise self.refusal("its affine, which places it in the patient, is not finite")
        scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
        sizes = voxel_sizes(affine) * scale
        if not ((sizes >= _SPACING[0]) & (sizes <= _SPACING[1])).all():
            raise self.refusal(f"its spacing is {_triple(sizes)} mm, which cannot be")
        stated = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)) * scale
        if int(header["sform_code"]) and (np.abs(stated - sizes) > _ALIKE * sizes).any():
            raise self.refusal(
                f"its header says a spacing of {_triple(stated)} mm, and its affine {_triple(sizes)} mm. Write it anew"
                " with the right one"
            )
        degrees = np.degrees(obliquity(affine))
        if degrees.max() > self.options.max_oblique:
            raise self.refusal(
                f"its axes lie oblique, by {degrees.max():.1f} degrees; `max_oblique` is {self.options.max_oblique:g}."
                " Resample it to the patient's axes, or raise `max_oblique`"
            )
        self.axcodes = "".join(aff2axcodes(affine))
        if int(header["sform_code"]) and int(header["qform_code"]):
            other = "".join(aff2axcodes(header.get_qform()))
            if other != self.axcodes:
                raise self.refusal(
                    f"its two orientations contradict each other: {self.axcodes} by the sform, {other} by the qform."
                    " Left and right may be exchanged; find out, and write it anew"
                )
        self.known_orientation = bool(int(header["sform_code"]) or int(header["qform_code"]))
        orientation = io_orientation(affine)
        # For each axis of the patient (right, front, up): the file's axis, and whether it runs that way.
        self.axes = [int(np.flatnonzero(orientation[:, 0] == axis)[0]) for axis in range(3)]
        self.forward = [orientation[axis, 1] > 0 for axis in self.axes]
        self.spacing = (float(sizes[self.axes[1]]), float(sizes[self.axes[0]]))
        height, width = self.shape[self.axes[1]], self.shape[self.axes[0]]
        if height * width > self.options.max_megapixels * 1e6:
            raise self.refusal(
                f"too large, slices of {width} x {height} pixels; the limit is {self.options.max_megapixels:g}"
                " megapixels. If it is a real volume, raise `max_megapixels`"
            )
        self.facts = ScanFacts(
            "nifti",
            height,
            width,
            bits=self.dtype.itemsize * 8 if self.dtype.kind in "iu" else None,
            spacing=self.spacing,
            frames=self.num_slices,
            orientation=self.axcodes if self.known_orientation else "",
        )

    @property
    def num_slices(self) -> int:
        return self.shape[self.axes[2]]

    def facts_with(self, source: str) -> ScanFacts:
        from dataclasses import replace

        return replace(self.facts, range_from=source)

    def slice(self, index: int | None) -> npt.NDArray[Any]:
        """Read one slice, and no other where the file allows it."""
        count = self.num_slices
        if index is None and count > 1:
            raise self.refusal(f"it has {count} slices. Name one as `ImagePart(path, {count // 2})`")
        place = index or 0
        if not 0 <= place < count:
            raise self.refusal(f"it has {count} slices, counted from 0, and {place} is asked for")
        right, front, up = self.axes
        where: list[Any] = [slice(None)] * 3 + [0] * (len(self.image.shape) - 3)
        where[up] = place if self.forward[2] else count - 1 - place
        try:
            values = np.asarray(self.image.dataobj[tuple(where[: len(self.image.shape)])])
        except _BROKEN as error:
            raise self.refusal(
                f"its values cannot be read, it is truncated or broken ({type(error).__name__})"
            ) from None
        if right < front:
            values = values.T
        # Rows from front to back, columns from right to left: both against the axes of RAS+.
        return values[:: -1 if self.forward[1] else 1, :: -1 if self.forward[0] else 1]

    def ranges(self) -> tuple[list[tuple[float, float]], str]:
        """Return what becomes 0 and 1, for each channel, and where it comes from."""
        options, header = self.options, self.image.header
        if options.windows:
            return [window_limits(window) for window in options.windows], "windows"
        if options.scale == "min_max":
            low, high = _extremes(self.path, self.path.stat().st_mtime_ns)
            return [(low, high)], "min_max"
        if options.nifti_window is not None:
            return [options.nifti_window], "nifti_window"
        low, high = float(header["cal_min"]), float(header["cal_max"])
        if options.voi and np.isfinite([low, high]).all() and low < high:
            return [(low, high)], "cal_range"
        scaled = self.image.dataobj.slope != 1 or self.image.dataobj.inter != 0
        if self.dtype.kind == "u" and self.dtype.itemsize <= 2 and not scaled:
            return [(0.0, float(np.iinfo(self.dtype).max))], "bit_depth"
        raise self.refusal(
            f"its values are {self.dtype.name}, which tell no range. Set `nifti_window: [lowest, highest]`, or"
            " `windows` of CT, the same for all files; or `scale: min_max`"
        )


def _open(path: Path) -> Any:  # noqa: ANN401 - nibabel.Nifti1Image
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    except ImportError as error:
        raise DataError("Reading NIfTI needs nibabel: pip install lightning-transfer[medical]") from error
    try:
        image = nibabel.load(path)
    except ImageFileError:
        raise ValueError from None
    if not isinstance(image, nibabel.Nifti1Pair):  # NIfTI-1 and -2, in one file or in two
        raise ValueError
    return image


@lru_cache(maxsize=64)
def _extremes(path: Path, changed: int) -> tuple[float, float]:
    """Return the lowest and the highest finite value of a volume; ``changed`` is the time of its last change."""
    image = _open(path)
    low, high = np.inf, -np.inf
    for place in range(image.shape[2] if len(image.shape) > 2 else 1):
        values = np.asarray(image.dataobj[..., place] if len(image.shape) == 3 else image.dataobj)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _triple(values: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
