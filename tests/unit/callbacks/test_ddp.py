from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from lightning_transfer.callbacks.ddp import check_strategy, reset_compiled_code, rewrap_ddp
from tests.unit.callbacks.callback_toys import Toy, trainer
from tests.unit.callbacks.ddp_run import SETTINGS, callbacks, configure

ROOT = Path(__file__).parents[3]


def run_two_processes(script: str, folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", f"tests.unit.callbacks.{script}", str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def check(folder: Path, name: str) -> None:
    """Both ranks are equal, and equal to one process that sees the same global batches."""
    ranks = [torch.load(folder / name / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    module = Toy(configure, norm="layer")
    start = {key: value.clone() for key, value in module.state_dict().items()}
    setting = SETTINGS[name]
    trainer(callbacks(name), num_sanity_val_steps=0, **setting.options).fit(module)
    for key, value in module.state_dict().items():
        left, right = (rank["state"][key] for rank in ranks)
        assert torch.equal(left, right), (name, key)
        torch.testing.assert_close(left, value, rtol=0, atol=1e-6)
    for key in ("head.weight", "backbone.blocks.2.linear.weight"):
        assert not torch.equal(module.state_dict()[key], start[key])
    # Only what trains is reduced, from the same batch on in both ranks.
    assert ranks[0]["reduced"] == ranks[1]["reduced"] == setting.reduced


QUICK = ("plain", "accumulate", "steps", "score_of_rank_zero")


def test_two_processes_are_equal_and_equal_to_one(tmp_path: Path) -> None:
    run_two_processes("ddp_run", tmp_path, "fork", *QUICK)
    for name in QUICK:
        check(tmp_path, name)


@pytest.mark.slow
def test_two_processes_are_equal_under_every_setting(tmp_path: Path) -> None:
    others = [name for name in SETTINGS if name not in QUICK]
    run_two_processes("ddp_run", tmp_path, "fork", *others)
    for name in others:
        check(tmp_path, name)


@pytest.mark.slow
def test_spawned_processes_are_equal_and_equal_to_one(tmp_path: Path) -> None:
    """The callback, its metric and its schedule are pickled on the way."""
    run_two_processes("ddp_run", tmp_path, "spawn", "steps", "score")
    for name in ("steps", "score"):
        check(tmp_path, name)


@pytest.mark.parametrize("strategy", [SingleDeviceStrategy("cpu"), DDPStrategy()])
def test_one_device_and_ddp_are_accepted(strategy: Any) -> None:
    check_strategy(SimpleNamespace(strategy=strategy), object())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy", "XLAStrategy", "Own"])
def test_other_strategies_are_refused_by_name_with_the_way_out(name: str) -> None:
    bases = (DDPStrategy,) if name == "XLAStrategy" else ()
    strategy = type(name, bases, {"__init__": lambda self: None})()
    with pytest.raises(MisconfigurationException, match=rf"{name}.*strategy='ddp'"):
        check_strategy(SimpleNamespace(strategy=strategy), object())  # type: ignore[arg-type]


def test_a_callback_may_take_more_strategies_than_the_others() -> None:
    strategy = type("ModelParallelStrategy", (), {})()
    check_strategy(SimpleNamespace(strategy=strategy), object(), "ModelParallelStrategy")  # type: ignore[arg-type]
    for name in ("FSDPStrategy", "DeepSpeedStrategy"):
        run: Any = SimpleNamespace(strategy=type(name, (), {})())
        with pytest.raises(MisconfigurationException, match=rf"{name}.*'ddp_spawn', ModelParallelStrategy or a single"):
            check_strategy(run, object(), "ModelParallelStrategy")


@pytest.fixture
def one_rank(tmp_path: Path) -> Any:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class FakeDDP:
    """What `rewrap_ddp` touches of a strategy, over a real DDP."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.model = torch.nn.parallel.DistributedDataParallel(module)
        self._ddp_comm_state: Any = None

    def configure_ddp(self) -> None:
        assert self.model is self.module
        self.model = torch.nn.parallel.DistributedDataParallel(self.module)


def test_a_module_that_is_all_frozen_is_unwrapped_and_wrapped_again(one_rank: None) -> None:
    module = Toy(norm="layer")
    strategy = FakeDDP(module)
    run: Any = SimpleNamespace(strategy=strategy)
    module.requires_grad_(False)
    rewrap_ddp(run, module)
    assert strategy.model is module
    module.head.requires_grad_(True)
    rewrap_ddp(run, module)
    assert isinstance(strategy.model, torch.nn.parallel.DistributedDataParallel)


def test_the_old_reducer_is_gone_before_the_new_one_is_made(one_rank: None) -> None:
    module = Toy(norm="layer")
    strategy = FakeDDP(module)
    old = strategy.model
    rewrap_ddp(SimpleNamespace(strategy=strategy), module)  # type: ignore[arg-type]
    assert strategy.model is not old
    assert not hasattr(old, "reducer")


def test_the_memory_of_power_sgd_is_dropped(one_rank: None) -> None:
    module = Toy(norm="layer")
    strategy = FakeDDP(module)
    state = SimpleNamespace(error_dict={0: 1}, p_memory_dict={0: 1}, q_memory_dict={0: 1}, iter=500)
    strategy._ddp_comm_state = state
    rewrap_ddp(SimpleNamespace(strategy=strategy), module)  # type: ignore[arg-type]
    assert state == SimpleNamespace(error_dict={}, p_memory_dict={}, q_memory_dict={}, iter=0)


def test_nothing_is_wrapped_outside_ddp() -> None:
    module = Toy()
    strategy = SimpleNamespace(model=module)
    rewrap_ddp(SimpleNamespace(strategy=strategy), module)  # type: ignore[arg-type]
    assert strategy.model is module


@pytest.mark.parametrize("loaded", [False, True])
def test_dynamo_is_reset_only_where_it_was_loaded(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append(1))
    if loaded:
        monkeypatch.setitem(sys.modules, "torch._dynamo", SimpleNamespace())
    else:
        monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    reset_compiled_code()
    assert len(calls) == loaded
