"""What a user can get wrong: each is a clear message with the offending value, or a counted, listed skip."""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.recipes.verbs import run_folder
from tests.recipes.vision.conftest import small_fit

Run = Callable[..., tuple[int, str]]
ROOT = Path(__file__).parents[3]


def _first(root: Path, label: str = "") -> Path:
    with (root / "manifest.csv").open(newline="") as stream:
        return root / next(row["path"] for row in csv.DictReader(stream) if row["label"].startswith(label))


def _edit(root: Path, change: Callable[[list[dict[str, str]]], None]) -> None:
    with (root / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _refused(run: Run, words: list[str], *expected: str) -> str:
    code, printed = run(*words)
    assert code != 0, printed
    for text in expected:
        assert text in printed, printed
    assert "Traceback" not in printed
    assert not list(Path.cwd().rglob("*.ckpt"))
    return printed


@pytest.mark.parametrize("damage", ["corrupt", "truncated", "empty", "missing"])
def test_unusable_images_are_named_before_training(damage: str, surfaces: Path, run: Run) -> None:
    victim = _first(surfaces)
    if damage == "corrupt":
        victim.write_bytes(b"\x00not an image" * 20)
    elif damage == "truncated":
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    elif damage == "empty":
        victim.write_bytes(b"")
    else:
        victim.unlink()
    _refused(run, small_fit(surfaces), victim.name, "1 of 192", "on_bad_file")


def test_unusable_images_can_be_skipped_and_are_listed(surfaces: Path, run: Run) -> None:
    victim = _first(surfaces)
    victim.write_bytes(b"")
    with pytest.warns(UserWarning, match=rf"1 of 192 records.*{victim.name}"):
        code, printed = run(*small_fit(surfaces), "--data.on_bad_file=skip", "--trainer.max_epochs=1")
    assert code == 0, printed
    assert victim.name in (run_folder(printed) / "data.json").read_text()


def test_a_wrong_root(tmp_path: Path, run: Run) -> None:
    _refused(run, small_fit(tmp_path / "nowhere"), "nowhere")


def test_an_unknown_column(surfaces: Path, run: Run) -> None:
    _refused(run, [*small_fit(surfaces), "--data.group_column=lott"], "`lott`", "path, label, group")


def test_an_unreadable_csv(surfaces: Path, run: Run) -> None:
    (surfaces / "manifest.csv").write_bytes(b"\xff\xfe\x00\x00binary\x00")
    _refused(run, small_fit(surfaces), "manifest.csv")


def test_a_class_without_training_images(surfaces: Path, run: Run) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for number, row in enumerate(rows):
            row["split"] = (
                "test" if row["label"] == "crack" else ("train", "val", "calibration", "test")[number // 8 % 4]
            )
            row["group"] = ""

    _edit(surfaces, change)
    _refused(run, small_fit(surfaces), "crack")


def test_one_class_only(surfaces: Path, run: Run) -> None:
    _edit(surfaces, lambda rows: [row.update(label="good") for row in rows] and None)
    _refused(run, small_fit(surfaces), "good")


def test_a_path_that_leaves_the_root(surfaces: Path, run: Run) -> None:
    shutil.copy(_first(surfaces), surfaces.parent / "outside.png")
    _edit(surfaces, lambda rows: rows[0].update(path="../outside.png"))
    _refused(run, small_fit(surfaces), "../outside.png", "row 2")


def test_a_group_on_both_sides(surfaces: Path, run: Run) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for number, row in enumerate(rows):
            row["split"] = ("train", "train", "val", "calibration", "test")[number % 5]

    _edit(surfaces, change)
    _refused(run, small_fit(surfaces), "train", "test", "group")


def test_a_checkpoint_of_another_class_set(surfaces: Path, fitted: Path, tmp_path: Path, run: Run) -> None:
    alone = Path(shutil.copy(fitted / "model.ckpt", tmp_path / "model.pt"))
    _edit(surfaces, lambda rows: [row.update(label="dent") for row in rows if row["label"] == "pit"] and None)
    code, printed = run("test", str(alone), f"--data.root={surfaces}")
    assert code != 0
    assert "dent" in printed, printed
    assert "pit" in printed, printed


def test_no_network_for_a_hub_model(surfaces: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    words = small_fit(surfaces, backbone="timm/resnet18.a1_in1k", weights=None)
    _refused(run, words, "timm/resnet18.a1_in1k", "--model.weights")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--data.batch_sise=8", ["batch_sise", "batch_size"]),
        ("--model.head_nrom=batchnorm", ["head_nrom", "head_norm"]),
        ("--data.batch_size=many", ["batch_size", "many"]),
        ("--model.loss=focall", ["focall", "focal"]),
        ("--model.backbone=timm/resnet81", ["resnet81"]),
    ],
)
def test_wrong_keys_and_values(option: str, expected: list[str], surfaces: Path, run: Run) -> None:
    words = small_fit(surfaces)
    if option.startswith("--model.backbone"):
        words = [word for word in words if not word.startswith("--model.backbone")]
    _refused(run, [*words, option], *expected)


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_file(surfaces: Path, tmp_path: Path) -> None:
    """Kill while checkpoints are written every few milliseconds; whatever carries a final name must be whole."""
    import torch

    words = [*small_fit(surfaces), "--trainer.max_epochs=500", "--trainer.limit_train_batches=1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "recipes.vision", *words], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.kill()
    process.wait()
    found = list(tmp_path.rglob("*.ckpt"))
    assert found
    for path in found:
        torch.load(path, weights_only=True)
    assert not list(tmp_path.rglob("model.ckpt"))
