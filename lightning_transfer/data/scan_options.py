"""How scans become pixels: the options, what is known of a scan, and windows. No library of formats is needed here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_transfer.data.image_facts import ImageFacts
from lightning_transfer.data.image_files import MAX_MEGAPIXELS
from lightning_transfer.errors import closest

__all__ = ["WINDOWS", "Scan", "ScanFacts", "ScanOptions", "ScanPixels", "window_limits"]

ScanPixels = npt.NDArray[np.float32]

WINDOWS: Mapping[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "bone": (400.0, 1800.0),
    "soft_tissue": (50.0, 400.0),
    "liver": (30.0, 150.0),
    "brain": (40.0, 80.0),
    "subdural": (75.0, 215.0),
}
"""Usual windows of computed tomography, center and width in Hounsfield units."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_WINDOW = re.compile(rf"(?:(?P<name>[A-Za-z]\w*)=)?(?P<center>{_NUMBER})/(?P<width>{_NUMBER})")


@dataclass(frozen=True)
class ScanOptions:
    """How a scan becomes values in ``[0, 1]``; part of the preprocessing that travels in the checkpoint.

    The range that becomes 0 to 1 is, in this order: ``windows`` or ``nifti_window``; what the file says (``voi``: the
    VOI LUT or first window of DICOM, ``cal_min`` and ``cal_max`` of NIfTI); all values that the bits stored can hold.
    It is never the picture's own lowest and highest value, unless ``scale`` says so: brightness would then depend on
    what else is in the picture, such as a pacemaker.

    Args:
        windows: Each becomes a channel: a name of `WINDOWS` (Hounsfield units, so CT only), ``center/width`` in units
            after the modality LUT, or both, ``name=center/width``. Linear from center - width / 2 to
            center + width / 2 (the standard's ``LINEAR_EXACT``).
        voi: Whether the file's own VOI LUT or window is applied.
        voi_index: Which of several that a file names, from 0.
        scale: ``min_max`` takes each picture's own lowest and highest value (of NIfTI: the volume's) and nothing else.
        frame: Of a DICOM file of several, from 0, where the source names none; None refuses such files.
        bit_depth: Bits that are used of plain 16-bit pictures, as of PNG; None is 16.
        nifti_window: Lowest and highest value of NIfTI volumes, which have no bit depth.
        nan_value: In place of NaN and infinity in NIfTI; None refuses them.
        max_oblique: Degrees between the axes of a NIfTI volume and the patient's, up to which slices count as straight.
        modalities: Of DICOM files; others are refused. Empty takes all.
        max_megapixels: A larger picture is refused before it is decoded.

    Example:
        >>> ScanOptions(windows=("lung", "40/400")).channels
        2
    """

    windows: tuple[str, ...] = ()
    voi: bool = True
    voi_index: int = 0
    scale: Literal["bit_depth", "min_max"] = "bit_depth"
    frame: int | None = None
    bit_depth: int | None = None
    nifti_window: tuple[float, float] | None = None
    nan_value: float | None = None
    max_oblique: float = 5.0
    modalities: tuple[str, ...] = ()
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        for name in ("windows", "modalities", "nifti_window"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"Expected `{name}` as a list, got `{value}`. Write `{name}: [{value}]`.")
            if value is not None:
                object.__setattr__(self, name, tuple(value))  # lists, as YAML has them
        for window in self.windows:
            window_limits(window)
        if self.scale not in ("bit_depth", "min_max"):
            raise ValueError(f"Expected `scale` bit_depth or min_max, got `{self.scale}`.")
        if self.scale == "min_max" and (self.windows or self.nifti_window is not None):
            chosen = "windows" if self.windows else "nifti_window"
            raise ValueError(f"`scale: min_max` and `{chosen}` contradict each other. Leave one of them out.")
        if self.windows and self.nifti_window is not None:
            raise ValueError("`windows` and `nifti_window` contradict each other. Leave one of them out.")
        for name in ("voi_index", "frame"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"Expected `{name}` of at least 0, got {getattr(self, name)}.")
        if self.bit_depth is not None and not 9 <= self.bit_depth <= 16:
            raise ValueError(f"Expected `bit_depth` from 9 to 16, got {self.bit_depth}. Use null for 16 bits.")
        if self.nifti_window is not None:
            low, high = self.nifti_window if len(self.nifti_window) == 2 else (0.0, 0.0)
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(
                    f"Expected `nifti_window` as the lowest and the highest value, got {list(self.nifti_window)}."
                )
        if self.nan_value is not None and not math.isfinite(self.nan_value):
            raise ValueError(f"Expected a finite `nan_value`, got {self.nan_value}.")
        if not 0 <= self.max_oblique <= 45:
            raise ValueError(f"Expected `max_oblique` from 0 to 45 degrees, got {self.max_oblique}.")
        if self.max_megapixels <= 0:
            raise ValueError(f"Expected `max_megapixels` above 0, got {self.max_megapixels}.")

    @property
    def channels(self) -> int | None:
        """How many channels the windows make; None where the file decides."""
        return len(self.windows) or None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; named windows with their numbers, so that a checkpoint does not depend on the names."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["windows"] = [_numbered(window) for window in self.windows]
        values["modalities"] = list(self.modalities)
        values["nifti_window"] = None if self.nifti_window is None else list(self.nifti_window)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScanOptions:
        """Rebuild from `to_dict`; other keys are left alone.

        Example:
            >>> options = ScanOptions(windows=("lung", "skin=-200/100"), nifti_window=None)
            >>> ScanOptions.from_dict(options.to_dict()) == options, options.to_dict()["windows"][0]
            (True, 'lung=-600/1500')
        """
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        known["windows"] = tuple(_named(window) for window in known.get("windows", ()))
        return cls(**known)


