"""The whole path on small data: every verb, and no name in anything that is left behind."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

import lightning_transfer
from tests.recipes.medical.conftest import NAME, draw, make_rows, small_fit, write_dicom, write_png, write_table
from tests.recipes.verbs import Run, run_folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_nameless(folder: Path) -> None:
    """Every file, as bytes: the tables' names must be in none."""
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for name in (NAME, NAME.replace("^", "%5E"), NAME.replace("^", "\\u005e")):
                assert name.encode() not in content, path


def test_fit_leaves_a_whole_run_folder_without_names(fitted: Path) -> None:
    for name in ("config.yaml", "data.json", "check.json", "plan.json", "model.ckpt", "model_card.md"):
        assert (fitted / name).is_file(), name
    stored = torch.load(fitted / "model.ckpt", weights_only=True)["lightning_transfer"]
    assert stored["schema"]["preprocessing"]["kind"] == "scan"
    assert stored["schema"]["classes"] == ["no edema", "edema"]
    assert_nameless(fitted)


def test_test_report_predict_and_export(fitted: Path, drawn: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(fitted, tmp_path / "run"))
    code, printed = run("test", str(folder))
    assert code == 0, printed
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    assert metrics["auroc"]["low"] <= metrics["auroc"]["value"] <= metrics["auroc"]["high"]
    evaluation = json.loads((folder / "test" / "evaluation.json").read_text())
    assert {part["column"] for part in evaluation["slices"]["columns"]} >= {"site", "view"} if isinstance(
        evaluation["slices"], dict) else evaluation["slices"]  # fmt: skip
    assert "data:image/jpeg" in (folder / "report.html").read_text() or "made no error" in (
        folder / "report.html").read_text()  # fmt: skip
    code, more = run("predict", str(folder), f"--data.pseudonym_table={tmp_path / 'whose.csv'}")
    assert code == 0, more
    found = rows(folder / "predict" / "predictions.csv")
    whose = {row["id"]: row["path"] for row in rows(tmp_path / "whose.csv")}
    assert len(found) == 96
    assert all((drawn / whose[row["id"]]).is_file() for row in found)
    predictor = lightning_transfer.load(folder)
    for row, prediction in zip(
        found[:4], predictor.predict([drawn / whose[row["id"]] for row in found[:4]]), strict=True
    ):
        assert prediction.decision == row["decision"]
        assert prediction.score == pytest.approx(float(row["score"]), abs=1e-5)
    code, again = run("report", str(folder))
    assert code == 0, again
    code, exported = run("export", str(folder))
    assert code == 0, exported
    assert "are the checkpoint's" in exported
    for text in (printed, more, again, exported):
        assert NAME not in text
    assert_nameless(folder)


def test_several_findings_with_unknown_ones(chests: Path, edit, run: Run) -> None:
    edit(lambda lines: [line.update(mass="" if i % 5 == 0 else line["mass"]) for i, line in enumerate(lines)])
    code, printed = run(*small_fit(chests, "edema", "mass"))
    assert code == 0, printed
    folder = run_folder(printed)
    code, printed = run("test", str(folder))
    assert code == 0, printed
    scores = json.loads((folder / "test" / "metrics.json").read_text())
    assert {"macro_f1", "macro_auroc"} & set(scores), list(scores)
    assert any("edema" in name for name in scores), list(scores)
    assert_nameless(folder)


def test_dicom_of_both_photometric_interpretations(tmp_path: Path, run: Run) -> None:
    root = tmp_path / "dicom"
    write_table(root / "manifest.csv", [{k: v for k, v in row.items() if k != "patient"} for row in
                                        make_rows(root, suffix="dcm")])  # fmt: skip
    words = small_fit(root)
    code, printed = run("check-data", *words[1:], "--data.num_folds=3")
    assert "photometric" in printed or code == 0
    code, printed = run(*words)
    assert code == 0, printed
    folder = run_folder(printed)
    assert "96 images of 32 patients" in (folder / "check.json").read_text(), "the patients are in the files"
    for verb in ("test", "predict", "export"):
        code, printed = run(verb, str(folder))
        assert code == 0, printed
        assert NAME not in printed
    assert_nameless(folder)


def test_a_class_folder_of_dicom(tmp_path: Path, run: Run) -> None:
    root = tmp_path / "dicom"
    for patient in range(24):
        for number in range(2):
            kind = "ill" if patient % 2 else "normal"
            pixels = draw(patient * 7 + number, mass=False, edema=kind == "ill")
            write_dicom(root / kind / f"IM{patient:03}{number}", pixels, PatientID=f"{NAME} {patient}")
    words = [word for word in small_fit(root) if "findings" not in word]
    code, printed = run(*words, "--data.negative_class=normal")
    assert code == 0, printed
    assert "48 images of 24 patients" in (run_folder(printed) / "check.json").read_text()


def test_another_preprocessing_is_refused(fitted: Path, run: Run) -> None:
    code, printed = run("predict", str(fitted), "--data.scale=min_max")
    assert code != 0
    assert "The preprocessing differs" in printed, printed
    assert "min_max" in printed
    assert "bit_depth" in printed


def test_a_broken_file_keeps_its_row(fitted: Path, tmp_path: Path, run: Run) -> None:
    new = tmp_path / "new"
    write_png(new / "a.png", draw(1, mass=False, edema=True))
    (new / "b.png").write_bytes(b"no image")
    code, printed = run("predict", str(fitted), f"--data.root={new}", "--data.on_bad_file=skip")
    assert code == 0, printed
    found = rows(sorted(fitted.glob("predict*"))[-1] / "predictions.csv")
    assert [row["decision"] == "unreadable" for row in found] == [False, True]
    assert "`b.png`" in found[1]["reason"]
    assert str(new) not in found[1]["reason"]
