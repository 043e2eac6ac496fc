import base64
import io
from pathlib import Path

import numpy as np
import pytest
from make_run import make_fit, make_test
from PIL import Image

from lightning_transfer.evaluation.normal_only_maps import map_name
from lightning_transfer.reporting.pictures import MAX_SIDE, explanations, heat_maps, thumbnail
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.worst_errors import DataFiles, worst_errors


def opened(text: str) -> Image.Image:
    head, _, body = text.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


def test_a_picture_becomes_small_and_keeps_its_shape(tmp_path: Path) -> None:
    Image.fromarray(np.full((600, 1200, 3), (200, 40, 40), dtype=np.uint8)).save(tmp_path / "a.png")
    found = thumbnail(tmp_path / "a.png")
    assert found is not None
    picture = opened(found)
    assert picture.size == (MAX_SIDE, MAX_SIDE // 2)
    assert np.abs(np.asarray(picture).mean(axis=(0, 1)) - (200, 40, 40)).max() < 4
    assert len(found) < 10_000


def test_sixteen_bits_are_shown_in_their_own_range(tmp_path: Path) -> None:
    pixels = np.full((10, 10), 1000, dtype=np.uint16)
    pixels[:, 5:] = 1400
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = thumbnail(tmp_path / "a.png")
    assert found is not None
    grey = np.asarray(opened(found)).mean(axis=2)
    assert grey[:, 0].max() < 30
    assert grey[:, -1].min() > 225


@pytest.mark.parametrize("content", [b"", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_picture_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert thumbnail(tmp_path / "a.png") is None
    assert thumbnail(tmp_path / "missing.png") is None


def test_saved_heat_maps_are_found_by_the_ids(tmp_path: Path) -> None:
    run = make_test(make_fit(tmp_path / "run"), ids=["pit/a b.png", "b.png", "c.png"])
    maps = run / "test" / "maps"
    maps.mkdir()
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    red.save(maps / map_name(17, "pit/a b.png"))
    for place in (1, 2):  # two records whose names look alike: whose map is it?
        red.save(maps / map_name(place, "b.png"))
    (maps / map_name(3, "c.png")).write_bytes(b"broken")
    files = RunFiles.read(run)
    errors = [error for kind in worst_errors(files.predictions, "good").values() for error in kind]
    found = heat_maps(files, errors)
    assert list(found) == ["pit/a b.png"]
    assert np.asarray(opened(found["pit/a b.png"]))[4, 4, 0] > 200


def test_without_a_model_there_is_no_explanation_and_it_says_why(tmp_path: Path) -> None:
    run = RunFiles.read(make_test(make_fit(tmp_path / "run")))
    errors = worst_errors(run.predictions, "good")["escapes"]
    assert explanations(run, errors, DataFiles(run)) == ({}, "the run has no `model.ckpt`")
    (run.folder / "model.ckpt").write_bytes(b"nothing")
    found, reason = explanations(run, errors, DataFiles(run))
    assert found == {}
    assert reason
