import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.data.image_files import check_images, image_size, read_image
from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

GREY = ImagePreprocessing(size=(8, 8), channels=1, mean=(0.5,), std=(0.25,))
COLOUR = ImagePreprocessing(size=(8, 8), channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)


def _png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.tile(RGB, (8, 8, 1))).save(stream, "PNG")
    return stream.getvalue()


def _jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.tile(RGB, (8, 8, 1))).save(stream, "JPEG")
    return stream.getvalue()


def _bomb(side: int = 11_000) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _animation(kind: str) -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"not an image", "no image, or its header is broken"),
    "truncated_png": (_png()[:200], "truncated|broken"),
    "truncated_jpeg": (_jpeg()[:500], "truncated"),
    "header_only": (_png()[:8], "no image"),
    "corrupt": (_png()[:60] + bytes(200) + _png()[260:], "broken|error|bad|unrecognized|crc|stream"),
    "bomb": (_bomb(), "too large, 11000 x 11000 pixels are 121 megapixels; the limit is 100.*`max_megapixels`"),
    **{kind: (_animation(kind), "2 frames.*still image") for kind in ("GIF", "PNG", "TIFF", "WEBP")},
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named_with_its_reason(tmp_path: Path, kind: str) -> None:
    content, match = BROKEN[kind]
    path = tmp_path / f"{kind}.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"(?i){kind}.png`: .*({match})"):
        GREY(path)


def test_a_decompression_bomb_is_never_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(_bomb(60_000))
    with pytest.raises(DataError, match=r"huge.png`: too large, more than twice the limit of 100.*`max_megapixels`"):
        GREY(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png`: there is no such file"):
        GREY(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"Is a directory|no such file|Permission"):
        GREY(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_single_damage_of_a_small_file_is_a_picture_or_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "TIFF")
    raw = stream.getvalue()
    for index in [*range(0, 24), *range(len(raw) - 150, len(raw))]:
        path.write_bytes(raw[:index] + bytes([raw[index] ^ 0x5A]) + raw[index + 1 :])
        try:
            assert COLOUR(path).isfinite().all()
        except DataError as error:
            assert "a.tiff" in str(error)  # noqa: PT017 - either outcome is right


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    contents = {"a.png": _png(), "b.png": b"", "c.png": _jpeg()[:300], "d.png": _png()}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [Record(id=name, input=tmp_path / name) for name in [*contents, "e.png"]]


def test_all_bad_files_are_counted_and_the_first_are_named(records: list[Record]) -> None:
    with pytest.raises(
        DataError, match=r"(?s)3 of 5 images cannot be used:.*b\.png: .*empty.*c\.png.*e\.png.*on_bad_file"
    ):
        check_images(records)


def test_bad_files_are_skipped_with_reasons_where_asked(records: list[Record]) -> None:
    good, bad = check_images(records, "skip", show_progress=True)
    assert [record.id for record in good] == ["a.png", "d.png"]
    assert [(skip.record.id, skip.position) for skip in bad] == [("b.png", 1), ("c.png", 2), ("e.png", 4)]
    assert "no such file" in bad[2].reason


def test_nothing_usable_is_an_error_even_when_skipping(records: list[Record]) -> None:
    with pytest.raises(DataError, match="2 of 2 images cannot be used"):
        check_images([records[1], records[4]], "skip")


def test_a_camera_picture_with_a_preview_is_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.mpo"
    frames = [Image.fromarray(np.tile(RGB, (4, 4, 1))), Image.fromarray(RGB)]
    frames[0].save(path, "MPO", save_all=True, append_images=frames[1:])
    assert read_image(path).shape == (32, 32, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_of_megapixels_can_be_raised_above_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 50), dtype=np.uint8)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)  # what Pillow does with its own limit
    assert read_image(path, max_megapixels=0.001).shape == (20, 50, 1)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(DataError, match=r"0\.001 megapixels; the limit is 0\.0009"):
        read_image(path, max_megapixels=0.0009)
    with pytest.raises(DataError, match=r"twice the limit of 0\.0004"):
        image_size(path, max_megapixels=0.0004)
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(DataError, match="the image: too large, 50 x 20"):
        read_image(Image.new("L", (50, 20)), max_megapixels=0.0009)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((10, 30), dtype=np.uint8)).save(path, exif=exif)
    assert image_size(path) == read_image(path).shape[:2]
    assert image_size(Image.open(path)) == image_size(path)


def test_the_size_of_what_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a.png`: it is no image"):
        image_size(tmp_path / "a.png")
    assert image_size(np.zeros((3, 4, 3), dtype=np.uint8)) == (3, 4)


def test_48_bit_colour_keeps_the_upper_bytes(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    values = RNG.integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), (values >> 8).astype(np.uint8))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bits_of_either_byte_order(tmp_path: Path, order: str) -> None:
    values = RNG.integers(0, 65536, (4, 5)).astype(order)
    Image.frombytes("I;16" if order == "<u2" else "I;16B", (5, 4), values.tobytes()).save(tmp_path / "a.tiff")
    found = read_image(tmp_path / "a.tiff")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[..., 0], values)


def test_another_check_than_reading(tmp_path: Path) -> None:
    records = [Record("a", np.zeros((2, 2), np.uint8)), Record("b", np.ones((2, 2), np.uint8))]

    def check(image: np.ndarray) -> None:
        if image.any():
            raise DataError("not black")

    good, bad = check_images(records, "skip", check=check)
    assert [record.id for record in good] == ["a"]
    assert [(skip.record.id, skip.reason) for skip in bad] == [("b", "not black")]
