"""Judge a volume by its slices: each is seen by the network, and the volume's probabilities are made of theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from lightning_transfer.data.deidentification import source_path
from lightning_transfer.data.nifti_files import count_slices, is_nifti
from lightning_transfer.data.scan_options import ScanFacts
from lightning_transfer.data.scan_preprocessing import ScanPreprocessing
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

__all__ = ["VolumePreprocessing", "is_volume", "reads_scans"]


def reads_scans(values: Mapping[str, Any]) -> Callable[[Any], Tensor]:
    """Return what turns a medical image into its tensor, or where images are judged by parts into those of all parts.

    Args:
        values: The preprocessing as a checkpoint has it.
    """
    rule = values.get("tiling")
    if rule is None:
        return ScanPreprocessing.from_dict(values)
    return VolumePreprocessing.from_dict(values).tiles if "step" in rule else ScanPreprocessing.from_dict(values).tiles


def is_volume(source: Any) -> bool:  # noqa: ANN401 - the input of a record
    """Return whether an input is a whole NIfTI volume, and not one slice of it.

    Example:
        >>> is_volume(ImagePart("head.nii.gz")), is_volume(ImagePart("head.nii.gz", 3)), is_volume("head.png")
        (True, False, False)
    """
    return is_nifti(source_path(source)) and not (isinstance(source, ImagePart) and source.index is not None)


@dataclass(frozen=True)
class VolumePreprocessing(ScanPreprocessing):
    """A `ScanPreprocessing` for volumes: the rule of how slices make a volume travels with it, as that of tiles does.

    Other files are one slice each.

    Args:
        top_k: A volume's probabilities are the mean of those of its k slices with the highest score, see
            `lightning_transfer.evaluation`; None takes all.
        step: Every how many-th slice is seen, the middle one among them.
    """

    top_k: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step < 1 or (self.top_k is not None and self.top_k < 1):
            raise ValueError(
                f"Expected `slice_step` and `volume_top_k` of at least 1, got {self.step} and {self.top_k}."
            )

    @classmethod
    def of(cls, spec: ScanPreprocessing, top_k: int | None, step: int) -> VolumePreprocessing:
        """Return the same specification with the rule."""
        values = {item.name: getattr(spec, item.name) for item in fields(ScanPreprocessing)}
        return cls(**values, top_k=top_k, step=step)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; slices are joined as tiles are, and by the same key."""
        return {**super().to_dict(), "tiling": {"top_k": self.top_k, "step": self.step}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VolumePreprocessing:
        """Rebuild from `to_dict`."""
        rule = values["tiling"]
        return cls.of(ScanPreprocessing.from_dict({**values, "tiling": None}), rule["top_k"], rule["step"])

    def slices(self, source: Any) -> list[Any]:  # noqa: ANN401 - as the input of a record
        """Return the slices of a volume that are seen; of other files the file.

        Raises:
            DataError: If the volume's header cannot be read, or its axes are not those of a patient.
        """
        if not is_volume(source):
            return [source]
        path = source_path(source)
        count = count_slices(path, self.options)
        return [ImagePart(path, index) for index in range(count // 2 % self.step, count, self.step)]

    def tiles(self, source: Any) -> Tensor:  # noqa: ANN401
        """Return all slices that are seen ``(slices, channels, height, width)``.

        Raises:
            DataError: If one cannot be read.
        """
        return torch.stack([self(part) for part in self.slices(source)])

    def pieces(self, record: Record) -> list[Record]:
        """Return a record for each slice, with the volume's label."""
        parts = self.slices(record.input)
        return [replace(record, id=f"{record.id}#{number}", input=part) for number, part in enumerate(parts)]

    def middle(self, source: Any) -> Any:  # noqa: ANN401
        """Return the slice that a volume is shown by."""
        parts = self.slices(source)
        return parts[len(parts) // 2]

    def check(self, source: Any) -> ScanFacts:  # type: ignore[override]  # noqa: ANN401 - as its parent
        """Read every slice that is seen; return what is known of the volume, and the picture of its middle.

        Raises:
            DataError: If one cannot be read.
        """
        parts = self.slices(source)
        for place, part in enumerate(parts):
            if place != len(parts) // 2:
                self.read(part)
        return super().check(parts[len(parts) // 2])
