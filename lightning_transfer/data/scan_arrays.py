"""Read one picture of an ``.npz`` file, such as MedMNIST's, without a copy of the others where that can be."""

from __future__ import annotations

import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.errors import DataError, closest, listing

__all__ = ["array_shape", "npz_arrays", "read_npz"]

_BROKEN = (EOFError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, struct.error)
_OPEN = 4  # arrays kept; training, validation and test are three


def npz_arrays(path: str | Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and type of each array of a file; no values are read.

    Raises:
        DataError: If it is no ``.npz`` file, or holds pickled objects, which are not opened: they can run code.
    """
    path = Path(path)
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    continue
                with archive.open(name) as member:
                    shape, _, dtype = _header(member)
                found[name[:-4]] = (shape, dtype)
    except FileNotFoundError:
        raise _refusal(path, "there is no such file") from None
    except _BROKEN as error:
        raise _refusal(path, f"it is no `.npz` file, or a broken one ({type(error).__name__})") from None
    return found


def array_shape(path: str | Path, key: str = "") -> tuple[int, ...]:
    """Return the shape of one array, see `read_npz`.

    Raises:
        DataError: As `read_npz`.
    """
    arrays = npz_arrays(path)
    return arrays[_choose(Path(path), key, arrays)][0]


def read_npz(path: str | Path, index: int | None, key: str = "") -> npt.NDArray[Any]:
    """Return one picture ``(H, W)`` or ``(H, W, C)``.

    Args:
        path: The file.
        index: Of the row; None if the array is one picture.
        key: Name of the array; may be left out where only one holds pictures.

    Raises:
        DataError: If there is no such array or row; names what exists.
    """
    path = Path(path)
    arrays = npz_arrays(path) if path.suffix == "" or not path.is_file() else _known(path, path.stat().st_mtime_ns)
    name = _choose(path, key, arrays)
    shape = arrays[name][0]
    if index is None:
        if len(shape) > 3 or (len(shape) == 3 and shape[2] not in (1, 2, 3, 4)):
            raise _refusal(path, f"`{name}` holds {shape[0]} pictures. Name one as `ImagePart(path, 0, {name!r})`")
    elif len(shape) < 3:
        raise _refusal(path, f"`{name}` is one picture, and row {index} is asked for")
    elif not 0 <= index < shape[0]:
        raise _refusal(path, f"`{name}` has {shape[0]} rows, counted from 0, and {index} is asked for")
    try:
        array = _load(path, name, path.stat().st_mtime_ns)
    except _BROKEN as error:
        raise _refusal(path, f"`{name}` cannot be read, it is truncated or broken ({type(error).__name__})") from None
    except MemoryError:
        size = int(np.prod(shape)) * arrays[name][1].itemsize / 2**30
        raise _refusal(
            path, f"`{name}` needs {size:.1f} GiB of memory. Save it by `np.savez`, not compressed"
        ) from None
    return np.asarray(array if index is None else array[index])


def _choose(path: Path, key: str, arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    pictures = [name for name, (shape, dtype) in arrays.items() if len(shape) in (2, 3, 4) and dtype.kind in "uif" and
                min(shape[1:3] if len(shape) > 2 else shape) > 2]  # fmt: skip
    if not key:
        if len(pictures) != 1:
            raise _refusal(
                path, f"{len(pictures)} of its arrays hold pictures ({listing(pictures) or 'none'}). Name one"
            )
        return pictures[0]
    if key not in arrays:
        raise _refusal(path, f"it has no array `{key}`.{closest(key, arrays)} Arrays: {listing(arrays, 12)}")
    if key not in pictures:
        raise _refusal(path, f"`{key}` of shape {arrays[key][0]} and type {arrays[key][1]} holds no pictures")
    return key


@lru_cache(maxsize=16)
def _known(path: Path, changed: int) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the arrays of a file as long as it does not change."""
    return npz_arrays(path)


@lru_cache(maxsize=_OPEN)
def _load(path: Path, name: str, changed: int) -> npt.NDArray[Any]:
    """Return an array: mapped where it is stored as it is, else in memory once for all rows."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type == zipfile.ZIP_STORED:
            with path.open("rb") as stream:
                stream.seek(member.header_offset)
                local = stream.read(30)
                stream.seek(member.header_offset + 30 + sum(struct.unpack("<HH", local[26:30])))
                shape, fortran, dtype = _header(stream)
                order: Any = "F" if fortran else "C"
                return np.memmap(path, dtype, "r", stream.tell(), shape, order)
    with np.load(path, allow_pickle=False) as arrays:
        return np.asarray(arrays[name])


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:  # noqa: ANN401 - file
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return shape, bool(fortran), dtype


def _refusal(path: Path, reason: str) -> DataError:
    return DataError(f"Cannot read `{path.name}`: {reason}.")
