"""From stored values of DICOM to ``[0, 1]``: modality LUT, VOI LUT or windows, inversion, scale. Numpy alone.

The order is that of the standard's grey pipeline (PS3.3 C.11, PS3.4 N.2). All is computed in float64 and rounded once,
to float32 at the end, so that 16 bits survive. An inverted picture gets ``(high - value) / (high - low)`` and not
``1 - ...``: its twin, stored the other way round, then gives the same numbers, bit by bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.scan_options import WINDOWS, ScanOptions, ScanPixels, window_limits
from lightning_transfer.errors import DataError, listing

__all__ = ["colour_values", "grey_values", "number", "numbers"]

_Values = npt.NDArray[Any]
_Header = Any  # pydicom.Dataset, or anything with its `get`


def grey_values(stored: _Values, header: _Header, options: ScanOptions) -> tuple[ScanPixels, str]:
    """Return a grey picture in ``[0, 1]``, bright where the scan means bright, and where the range comes from.

    Args:
        stored: ``(H, W)`` as decoded.
        header: Keywords with values; those of a frame count as the file's.
        options: Of the user.

    Returns:
        ``(H, W, C)``, a channel for each window, else one; and ``range_from`` of `ScanFacts`.

    Raises:
        DataError: If the header contradicts itself, or the options ask for what the file has not. Names no file.
    """
    invert = str(header.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1"
    values, whole = _modality(stored, header)
    if options.windows:
        _check_hounsfield(options.windows, header)
        channels = [_ramp(values, *window_limits(window), invert=invert) for window in options.windows]
        return np.stack(channels, axis=2).astype(np.float32), "windows"
    if options.scale == "min_max":
        return _one(_ramp(values, float(values.min()), float(values.max()), invert=invert)), "min_max"
    if options.voi and header.get("VOILUTSequence"):
        entries, top = _look_up(values, _item(header, "VOILUTSequence", options.voi_index), "VOI LUT")
        return _one(_ramp(entries, 0.0, top, invert=invert)), "voi_lut"
    if options.voi and header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        return _one(_window(values, header, options.voi_index, invert=invert)), "window"
    if whole is None:
        raise DataError(
            "its values are floats, which have no bit depth, and it names no window. Set `windows` as center/width, the"
            " same for all files"
        )
    return _one(_ramp(values, *whole, invert=invert)), "bit_depth"


def colour_values(stored: _Values, bits: int, options: ScanOptions) -> ScanPixels:
    """Return a colour picture ``(H, W, 3)`` in ``[0, 1]``, by its bit depth.

    Raises:
        DataError: If the options ask for windows, which are of grey values.

    Example:
        >>> colour_values(np.full((1, 1, 3), 255, dtype=np.uint8), 8, ScanOptions()).tolist()
        [[[1.0, 1.0, 1.0]]]
    """
    if options.windows:
        raise DataError(f"it is a colour picture, and `windows` {listing(options.windows)} are of grey values")
    low, high = 0.0, float(2**bits - 1)
    if options.scale == "min_max":
        low, high = float(stored.min()), float(stored.max())
    return _ramp(stored.astype(np.float64), low, high, invert=False).astype(np.float32)


def number(header: _Header, keyword: str, default: float | None = None) -> float:
    """Return one number of the header.

    Raises:
        DataError: If it is missing without a default, or is no finite number. The value is not quoted: what stands
            where a number should be may be anything.
    """
    found = numbers(header, keyword)
    if found:
        return found[0]
    if default is None:
        raise DataError(f"it lacks `{_spaced(keyword)}`")
    return default


def numbers(header: _Header, keyword: str) -> list[float]:
    """Return all numbers of an element, none if it is missing or empty.

    Raises:
        DataError: If one is no finite number.

    Example:
        >>> numbers({"WindowCenter": ["40", 200]}, "WindowCenter"), numbers({}, "WindowCenter")
        ([40.0, 200.0], [])
        >>> numbers({"NumberOfFrames": "1A"}, "NumberOfFrames")
        Traceback (most recent call last):
        ...
        lightning_transfer.errors.DataError: its `Number Of Frames` is no number
    """
    try:
        value = header.get(keyword)
        if value is None or value == "":
            return []
        parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
        found = [float(part) for part in parts]
    except Exception:  # of pydicom, which reads the value now, too
        raise DataError(f"its `{_spaced(keyword)}` is no number") from None
    if not all(math.isfinite(part) for part in found):
        raise DataError(f"its `{_spaced(keyword)}` is not finite")
    return found


def _modality(stored: _Values, header: _Header) -> tuple[_Values, tuple[float, float] | None]:
    """Return values in the unit of the modality, and the lowest and the highest that there can be; None of floats."""
    if header.get("ModalityLUTSequence"):
        entries, top = _look_up(stored, _item(header, "ModalityLUTSequence", 0), "Modality LUT")
        return entries, (0.0, top)
    whole = None
    if np.issubdtype(stored.dtype, np.integer) or stored.dtype == np.bool_:
        bits = int(number(header, "BitsStored", number(header, "BitsAllocated")))
        signed = number(header, "PixelRepresentation", 0) == 1
        whole = (-float(2 ** (bits - 1)), float(2 ** (bits - 1) - 1)) if signed else (0.0, float(2**bits - 1))
    slope, intercept = number(header, "RescaleSlope", 1.0), number(header, "RescaleIntercept", 0.0)
    if slope == 0:
        raise DataError("its `Rescale Slope` is 0, which makes all values one")
    values = stored.astype(np.float64)
    if (slope, intercept) != (1.0, 0.0):
        values = values * slope + intercept
        if whole is not None:
            low, high = sorted(end * slope + intercept for end in whole)
            whole = (low, high)
    return values, whole


def _window(values: _Values, header: _Header, index: int, *, invert: bool) -> _Values:
    """Return values through one of the file's windows, by the function that it names (PS3.3 C.11.2.1.2 and 3)."""
    centers, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    count = min(len(centers), len(widths))
    if index >= count:
        raise DataError(f"it names {count} windows, and `voi_index` is {index}")
    center, width = centers[index], widths[index]
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    way_out = "Set `voi: false`, or `windows`"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DataError(f"its `VOI LUT Function` is none of LINEAR, LINEAR_EXACT and SIGMOID. {way_out}")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise DataError(f"its window has a width of {width:g}, and {function} needs one of at least 1. {way_out}")
    if function == "SIGMOID":
        exponent = np.clip(-4.0 * (values - center) / width, -700.0, 700.0)
        return 1.0 / (1.0 + np.exp(-exponent if invert else exponent))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
        if width == 0:
            return (values <= center if invert else values > center).astype(np.float64)
    return _ramp(values, center - width / 2, center + width / 2, invert=invert)


