import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.data import dicom_header
from lightning_transfer.data.dicom_header import code, is_dicom, open_dicom
from lightning_transfer.errors import DataError

pydicom = pytest.importorskip("pydicom")

PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
Make = Callable[..., Path]


def test_a_file_is_known_by_its_content(make_dicom: Make, tmp_path: Path) -> None:
    path = make_dicom(PIXELS, name="picture.png")
    assert is_dicom(path)
    text = tmp_path / "text.dcm"
    text.write_text("Dear Mrs. Doe, " * 20)
    assert not is_dicom(text)
    assert not is_dicom(tmp_path / "none.dcm")
    with pytest.raises(DataError, match=r"`text.dcm`: it is no DICOM file: no preamble"):
        open_dicom(text)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_a_header_without_preamble_is_read(make_dicom: Make, tmp_path: Path, syntax: str) -> None:
    path, bare = make_dicom(PIXELS, syntax=syntax), tmp_path / "bare"
    length = pydicom.dcmread(path).file_meta.FileMetaInformationGroupLength
    bare.write_bytes(path.read_bytes()[144 + length :])  # the preamble, and the element of the length
    assert is_dicom(bare)
    found = open_dicom(bare)
    assert found.header.Rows == 8
    assert found.header.file_meta.TransferSyntaxUID == syntax
    assert found.pixels is found.header


def test_pixels_are_left_out_where_only_the_header_is_asked_for(make_dicom: Make) -> None:
    path = make_dicom(PIXELS)
    assert "PixelData" not in open_dicom(path, pixels=False).header
    assert "PixelData" in open_dicom(path).header


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"x" * 7, "no DICOM"), (b"\0" * 200, "no DICOM")])
def test_what_is_no_dicom(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        open_dicom(tmp_path / "a.dcm")


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`a.dcm`: there is no such file") as error:
        open_dicom(tmp_path / "Doe_Jane" / "a.dcm")
    assert "Doe" not in str(error.value)


def test_every_cut_is_read_or_refused_with_a_reason(make_dicom: Make) -> None:
    path = make_dicom(PIXELS)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            open_dicom(path)
        except DataError as error:
            assert "a.dcm" in str(error)  # noqa: PT017
            assert "Doe" not in str(error)  # noqa: PT017


def test_a_deflated_file_may_not_hold_more_than_memory(make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_dicom(np.zeros((512, 512), dtype=np.uint16), syntax="1.2.840.10008.1.2.1.99")
    assert path.stat().st_size < 5000
    assert open_dicom(path).header.Rows == 512
    monkeypatch.setattr(dicom_header, "_MOST_INFLATED", 100_000)
    with pytest.raises(DataError, match="deflated content is larger"):
        open_dicom(path)


def test_compressed_pixels_need_a_transfer_syntax(make_dicom: Make) -> None:
    from pydicom.encaps import encapsulate

    path = make_dicom(PIXELS, syntax="1.2.840.10008.1.2.4.90", PixelData=encapsulate([zlib.compress(b"x" * 99)]))
    content = path.read_bytes()
    tag = content.index(b"\x02\x00\x10\x00UI")
    length = 8 + int.from_bytes(content[tag + 6 : tag + 8], "little")
    path.write_bytes(content[:tag] + content[tag + length :])
    with pytest.raises(DataError, match="compressed, and it names no transfer syntax"):
        open_dicom(path)


def test_without_pydicom_the_extra_is_named(make_dicom: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_dicom(PIXELS)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pip install lightning-transfer\[medical\]"):
        open_dicom(path)


@pytest.mark.parametrize(("value", "expected"), [("CT", "CT"), (" CT\0", "CT"), ("Jane Doe", ""), (None, ""), ("", "")])
def test_codes(value: str | None, expected: str) -> None:
    assert code({"Modality": value}, "Modality") == expected
