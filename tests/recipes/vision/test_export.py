"""A run becomes files that decide as it does, in a process that knows no torch."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

import lightning_transfer
from lightning_transfer.cli import main
from lightning_transfer.modules.transfer import CHECKPOINT_KEY
from lightning_transfer.types import Prediction
from recipes.vision.cli import RECIPE
from tests.recipes.verbs import run_folder
from tests.recipes.vision.conftest import small_fit
from tests.unit.export.test_predict_onnx import alone

Run = Callable[..., tuple[int, str]]

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("LT_DATA_DIR", ROOT.parent / "shared" / "data")) / "magnetic_tile"


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module", autouse=True)
def _short_clock() -> Iterator[None]:
    """Time each model a few times: the table's form is tested here, not its numbers."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_RUNS", 2), ("_LEAST_RUNS", 1), ("_WARM_UP", 1)):
            patch.setattr(f"lightning_transfer.export.latency.{name}", value)
        yield


@pytest.fixture(scope="module")
def sharp(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fitted run, whose two epochs leave all classes about alike, with a head that tells them apart."""
    run = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("sharp") / "run"))
    checkpoint = torch.load(run / "model.ckpt", weights_only=True)
    checkpoint["state_dict"]["head.1.weight"] *= 10_000.0
    torch.save(checkpoint, run / "model.ckpt")
    return run


@pytest.fixture
def folder(sharp: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharp, tmp_path / "run"))


@pytest.fixture(scope="module")
def written(sharp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its export in every form, made once."""
    run = Path(shutil.copytree(sharp, tmp_path_factory.mktemp("written") / "run"))
    assert main(RECIPE, ["export", str(run), "--format", "both", "--int8"]) == 0
    return run


def same_decisions(found: list[dict[str, str]], expected: Sequence[Prediction], apart: float = 1e-5) -> None:
    """Compare decisions and scores; a score that lies on the threshold to the last digits may fall on either side.

    A fit whose best-scored calibration record is a good part puts the threshold one step of float64 above its score.
    """
    near = 0
    for row, wanted in zip(found, expected, strict=True):
        assert float(row["score"]) == pytest.approx(wanted.score, abs=apart)
        if abs(wanted.score - float(row["threshold"])) < 1e-7:
            near += 1
            continue
        assert row["decision"] == wanted.decision, row["path"]
    assert near <= 1


def test_everything_is_written_and_nothing_else(written: Path) -> None:
    names = {"export.json", "model.onnx", "model_int8.onnx", "model.pt2", "predict_onnx.py"}
    assert {path.name for path in (written / "export").iterdir()} == names
    report = json.loads((written / "export" / "export.json").read_text())
    files = {row["name"]: row for row in report["files"]}
    assert list(files) == ["model.onnx", "model.pt2", "model_int8.onnx"]
    for name in ("model.onnx", "model.pt2"):
        row = files[name]
        assert row["n"] == row["same_decisions"] > 30
        assert row["max_difference"] <= row["tolerance"]
        assert row["max_probability_difference"] <= 1e-4
        assert row["size_mb"] == pytest.approx((written / "export" / name).stat().st_size / 1e6)
    assert files["model.onnx"]["p50_ms_eager"] > 0
    assert files["model.onnx"]["p95_ms_onnx"] >= files["model.onnx"]["p50_ms_onnx"] > 0
    loss = files["model_int8.onnx"]
    assert loss["scores"]["macro_f1"]["lost"]["n"] == loss["n"] >= loss["same_decisions"] > 0.5 * loss["n"]
    assert files["model_int8.onnx"]["size_mb"] < files["model.onnx"]["size_mb"]
    assert report["max_input_difference"] == 0.0
    assert [row["batch_size"] for row in report["latency"]["rows"]] == [1, 32]
    assert report["latency"]["threads"] == 1
    assert report["facts"]["backbone"]["licence"]


def test_the_float_model_is_the_same_with_and_without_8_bits(written: Path, folder: Path, run: Run) -> None:
    code, printed = run("export", str(folder))
    assert code == 0, printed
    assert run_folder(printed) == folder
    assert (folder / "export" / "model.onnx").read_bytes() == (written / "export" / "model.onnx").read_bytes()
    assert not (folder / "export" / "model_int8.onnx").exists()
    for text in ("records of the split `test`", "logits differ by at most", "batch size", "Written: export.json"):
        assert text in printed, text


def test_in_a_process_without_torch_the_decisions_are_those_of_the_checkpoint(written: Path, drawn: Path) -> None:
    pictures = sorted(drawn.rglob("*.png"))
    expected = lightning_transfer.load(written).predict(pictures)
    assert len(expected) == 192
    assert len({row.decision for row in expected}) > 1
    found = _rows(alone(written / "export" / "predict_onnx.py", drawn))
    assert [Path(row["path"]) for row in found] == pictures
    same_decisions(found, expected, apart=1e-4)


def test_a_second_export_stands_beside_the_first(folder: Path, run: Run) -> None:
    words = ["export", str(folder), "--format", "pt2", "--n_samples", "5"]
    assert run(*words)[0] == run(*words)[0] == 0
    for name in ("export", "export-2"):
        assert {path.name for path in (folder / name).iterdir()} == {"export.json", "model.pt2"}
    report = json.loads((folder / "export" / "export.json").read_text())
    assert report["samples"].startswith("5 of ")


def test_a_source_head_stays_at_home(fitted: Path, drawn: Path, tmp_path: Path, run: Run) -> None:
    """The old classifier, kept for the ForgettingMonitor, is in the checkpoint and not in the export."""
    checkpoint = torch.load(fitted / "model.ckpt", weights_only=True)
    width = checkpoint[CHECKPOINT_KEY]["card"]["num_features"]
    checkpoint[CHECKPOINT_KEY]["source_head"] = [width, 1000]
    head = {"source_head.weight": torch.randn(1000, width), "source_head.bias": torch.randn(1000)}
    checkpoint["state_dict"].update(head)
    torch.save(checkpoint, tmp_path / "model.ckpt")
    code, printed = run("export", str(tmp_path / "model.ckpt"), "--format", "both", "--n_samples", "8")
    assert code == 0, printed
    made = run_folder(printed) / "export"
    for name in ("model.onnx", "model.pt2"):
        content = (made / name).read_bytes()
        assert b"source_head" not in content
        assert head["source_head.weight"].numpy().tobytes() not in content
        assert head["source_head.bias"].numpy().tobytes() not in content


# What is refused leaves nothing behind.


@pytest.mark.parametrize(
    ("fault", "form", "name"),
    [
        ("network", "both", "model.onnx"),
        ("script", "pt2", "model.pt2"),
        ("facts", "pt2", "model.pt2"),
        ("file", "pt2", "model.pt2"),
    ],
)
def test_a_model_that_says_something_else_is_not_kept(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, fault: str, form: str, name: str
) -> None:
    if fault == "network":  # the graph differs
        from lightning_transfer.export.network import _Classifier

        monkeypatch.setattr(_Classifier, "forward", lambda self, images: self.head(self.backbone(images * 1.01)))
    elif fault == "script":  # the preprocessing of the script differs
        from lightning_transfer.export import predict_onnx

        monkeypatch.setattr(predict_onnx, "_unit", lambda pixels: pixels.astype("float32") / 256)
    else:
        import lightning_transfer.cli.export as verb

        facts, write = verb.forms.exported_facts, verb.forms.write_program
        if fault == "facts":  # what the files are made from differs
            monkeypatch.setattr(verb.forms, "exported_facts", lambda *given: {**facts(*given), "temperature": 9.0})
        else:  # what one file says of itself differs
            other = {"preprocessing": {}}
            monkeypatch.setattr(verb.forms, "write_program", lambda a, b, facts: write(a, b, {**facts, **other}))
    code, printed = run("export", str(folder), "--format", form, "--n_samples", "40")
    assert code == 1
    where = "of `preprocessing`" if fault == "file" else "on 40 samples"
    assert f"Error: `{name}` does not say what the checkpoint says {where}, so it was not kept" in printed
    assert not (folder / "export").exists()
    assert not list(folder.rglob("*.onnx"))
    assert not list(folder.rglob("*.pt2"))


def test_a_picture_that_only_the_checkpoint_can_read_is_named(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_transfer.export import predict_onnx

    monkeypatch.setattr(predict_onnx, "_decode", lambda image: 1 / 0 if image.size else None)
    monkeypatch.setattr(predict_onnx, "DECODE_ERRORS", (ZeroDivisionError,))
    code, printed = run("export", str(folder), "--format", "pt2", "--n_samples", "4")
    assert code == 1
    assert "`predict_onnx.py` cannot read `" in printed
    assert not (folder / "export").exists()


def test_a_failure_half_way_leaves_nothing(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning_transfer.cli.export as verb

    def broken(*given: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(verb.forms, "measure_latency", broken)
    code, printed = run("export", str(folder), "--format", "pt2", "--n_samples", "4")
    assert code == 1
    assert "RuntimeError: the disk is full" in printed
    assert not (folder / "export").exists()


def test_without_the_data_other_files_can_be_given(fitted: Path, drawn: Path, tmp_path: Path, run: Run) -> None:
    shutil.copy(fitted / "model.ckpt", tmp_path / "model.ckpt")
    code, printed = run("export", str(tmp_path / "model.ckpt"), "--data.root", str(tmp_path / "gone"))
    assert code == 2
    assert "`--samples FOLDER`" in printed
    assert not list(tmp_path.rglob("*.onnx"))
    words = ["export", str(tmp_path / "model.ckpt"), "--data.root", str(tmp_path / "gone"), "--samples", str(drawn)]
    code, printed = run(*words, "--n_samples", "10", "--format", "pt2")
    assert code == 0, printed
    assert "Compared on 10 of 192 images below" in printed
    code, printed = run(*words, "--int8")
    assert code == 2
    assert "Leave out `--samples" in printed


def test_another_false_reject_rate_is_exported(folder: Path, run: Run) -> None:
    words = ["--evaluation.max_false_reject_rate", "0.01", "--n_samples", "10", "--format", "pt2"]
    code, printed = run("export", str(folder), *words)
    assert code == 0, printed
    facts = json.loads((folder / "export" / "export.json").read_text())["facts"]
    assert facts["threshold"] == lightning_transfer.load(folder, max_false_reject_rate=0.01).calibration.threshold
    assert facts["threshold_points"][0]["max_false_reject_rate"] == 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--data.tile_size=16", "--data.tile_overlap=4", "--data.tile_top_k=2", "--data.unmasked_tiles=image_label"],
        ["--model.head=normal_only", "--model.coreset_share=0.05"],
    ],
    ids=["tiles", "normal_only"],
)
def test_tiles_and_memories_of_patches_are_exported_too(
    drawn: Path, tmp_path: Path, run: Run, options: list[str]
) -> None:
    words = [word for word in small_fit(drawn) if "normal_only" not in options[0] or "head_norm" not in word]
    code, printed = run(*words, "--trainer.max_epochs=1", "--data.image_size=64", *options)
    assert code == 0, printed
    made = run_folder(printed)
    code, printed = run("export", str(made), "--int8", "--n_samples", "40")
    assert code == 0, printed
    pictures = sorted(drawn.glob("*/*.png"))[::9]
    found = _rows(alone(made / "export" / "predict_onnx.py", *pictures))
    expected = lightning_transfer.load(made).predict(pictures)
    same_decisions(found, expected, apart=1e-4)


# An environment in which torch is not installed.


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    pins = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:5] in ("numpy", "pillo", "onnxr")
    ]
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins, "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"pip cannot install onnxruntime, numpy and pillow here: {done.stderr[-300:]}")
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in missing.stderr
    return python


