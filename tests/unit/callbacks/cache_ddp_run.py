"""Trains the toy on two processes, cached or not, and writes each rank's losses; run by `test_cache_place.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_transfer.callbacks import FeatureCache
from tests.unit.callbacks.cache_toys import Pictures, make_module, run

if __name__ == "__main__":
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    cache = (
        None if kind == "plain" else FeatureCache("always", folder=str(folder / "shared") if kind == "shared" else None)
    )
    module, losses, data = run(
        folder / kind, cache, schedule={0: 0, 2: 1}, module=make_module(head_norm="none"), data=Pictures(), devices=2,
        precision="64-true", strategy=DDPStrategy(process_group_backend="gloo", find_unused_parameters=False),
        use_distributed_sampler=True,
    )  # fmt: skip
    found = {
        "train": losses.train, "val": losses.val, "index": losses.index, "cached": losses.cached,
        "loads": losses.loads, "left": [path.name for path in (folder / kind).glob("*")],
        "head": module.head[-1].weight.detach().clone(),
    }  # fmt: skip
    torch.save(found, folder / f"{kind}-{module.trainer.global_rank}.pt")
