"""The plain data of pictures that lie in files of many: slices of volumes, frames, rows of an array. No torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ImagePart"]


@dataclass(frozen=True)
class ImagePart:
    """One picture inside a file that may hold many: the input of a record of medical images.

    Attributes:
        path: The file.
        index: Of the slice (NIfTI, along the third axis of the volume in RAS+ order), the frame (DICOM) or the row
            (``.npz``), from 0; None where the file is one picture.
        key: Name of the array in an ``.npz`` file.

    Example:
        >>> str(ImagePart("head.nii.gz", 12)), str(ImagePart("chest.dcm"))
        ('head.nii.gz#12', 'chest.dcm')
    """

    path: str
    index: int | None = None
    key: str = ""

    def __str__(self) -> str:
        return self.path + (f"#{self.index}" if self.index is not None else "")
