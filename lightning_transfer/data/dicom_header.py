"""Open DICOM files up to their pixels, and say why one cannot be used, in words that quote nobody."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from lightning_transfer.data.dicom_silence import silence
from lightning_transfer.errors import DataError

__all__ = ["BROKEN", "DICOM_SUFFIXES", "DicomFile", "code", "is_dicom", "open_dicom", "reason", "refusal"]

_Dataset = Any  # pydicom.Dataset


class DicomFile(NamedTuple):
    """A file that is open up to its pixels: the header, and where a decoder finds them (the path, or a data set)."""

    header: _Dataset
    pixels: Any


# Broken files make pydicom and its decoders raise anything, with texts that quote values of tags. None may pass.
BROKEN = (Exception,)

DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
"""Usual ones; many files have none. What a file is, its content says."""

_CODE = re.compile(r"[A-Z0-9 _]{1,16}")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MOST_INFLATED = 2 << 30
_COMPRESSED = "pip install lightning-transfer[dicom-compressed]"


def is_dicom(path: str | Path) -> bool:
    """Return whether the content is DICOM: by its preamble, or by a first element as headers without one begin.

    Example:
        >>> is_dicom(__file__)
        False
    """
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _starts_with_element(head)


def open_dicom(path: str | Path, *, pixels: bool = True) -> DicomFile:
    """Read a file; without ``pixels`` the header alone, where the file is written as it should be.

    Raises:
        DataError: If it is no DICOM file, or a broken one.
    """
    pydicom = _library()
    path = Path(path)
    with silence():
        try:
            with path.open("rb") as stream:
                head = stream.read(132)
            if not head:
                raise refusal(path, "the file is empty")
            if head[128:] != b"DICM":
                if not _starts_with_element(head):
                    raise refusal(path, "it is no DICOM file: no preamble, and its first bytes are no element")
                return _without_syntax(pydicom.dcmread(path, force=True), path)
            _check_inflated(path, pydicom)
            header = pydicom.dcmread(path, stop_before_pixels=not pixels)
            if "TransferSyntaxUID" not in header.file_meta:
                return _without_syntax(header if pixels else pydicom.dcmread(path), path)
            return DicomFile(header, header if pixels else path)
        except DataError:
            raise
        except FileNotFoundError:
            raise refusal(path, "there is no such file") from None
        except pydicom.errors.InvalidDicomError:
            raise refusal(path, "it is no DICOM file") from None
        except BROKEN as error:
            raise refusal(path, reason(error, None)) from None


def reason(error: BaseException, header: _Dataset | None) -> str:
    """Return why a file cannot be read, in words of ours."""
    text = str(error)
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    name = "unknown" if syntax is None else f"`{syntax.name}`"
    if "no 'Pixel Data'" in text or "no pixel data" in text.lower():
        return f"it has no pixel data{_of_modality(header)}"
    if isinstance(error, NotImplementedError) and "Transfer Syntax" in text:
        return f"its transfer syntax {name} is not one that can be decoded. Convert it, as with dcmtk's `dcmconv`"
    if "missing dependencies" in text or "missing required dependencies" in text:
        return f"its transfer syntax {name} needs a decoder that is not installed: {_COMPRESSED}"
    if "less than expected" in text or isinstance(error, EOFError):
        return "it is truncated: it has fewer bytes than its header says"
    if isinstance(error, RuntimeError) and syntax is not None:
        return f"its pixels cannot be decoded, by {name}: they are broken, or not what the header says"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it is broken ({type(error).__name__})"


def code(header: _Dataset, keyword: str) -> str:
    """Return a term of the standard; empty if there is none, or if something else was written into its place.

    Example:
        >>> code({"Modality": "CT "}, "Modality"), code({"Modality": "Mrs. Doe"}, "Modality")
        ('CT', '')
    """
    try:
        value = str(header.get(keyword) or "").strip(" \0")
    except BROKEN:
        return ""
    return value if _CODE.fullmatch(value) else ""


def _of_modality(header: _Dataset | None) -> str:
    modality = "" if header is None else code(header, "Modality")
    return f" (modality {modality})" if modality else ""


def refusal(path: str | Path, reason: str) -> DataError:
    """Return the error; of the path the file name alone, since folders are often named after patients."""
    return DataError(f"Cannot read the DICOM file `{Path(path).name}`: {reason}.")


def _library() -> Any:  # noqa: ANN401 - the module pydicom
    try:
        import pydicom
        import pydicom.errors
    except ImportError as error:
        raise DataError("Reading DICOM needs pydicom: pip install lightning-transfer[medical]") from error
    return pydicom


def _starts_with_element(head: bytes) -> bool:
    """Return whether bytes begin as a header without preamble: group 2 or 8, and a plausible first element."""
    if len(head) < 8:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack(f"{order}HH", head[:4])
        if group not in (0x0002, 0x0008) or element > 0x1200:
            continue
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        if explicit or struct.unpack(f"{order}I", head[4:8])[0] <= 0x10000:
            return True
    return False


def _check_inflated(path: Path, pydicom: Any) -> None:  # noqa: ANN401 - the module
    """Refuse a deflated file that is far larger than any picture: a kilobyte may hold gigabytes."""
    meta = pydicom.filereader.read_file_meta_info(path)
    if str(meta.get("TransferSyntaxUID", "")) != _DEFLATED:
        return
    left, found = _MOST_INFLATED, zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as stream:
        stream.seek(144 + int(meta.FileMetaInformationGroupLength))  # preamble, and the element of that length
        while left > 0 and (part := found.unconsumed_tail or stream.read(1 << 16)):
            left -= len(found.decompress(part, min(left, 1 << 20)))
    if left <= 0:
        raise refusal(path, f"its deflated content is larger than {_MOST_INFLATED >> 20} MiB")


def _without_syntax(header: _Dataset, path: Path) -> DicomFile:
    """Return a file that does not say how it is written with what it was read by; compressed pixels need more."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(header, "file_meta", None)
    if meta is None:
        header.file_meta = meta = FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        if "PixelData" in header and header["PixelData"].is_undefined_length:
            raise refusal(path, "its pixels are compressed, and it names no transfer syntax")
        implicit, little = header.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return DicomFile(header, header)