def window_limits(window: str) -> tuple[float, float]:
    """Return the values that become 0 and 1.

    Raises:
        ValueError: If the window is neither a known name nor ``center/width``.

    Example:
        >>> window_limits("lung"), window_limits("40/400"), window_limits("skin=0/10")
        ((-1350.0, 150.0), (-160.0, 240.0), (-5.0, 5.0))
    """
    if window in WINDOWS:
        center, width = WINDOWS[window]
    else:
        match = _WINDOW.fullmatch(str(window))
        if match is None:
            raise ValueError(
                f"Unknown window `{window}`.{closest(str(window), WINDOWS)} Expected one of {', '.join(WINDOWS)}, or"
                " center and width as `40/400` or `name=40/400`."
            )
        center, width = float(match["center"]), float(match["width"])
    if width <= 0:
        raise ValueError(f"Expected a width above 0, got the window `{window}`.")
    return center - width / 2, center + width / 2


def _numbered(window: str) -> str:
    return f"{window}={WINDOWS[window][0]:g}/{WINDOWS[window][1]:g}" if window in WINDOWS else window


def _named(window: str) -> str:
    name = window.partition("=")[0]
    return name if name in WINDOWS and window == _numbered(name) else window


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan, without anything that names a person.

    Attributes:
        kind: ``dicom``, ``nifti``, ``array`` (``.npz`` and arrays) or ``picture``.
        height: In pixels.
        width: In pixels.
        bits: Stored for each value; None for floats.
        photometric: As DICOM names it: ``MONOCHROME1``, ``MONOCHROME2``, ``RGB``, ... Of other kinds ``""``.
        modality: ``CR``, ``DX``, ``CT``, ``MR``, ...; ``""`` if unknown.
        spacing: Of rows and of columns, in millimetres; None if unknown.
        manufacturer: Of the scanner.
        model: Of the scanner.
        burned_in: Whether the file says that text is burned into the picture; None if it does not say.
        view: ``PA``, ``AP``, ``LL``, ``CC``, ...
        frames: In the file; of a volume the slices.
        orientation: ``axial``, ``coronal`` or ``sagittal``, or the directions of rows and columns, such as ``L/F``; of
            NIfTI the axes of the file, such as ``LPS``.
        range_from: What the range that became 0 to 1 comes from: ``windows``, ``voi_lut``, ``window``, ``cal_range``,
            ``nifti_window``, ``bit_depth`` or ``min_max``; empty where the header alone was read.
        tags: Of the keep-list.
        image: What `inspect_image` says of the pixels; filled in by checks alone.
    """

    kind: Literal["dicom", "nifti", "array", "picture"]
    height: int
    width: int
    bits: int | None = None
    photometric: str = ""
    modality: str = ""
    spacing: tuple[float, float] | None = None
    manufacturer: str = ""
    model: str = ""
    burned_in: bool | None = None
    view: str = ""
    frames: int = 1
    orientation: str = ""
    range_from: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    image: ImageFacts | None = None

    @property
    def scanner(self) -> str:
        """Maker and model, as one word for a column.

        Example:
            >>> ScanFacts("dicom", 2, 2, manufacturer="ACME", model="X1").scanner
            'ACME X1'
        """
        return " ".join(part for part in (self.manufacturer, self.model) if part)


class Scan(NamedTuple):
    """Pixels ``(H, W, C)`` in ``[0, 1]``, and what is known of them."""

    pixels: ScanPixels
    facts: ScanFacts
