"""The verb's words and errors on the toy; what it writes is tested in `tests/recipes/vision/test_export.py`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_transfer.cli.export import _size

Toy = Callable[..., Any]


def test_the_help_lists_the_options(toy: Toy) -> None:
    done = toy("export", "--help")
    assert done.code == 0
    for option in ("--format", "--int8", "--n_samples", "--samples", "--data.root"):
        assert option in done.out, option
    assert "--int8" not in toy("test", "--help").out


def test_a_run_that_is_not_there(toy: Toy) -> None:
    done = toy("export", "nothing")
    assert done.code == 2
    assert "No run folder or checkpoint `nothing`" in done.err
    done = toy("export")
    assert done.code == 2
    assert "`export` needs a trained model" in done.err


def test_a_run_that_did_not_finish(toy: Toy, finished: Path) -> None:
    (finished / "model.ckpt").unlink()
    done = toy("export", finished)
    assert done.code == 2
    assert "has no `model.ckpt`: its fit did not finish" in done.err


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_said_before_any_work(
    toy: Toy, finished: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    done = toy("export", finished)
    assert done.code == 2
    assert f"needs `{name}`" in done.err
    assert "lightning-transfer[export]" in done.err
    assert not (finished / "export").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n_samples", "0"], "`n_samples` of at least 1, got 0"),
        (["--int8", "--format", "pt2"], "`format` is `pt2`"),
        (["--format", "tflite"], "Expected `format` to be one of 'onnx', 'pt2', 'both', got `tflite`"),
    ],
)
def test_wrong_options(toy: Toy, finished: Path, words: list[str], message: str) -> None:
    done = toy("export", finished, *words)
    assert done.code == 2
    assert message in done.err
    assert not (finished / "export").exists()


def test_a_module_that_is_not_the_librarys_is_refused(toy: Toy, finished: Path) -> None:
    done = toy("export", finished)
    assert done.code == 2
    assert "holds a `ToyModule`, which this version does not know" in done.err
    assert not (finished / "export").exists()


def test_the_size_of_a_file_is_that_of_its_weights_too(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(1_000_000))
    (tmp_path / "model.onnx.data").write_bytes(bytes(500_000))
    assert _size(tmp_path / "model.onnx") == 1.5
