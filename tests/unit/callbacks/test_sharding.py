from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lightning_transfer.callbacks.sharding import groups_with_state, refresh_shards, reshard
from lightning_transfer.depth import resolve_depth
from tests.unit.callbacks.callback_toys import Toy, loader, trainer
from tests.unit.callbacks.fsdp_run import BFLOAT16, SETTINGS, callbacks, configure
from tests.unit.callbacks.test_ddp import run_two_processes

# Tensors of the optimizer that take gradients at each of the 16 batches: two of the head, four of each open block.
OPEN = [2] * 4 + [6] * 4 + [14] * 4 + [6] * 4


def one_process(name: str) -> dict[str, torch.Tensor]:
    module = Toy(configure(SETTINGS[name].optimizer), norm="layer")
    trainer(callbacks(name), accumulate_grad_batches=SETTINGS[name].accumulate).fit(module, loader(8))
    return module.state_dict()


def difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    return max(float((left[key] - right[key]).abs().max()) for key in right)


def check(folder: Path, name: str) -> None:
    """Ranks are equal, equal to one process with the same global batches, and what is frozen does not move."""
    ranks = [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert difference(ranks[0]["state"], ranks[1]["state"]) == 0.0
    assert difference(ranks[0]["state"], ranks[0]["watched"]) == 0.0
    assert difference(ranks[0]["state"], ranks[0].get("by_rate") or one_process(name)) < 1e-6
    epochs = [Toy(norm="layer").state_dict(), *ranks[0]["epochs"]]
    for before, after, blocks in zip(epochs, epochs[1:], [(), (2,), (0, 1, 2), (2,)], strict=False):
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert moved == {key for key in before if key.startswith(("head", *(f"backbone.blocks.{i}" for i in blocks)))}
    steps = OPEN[:: SETTINGS[name].accumulate]
    assert ranks[0]["open"] == ranks[1]["open"] == steps


@pytest.mark.slow
def test_two_processes_with_shards_are_equal_and_equal_to_one(tmp_path: Path) -> None:
    run_two_processes("fsdp_run", tmp_path, "train", "blocks")
    check(tmp_path, "blocks")


@pytest.mark.slow
def test_two_processes_with_shards_are_right_under_every_setting(tmp_path: Path) -> None:
    names = [name for name in SETTINGS if name not in ("blocks", "one_file")]
    run_two_processes("fsdp_run", tmp_path, "train", *names)
    for name in names:
        check(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "one_file", "rates"])
def test_a_run_with_shards_resumes_where_the_uninterrupted_one_was(name: str, tmp_path: Path) -> None:
    """From a folder of shards and from one file: AdamW's moments of every opened group are taken up."""
    run_two_processes("fsdp_run", tmp_path, "resume", name)
    for ours in (False, True):
        for rank in (0, 1):
            states = torch.load(tmp_path / f"{name}{ours}{rank}.pt", weights_only=True)
            assert [difference(state, states[0]) for state in states] == [0.0] * 4, ours


@pytest.fixture
def one_rank(tmp_path: Path) -> Any:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(**arguments: Any) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    return fully_shard(module, mesh=init_device_mesh("cpu", (1,)), **arguments)


def test_flags_reach_what_the_optimizer_holds_after_a_validation(one_rank: None) -> None:
    """Without `reshard` the flag would be set on the gathered parameters that the root keeps."""
    module = sharded()
    held = list(module.parameters())
    with torch.no_grad():
        module(torch.ones(1, 4))
    assert next(module.parameters()) is not held[0]
    reshard(module)
    module[0].requires_grad_(False)
    assert [value.requires_grad for value in held] == [False, False, True, True]


def test_gradients_of_what_opens_later_have_the_dtype_of_their_weights(one_rank: None) -> None:
    module = sharded(mp_policy=BFLOAT16)
    reshard(module)
    module.requires_grad_(False)
    refresh_shards(module)
    module(torch.ones(1, 4))
    reshard(module)
    module.requires_grad_(True)
    refresh_shards(module)
    module(torch.ones(1, 4)).sum().backward()
    assert {value.grad.dtype for value in module.parameters() if value.grad is not None} == {torch.float32}
    assert all(value.grad is not None for value in module.parameters())


def test_nothing_happens_where_nothing_is_sharded() -> None:
    module = Toy()
    before = [id(value) for value in module.parameters()]
    reshard(module)
    refresh_shards(module)
    assert [id(value) for value in module.parameters()] == before


@pytest.mark.parametrize(("blocks", "expected"), [((), 0), ((2,), 1), ((1, 2), 2), ((0, 1, 2), 3)])
@pytest.mark.parametrize("one_file", [False, True])
def test_groups_with_state_are_counted_in_both_kinds_of_checkpoint(
    blocks: tuple[int, ...], expected: int, one_file: bool, tmp_path: Path
) -> None:
    from torch.distributed.checkpoint import save

    module = Toy()
    names = [name for name, _ in module.named_parameters()]
    stated = [name for name in names if name.startswith(("head", *(f"backbone.blocks.{i}." for i in blocks)))]
    run: Any = SimpleNamespace(lightning_module=module, ckpt_path=tmp_path / "folder")
    checkpoint: dict[str, Any] = {}
    if one_file:
        checkpoint = {"optimizer_states": [{"state": {names.index(name): {} for name in stated}}]}
    else:
        state = {name: {"exp_avg": torch.zeros(1)} for name in stated}
        weights = {"state": torch.ones(1), "backbone.blocks.0.linear.weight": torch.ones(1)}
        save({"state_dict": weights, "optimizer_0": {"state": state}}, checkpoint_id=run.ckpt_path, no_dist=True)
    assert groups_with_state(run, checkpoint, resolve_depth(module)) == expected
