import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.cli import main
from lightning_transfer.cli.check_data import exit_code, format_findings, write_check
from lightning_transfer.types import Finding, Record
from recipes.vision.cli import RECIPE

Toy = Callable[..., Any]
Vision = Callable[..., tuple[int, str, str]]

BACKBONE = ["--model.backbone=embedded/formula_resnet_tiny", "--trainer.accelerator=cpu"]
QUIET = ["--trainer.enable_progress_bar=false", "--data.negative_class=good", "--data.image_size=32"]


def _check(folder: Path, verb: str = "check-data") -> dict[str, Any]:
    [path] = folder.glob("runs/vision/*/check-data/check.json" if verb == "check-data" else "runs/vision/*/check.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _codes(values: dict[str, Any], severity: str) -> set[str]:
    return {item["code"] for item in values["findings"] if item["severity"] == severity}


@pytest.fixture
def vision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vision:
    """Run a verb of the vision recipe in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(verb: str, root: Path, *words: str) -> tuple[int, str, str]:
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        capsys.readouterr()
        code = main(RECIPE, [verb, f"--data.root={root}", *BACKBONE, *QUIET, *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Sixty different pictures of thirty patients, with a manifest."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    lines = ["path,label,patient"]
    for place in range(60):
        label = "bad" if place % 3 == 0 else "good"
        path = root / label / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (7, 7), dtype=np.uint8))
        small.resize((40, 40), Image.Resampling.BICUBIC).save(path)
        lines.append(f"{label}/{place}.png,{label},p{place // 2}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return root


def _edit(root: Path, change: Callable[[list[list[str]]], None]) -> None:
    rows = [line.split(",") for line in (root / "manifest.csv").read_text().splitlines()]
    change(rows)
    (root / "manifest.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")


def test_clean_data(vision: Vision, images: Path, tmp_path: Path) -> None:
    code, out, err = vision("check-data", images, "--data.group_column=patient", "--strict")
    assert code == 0, out + err
    assert "0 errors, 0 warnings" in out
    values = _check(tmp_path)
    assert set(values) == {"errors", "warnings", "findings", "num_records", "seconds"}
    assert (values["errors"], values["warnings"]) == (0, 0)
    assert sum(values["num_records"].values()) == 60
    assert set(values["findings"][0]) == {"code", "severity", "message", "count", "examples", "advice"}
    assert out.rstrip().splitlines()[-1].startswith("Run folder: ")
    assert not list(tmp_path.glob("runs/vision/*/checkpoints"))


def test_a_split_by_image_although_there_are_patients(vision: Vision, images: Path, tmp_path: Path) -> None:
    code, out, _ = vision("check-data", images)
    assert code == 2
    assert "Errors\n  group-column-overlap\n    `patient` is on both sides of the split" in out
    assert "    - train " in out
    assert "To do: Set `data.group_column: patient`" in out
    code, _, err = vision("fit", images, "--trainer.max_epochs=1")
    assert code == 2
    assert "Error: The data check found 1 error" in err
    assert "group-column-overlap: `patient` is on both sides" in err
    assert "`--check_data=false` trains all the same" in err
    assert _check(tmp_path, "fit")["errors"] == 1
    assert not list(tmp_path.glob("runs/vision/*/model.ckpt"))


def test_a_fit_says_warnings_in_a_line_each_and_can_be_told_not_to_check(
    vision: Vision, images: Path, tmp_path: Path
) -> None:
    def spoil(rows: list[list[str]]) -> None:
        for place, row in enumerate(rows[1:]):
            row[1] = "Good" if row[1] == "good" and place % 2 else row[1]

    _edit(images, spoil)
    words = ["--data.group_column=patient", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    code, out, err = vision("fit", images, *words)
    assert code == 0, err
    assert "Data check: 0 errors, 1 warning, " in out
    [line] = [line for line in out.splitlines() if line.startswith("  label-case: 1 labels are written")]
    assert "`Good`" in line
    assert _codes(_check(tmp_path, "fit"), "warning") == {"label-case"}
    code, out, err = vision("fit", images, *words, "--check_data=false")
    assert (code, "Data check" in out) == (0, False), err
    assert not list(tmp_path.glob("runs/vision/*/check.json"))


def test_every_planted_fault_at_once(vision: Vision, images: Path, tmp_path: Path) -> None:
    def spoil(rows: list[list[str]]) -> None:
        rows[0].append("split")
        for place, row in enumerate(rows[1:]):
            row.append("test" if place >= 40 else "val" if place >= 30 else "train")
        rows[1][1] = ""  # a missing label
        rows[2][1] = "Good"  # another case
        rows[60][2] = "p3"  # a patient on both sides
        for row in rows[41:]:
            row[1] = "good"  # a class missing in test

    _edit(images, spoil)
    (images / "good" / "1.png").write_bytes(b"")
    (images / "good" / "2.png").write_bytes((images / "good" / "2.png").read_bytes()[:50])
    shutil.copy(images / "good" / "4.png", images / "good" / "50.png")
    words = ["--data.group_column=patient", "--data.calibration_fraction=0"]
    code, out, err = vision("check-data", images, *words)
    assert code == 2, err
    values = _check(tmp_path)
    assert _codes(values, "error") >= {"unreadable-file", "missing-label", "group-overlap"}
    assert _codes(values, "warning") | _codes(values, "error") >= {"class-missing-in-split", "duplicates-across-splits"}
    found = {item["code"]: item for item in values["findings"]}
    assert found["unreadable-file"]["count"] == 2
    assert any("p3" in text for text in found["group-overlap"]["examples"])
    assert "records are left out" not in out


def test_a_missing_class_and_a_label_in_another_case(vision: Vision, images: Path, tmp_path: Path) -> None:
    def spoil(rows: list[list[str]]) -> None:
        rows[0].append("split")
        for place, row in enumerate(rows[1:]):
            row.append("test" if place >= 40 else "val" if place >= 30 else "train")
            row[1] = "Good" if row[1] == "good" and place % 5 == 0 and place < 30 else row[1]
            row[1] = "good" if place >= 40 else row[1]

    _edit(images, spoil)
    words = ["--data.group_column=patient", "--data.calibration_fraction=0"]
    assert vision("check-data", images, *words)[0] == 0
    code, out, _ = vision("check-data", images, *words, "--strict")
    assert code == 1
    assert _codes(_check(tmp_path), "warning") >= {"label-case", "class-missing-in-split"}
    assert "`test` has no record of 2 of 3 classes: `Good`, `bad`" in out


def test_a_swapped_card_stops_check_and_fit(vision: Vision, images: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text("mean: [0.229, 0.224, 0.225]\nstd: [0.485, 0.456, 0.406]\n")
    words = ["--data.group_column=patient", f"--model.card={card}"]
    code, out, _ = vision("check-data", images, *words)
    assert code == 2
    assert "ImageNet's (the card's values), swapped." in out
    code, _, err = vision("fit", images, *words, "--trainer.max_epochs=1")
    assert code == 2
    assert "preprocessing-mismatch" in err


def test_what_ends_the_reading_is_reported_with_the_rest(vision: Vision, images: Path, tmp_path: Path) -> None:
    code, out, err = vision("check-data", images, "--data.group_column=patient", "--data.negative_class=god")
    assert code == 2, err
    assert "No class is `god` (`negative_class`). Did you mean `good`?" in out
    assert "class-counts" in out
    (images / "manifest.csv").write_text("path;label\n")
    code, out, _ = vision("check-data", images)
    assert code == 2
    assert "unusable-data" in out
    assert _check(tmp_path)["num_records"] == {}


def test_warnings_of_the_reading_are_findings(vision: Vision, images: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (40, 40)).astype(np.uint16)
    Image.fromarray(pixels).save(images / "good" / "1.png")
    vision("check-data", images, "--data.group_column=patient")
    [said] = [item for item in _check(tmp_path)["findings"] if item["code"] == "data-warning"]
    assert "set `bit_depth: 12`" in said["message"]


def test_no_weights_are_fetched(vision: Vision, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = vision(
        "check-data", images, "--data.group_column=patient", "--model.backbone=timm/test_resnet", "--strict"
    )
    assert code in (0, 1), err
    assert "preprocessing-mismatch" in out  # the card's size is another than the 32 asked for


def test_a_run_is_checked_into_its_folder(finished: Path, toy: Toy) -> None:
    done = toy("check-data", finished)
    assert done.code == 0, done.err
    assert done.run == finished
    assert json.loads((finished / "check-data" / "check.json").read_text())["errors"] == 0


def test_one_switch(toy: Toy, small: str, tmp_path: Path) -> None:
    words = ["fit", "--config", small, "--trainer.max_epochs", 1]
    done = toy(*words)
    assert "Data check: 0 errors" in done.out
    assert (done.run / "check.json").is_file()
    saved = (done.run / "config.yaml").read_text()
    assert "\ncheck_data: true" in saved
    assert "  check_data" not in saved
    done = toy(*words, "--check_data=false")
    assert "Data check" not in done.out
    assert not (done.run / "check.json").exists()
    assert "\ncheck_data: false" in (done.run / "config.yaml").read_text()
    done = toy(*words, "--data.check_data=false")
    assert (done.code, "`data.check_data` is set by `check_data`: write `--check_data VALUE`." in done.err) == (2, True)
    (tmp_path / "old.yaml").write_text("data:\n  check_data: false\n")
    done = toy(*words, "--config", "old.yaml")
    assert (done.code, "Write `check_data: false` at the top of `old.yaml`" in done.err) == (2, True)


def test_exit_codes() -> None:
    error, warning, note = (Finding("x", severity, "x", 1) for severity in ("error", "warning", "note"))  # type: ignore[arg-type]
    assert [exit_code([]), exit_code([note], strict=True), exit_code([warning]), exit_code([warning], strict=True),
            exit_code([note, error])] == [0, 0, 0, 1, 2]  # fmt: skip


def test_texts_of_others_are_no_commands_to_the_terminal() -> None:
    text = format_findings([Finding("x", "error", "label `\x1b[31m`", 1, ("a\nb | \x07",), "")])
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[31m" in text
    assert "- a\\nb" in text


def test_the_terminal_shows_five_examples(tmp_path: Path) -> None:
    found = Finding("x", "note", "many", 12, tuple(f"e{i}" for i in range(12)), "Look.")
    lines = format_findings([found]).splitlines()
    assert sum(line.startswith("    - e") for line in lines) == 5
    assert "    - 7 more in check.json" in lines
    rows = [Record("1", None, split="train")]
    suspects = [{"id": "1", "path": "a", "label": "x", "suggested": "y", "score": 0.9}]
    write_check(tmp_path / "check.json", [found], rows, 1.5, suspects)
    values = json.loads((tmp_path / "check.json").read_text())
    assert len(values["findings"][0]["examples"]) == 12
    assert (values["num_records"], values["seconds"], values["suspects"]) == ({"train": 1}, 1.5, suspects)