@pytest.mark.slow
def test_where_torch_is_not_installed_the_decisions_are_the_same(written: Path, drawn: Path, bare_python: Path) -> None:
    pictures = sorted(drawn.glob("*/*.png"))
    for name in ("model.onnx", "model_int8.onnx"):
        command = [bare_python, written / "export" / "predict_onnx.py", drawn, "--model", written / "export" / name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        rows = _rows(done.stdout)
        assert [Path(row["path"]) for row in rows] == pictures
        if name == "model.onnx":
            expected = lightning_transfer.load(written).predict(pictures)
            same_decisions(rows, expected, apart=1e-4)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(1800)
def test_200_photos_of_magnetic_tiles_are_decided_as_by_the_checkpoint_without_torch(
    tmp_path: Path, run: Run, bare_python: Path
) -> None:
    """An embedded backbone, fine-tuned for two epochs at 64 pixels."""
    if not DATA.is_dir():
        pytest.skip(f"no {DATA}: set LT_DATA_DIR")
    config = ROOT / "benchmarks" / "configs" / "magnetic_tile_embedded_finetuned.yaml"
    (tmp_path / "quick.yaml").write_text(
        "trainer:\n  max_epochs: 2\n  precision: 32-true\n  accelerator: cpu\n  enable_progress_bar: false\n"
        "  callbacks: null\n"
    )
    words = ["fit", "--config", str(config), "--config", str(tmp_path / "quick.yaml"), "--data.root", str(DATA)]
    code, printed = run(*words)
    assert code == 0, printed
    folder = run_folder(printed)
    code, printed = run("export", str(folder), "--n_samples", "200")
    assert code == 0, printed
    assert "200 of 200 decisions are the checkpoint's" in printed
    with (DATA / "manifest.csv").open() as stream:
        photos = [DATA / row["path"] for row in csv.DictReader(stream)][::6][:200]
    assert len(photos) == 200
    expected = lightning_transfer.load(folder).predict(photos)
    done = subprocess.run(
        [bare_python, folder / "export" / "predict_onnx.py", *photos], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    rows = _rows(done.stdout)
    assert len({row.decision for row in expected}) > 2
    assert [row["decision"] for row in rows] == [row.decision for row in expected]
    apart = max(abs(float(row["score"]) - wanted.score) for row, wanted in zip(rows, expected, strict=True))
    assert apart < 1e-4
    sys.stdout.write(f"200 photos: scores differ by at most {apart:.1e}\n")
