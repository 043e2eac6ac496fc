import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_transfer.cli.checkpoint_io import AtomicCheckpointIO

Toy = Callable[..., Any]


def _write_forever(target: Path) -> None:
    """Write the checkpoint again and again; its numbers tell which one a file holds."""
    number = 0
    while True:
        ballast = torch.full((500_000,), float(number))
        AtomicCheckpointIO().save_checkpoint({"number": number, "ballast": ballast}, target)
        number += 1


def test_a_process_killed_while_it_writes_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    killed_within = 0
    for _ in range(10):
        target.unlink(missing_ok=True)
        process = multiprocessing.get_context("fork").Process(target=_write_forever, args=(target,))
        process.start()
        deadline = time.monotonic() + 60
        while not (target.exists() and _half(tmp_path)) and time.monotonic() < deadline:
            pass
        process.kill()
        process.join()
        killed_within += len(_half(tmp_path))
        for part in _half(tmp_path):
            part.unlink()
        checkpoint = torch.load(target, weights_only=True)
        assert torch.equal(checkpoint["ballast"], torch.full((500_000,), float(checkpoint["number"])))
    assert killed_within > 0


def _half(folder: Path) -> list[Path]:
    return [folder / entry.name for entry in os.scandir(folder) if entry.name.endswith(".part")]


def test_a_failure_while_writing_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 1}, tmp_path / "a.ckpt")
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"epoch": 2, "code": lambda: None}, tmp_path / "a.ckpt")
    assert io.load_checkpoint(tmp_path / "a.ckpt", weights_only=True) == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_an_address_is_left_to_lightning() -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 1}, "memory://run/last.ckpt")
    assert io.load_checkpoint("memory://run/last.ckpt", weights_only=True) == {"epoch": 1}


def test_storage_options_are_refused_as_lightning_does(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "a.ckpt", storage_options={"x": 1})


def test_a_run_writes_with_it_unless_the_user_has_one(toy: Toy, small: str, monkeypatch: Any, tmp_path: Path) -> None:
    paths: list[str] = []
    save = AtomicCheckpointIO.save_checkpoint

    def noted(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        paths.append(Path(path).name)
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", noted)
    assert toy("fit", "--config", small, "--trainer.max_epochs", 1).code == 0
    assert paths == ["best-epoch=0.ckpt", "last.ckpt"]
    own = "lightning.pytorch.plugins.io.AsyncCheckpointIO"
    assert toy("fit", "--config", small, "--trainer.max_epochs", 1, "--trainer.plugins", own).code == 0
    assert len(paths) == 2
