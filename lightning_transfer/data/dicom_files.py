"""Read one frame of a DICOM file as values in ``[0, 1]``, with what is known of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.dicom_facts import GREY, facts_of, frame_header
from lightning_transfer.data.dicom_header import BROKEN, open_dicom, reason, refusal
from lightning_transfer.data.dicom_silence import silence
from lightning_transfer.data.dicom_values import colour_values, grey_values, number, numbers
from lightning_transfer.data.scan_options import Scan, ScanOptions
from lightning_transfer.errors import DataError

__all__ = ["read_dicom"]

_Dataset = Any  # pydicom.Dataset

_WHOLE_FILE = 1 << 25


def read_dicom(path: str | Path, options: ScanOptions | None = None, frame: int | None = None) -> Scan:
    """Return one frame as values in ``[0, 1]``, and what is known of it.

    Decoded, through the modality LUT, through the VOI LUT or the windows, MONOCHROME1 inverted, scaled by the known
    range: see `grey_values`. Colour comes as RGB whatever it was stored as. Overlays are not drawn.

    Args:
        path: The file.
        options: How; None takes the defaults.
        frame: Of a file of several, from 0; before ``options.frame``.

    Raises:
        DataError: With the file's name and the reason; without any value that may name a person.
    """
    options = options or ScanOptions()
    frame = options.frame if frame is None else frame
    with silence():
        header, source = open_dicom(path, pixels=_is_small(path))
        try:
            facts = facts_of(header, frame, options)
            place = 0 if frame is None else frame
            try:
                stored = _decode(source, header, place)
            except BROKEN:
                if source is header:
                    raise
                # Some broken files can be read as a whole, and not by parts.
                header, source = open_dicom(path)
                stored = _decode(source, header, place)
            values = frame_header(header, place)
            if facts.photometric in GREY:
                pixels, range_from = grey_values(stored, values, options)
            elif facts.photometric == "PALETTE COLOR":
                colours, depth = _palette(stored, values)
                pixels, range_from = colour_values(colours, depth, options), options.scale
            else:
                pixels, range_from = colour_values(stored, facts.bits or 8, options), options.scale
        except DataError as error:
            raise refusal(path, str(error)) from None
        except BROKEN as error:
            raise refusal(path, reason(error, header)) from None
    bits = None if np.issubdtype(stored.dtype, np.floating) else facts.bits
    return Scan(pixels, replace(facts, bits=bits, range_from=range_from))


def _is_small(path: str | Path) -> bool:
    """Return whether a file is read as a whole; of larger ones, mostly of many frames, one frame is."""
    try:
        return Path(path).stat().st_size <= _WHOLE_FILE
    except OSError:
        return True


def _decode(source: Any, header: _Dataset, frame: int) -> npt.NDArray[Any]:  # noqa: ANN401 - path or data set
    """Return one frame as stored, colour as RGB; of a path no other frame is read."""
    from pydicom.pixels.utils import pixel_array

    allocated = int(number(header, "BitsAllocated"))
    stored = int(number(header, "BitsStored", allocated))
    high = int(number(header, "HighBit", stored - 1))
    if high == stored - 1 or high >= allocated or header.file_meta.TransferSyntaxUID.is_compressed:
        return np.asarray(pixel_array(source, index=frame))
    # Values that do not begin at the lowest bit, as of the standard before 1993: pydicom takes no notice.
    found: npt.NDArray[Any] = np.array(pixel_array(source, index=frame, correct_unused_bits=False))
    np.left_shift(found, allocated - 1 - high, out=found)
    np.right_shift(found, allocated - stored, out=found)
    return found


def _palette(stored: npt.NDArray[Any], header: _Dataset) -> tuple[npt.NDArray[Any], int]:
    """Return the colours of a palette, and their bits."""
    from pydicom.pixels.processing import apply_color_lut

    colours = np.asarray(apply_color_lut(stored, header))[..., :3]
    return colours, int(numbers(header, "RedPaletteColorLookupTableDescriptor")[2])
