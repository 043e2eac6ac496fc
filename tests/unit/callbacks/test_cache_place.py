"""Where activations lie, how much may, and two processes that share the work."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_transfer.callbacks.cache_conditions import CacheRefusedError
from lightning_transfer.callbacks.cache_place import CachePlace, agree, megabytes
from tests.unit.callbacks.test_ddp import run_two_processes


def trainer_in(folder: Path, processes: int = 1) -> Any:
    strategy = SimpleNamespace(broadcast=lambda value: value, reduce_boolean_decision=lambda value, all=True: value)
    return SimpleNamespace(default_root_dir=str(folder), world_size=processes, strategy=strategy)


def place(**values: Any) -> CachePlace:
    return CachePlace(**{"folder": None, "dtype": None, "memory_limit": 100.0, "disk_limit": 1000.0, **values})


def test_files_are_used_past_the_memory_for_several_processes_and_in_a_shared_folder(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path)
    assert not place().uses_files(trainer, 100)
    assert place().uses_files(trainer, 101)
    assert place(folder="x").uses_files(trainer, 1)
    assert place().uses_files(trainer_in(tmp_path, 2), 1)
    assert place().base(trainer) == tmp_path / "feature_cache"
    assert place(folder=str(tmp_path / "x")).base(trainer) == tmp_path / "x"


def test_what_is_too_large_is_refused_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_in(tmp_path)
    with pytest.raises(CacheRefusedError, match=r"7 items take about 2\.5 GB, past `disk_limit` of 1\.0 GB; halve"):
        place(disk_limit=1e9).check_size(trainer, 2.5e9, 7)
    with pytest.raises(CacheRefusedError, match=r"past `disk_limit` of 1\.0 GB; raise it"):
        place(disk_limit=1e9, dtype="float16").check_size(trainer, 2.5e9, 7)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50))
    with pytest.raises(CacheRefusedError, match=r"has 0\.0 MB left; .*name another `folder`"):
        place().check_size(trainer, 500, 7)
    place().check_size(trainer, 50, 7)  # in memory


def test_half_the_bits_are_half_the_estimate() -> None:
    probe = SimpleNamespace(bytes_per_item=10.0)
    splits = [SimpleNamespace(items=[1, 2, 3], views=2), SimpleNamespace(items=[1], views=1)]
    assert place().estimate(probe, splits) == 70  # type: ignore[arg-type]
    assert place(dtype="bfloat16").estimate(probe, splits) == 35  # type: ignore[arg-type]


def test_one_process_with_a_reason_stops_all() -> None:
    trainer = trainer_in(Path())
    agree(trainer, "")
    with pytest.raises(CacheRefusedError, match="too dark"):
        agree(trainer, "too dark")
    trainer.strategy.reduce_boolean_decision = lambda value, all=True: False
    with pytest.raises(CacheRefusedError, match="another process has a reason"):
        agree(trainer, "")


def test_sizes_are_for_people() -> None:
    assert [megabytes(size) for size in (0, 12_300_000, 999_000_000, 12.34e9)] == [
        "0.0 MB", "12.3 MB", "999.0 MB", "12.3 GB",
    ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_share_the_work_and_give_the_losses_of_two_without(tmp_path: Path) -> None:
    """Each runs its share of the frozen layers, and reads what both wrote; in double precision nothing differs."""
    kinds = ("plain", "own", "shared")
    for kind in kinds:
        run_two_processes("cache_ddp_run", tmp_path, kind)
    found = {
        (kind, rank): torch.load(tmp_path / f"{kind}-{rank}.pt", weights_only=True) for kind in kinds for rank in (0, 1)
    }
    for (kind, rank), values in found.items():
        plain = found["plain", rank]
        assert values["index"] == plain["index"]
        for name in ("train", "val"):
            assert values[name] == pytest.approx(plain[name], abs=1e-12), (kind, rank, name)
        assert torch.allclose(values["head"], plain["head"], rtol=0, atol=1e-12)
        assert all(values["cached"]) == (kind != "plain")
        if kind != "plain":
            # About half of the 48 items, and those by which the cut is found; nothing more until a layer opens.
            assert values["loads"][0] == values["loads"][1] < 41
            assert (values["left"] != []) == (kind == "shared")