def _look_up(values: _Values, item: _Header, what: str) -> tuple[_Values, float]:
    """Return the entries of a table for values, and the highest that its depth can hold."""
    descriptor = [int(part) for part in numbers(item, "LUTDescriptor")]
    data = item.get("LUTData")
    if len(descriptor) != 3 or data is None:
        raise DataError(f"its {what} is broken: it needs a descriptor of 3 numbers and data")
    count, first, bits = descriptor[0] % 65536 or 65536, descriptor[1], descriptor[2]
    if not 8 <= bits <= 16:
        raise DataError(f"its {what} has entries of {bits} bits; the standard has 8 to 16")
    table = _table(data, count, getattr(item, "is_little_endian", True))
    if table is None:
        raise DataError(f"its {what} is broken: the descriptor says {count} entries, and there are fewer")
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, count - 1)
    return table[places], float(2**bits - 1)


def _table(data: Any, count: int, little: bool | None) -> _Values | None:  # noqa: ANN401 - bytes, number or numbers
    """Return the entries as float64; None if there are too few."""
    if isinstance(data, bytes):
        words = len(data) >= 2 * count
        kind = ("<u2" if little is not False else ">u2") if words else "u1"
        entries = np.frombuffer(data[: 2 * (len(data) // 2)] if words else data, dtype=kind)
    else:
        entries = np.asarray(data).reshape(-1)
    return entries[:count].astype(np.float64) if len(entries) >= count else None


def _item(header: _Header, keyword: str, index: int) -> _Header:
    items = header.get(keyword)
    if index >= len(items):
        raise DataError(f"it has {len(items)} items of `{_spaced(keyword)}`, and `voi_index` is {index}")
    return items[index]


def _check_hounsfield(windows: tuple[str, ...], header: _Header) -> None:
    """Refuse named windows where the values are no Hounsfield units."""
    named = [window for window in windows if window in WINDOWS]
    if not named:
        return
    modality = str(header.get("Modality") or "").strip()
    unit = str(header.get("RescaleType") or "HU").strip().upper()
    known = header.get("RescaleSlope") is not None or header.get("ModalityLUTSequence")
    if modality == "CT" and unit in ("HU", "") and known:
        return
    why = (
        f"its modality is {modality[:16] or 'unknown'}"
        if modality != "CT"
        else "it has no rescale slope"
        if not known
        else "its values are of another unit"
    )
    raise DataError(
        f"the windows {listing(named)} are in Hounsfield units, and {why}. Give center and width in the file's unit, as"
        " `40/400`, or leave `windows` out"
    )


def _ramp(values: _Values, low: float, high: float, *, invert: bool) -> _Values:
    """Return ``low`` as 0 and ``high`` as 1, or the other way round; constant pictures as 0."""
    if high <= low:
        return np.zeros(values.shape)
    ramp: _Values = ((high - values) if invert else (values - low)) / (high - low)
    return np.clip(ramp, 0.0, 1.0, out=ramp)


def _one(values: _Values) -> ScanPixels:
    return values.astype(np.float32)[..., None]


def _spaced(keyword: str) -> str:
    """Return a keyword as words.

    Example:
        >>> _spaced("NumberOfFrames")
        'Number Of Frames'
    """
    return "".join(f" {letter}" if letter.isupper() and place and not keyword[place - 1].isupper() else letter
                   for place, letter in enumerate(keyword))  # fmt: skip
