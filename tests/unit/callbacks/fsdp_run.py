"""Trains the toy on two processes under FSDP2 and writes its gathered weights; run by `test_sharding.py`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.utils.data import DataLoader, DistributedSampler

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, loader, trainer

SCHEDULE = {0: 0, 1: 1, 2: 3, 3: 1}
BFLOAT16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
EPOCHS = 4


@dataclass(frozen=True)
class Setting:
    """How the module is sharded, and how it is trained."""

    shard: dict[str, Any] = field(default_factory=dict)
    # Whether each block is a unit of its own, besides the root.
    units: bool = True
    tensor_parallel: bool = False
    optimizer: str = "sgd"
    accumulate: int = 1
    one_file: bool = False
    # Whether DiscriminativeLR splits the optimizer's groups as well.
    rates: bool = False


SETTINGS = {
    "blocks": Setting(),
    "adamw": Setting(optimizer="adamw"),
    # One unit holds frozen and open layers, and keeps its gathered parameters after a validation.
    "whole": Setting(units=False, optimizer="adamw"),
    "kept": Setting({"reshard_after_forward": False}),
    "accumulate": Setting(accumulate=2),
    "tensor_parallel": Setting(tensor_parallel=True),
    "bfloat16": Setting({"mp_policy": BFLOAT16}),
    "one_file": Setting(optimizer="adamw", one_file=True),
    "rates": Setting(optimizer="adamw", rates=True),
}


def callback(schedule: Any = SCHEDULE) -> BackboneFreezeUnfreeze:
    return BackboneFreezeUnfreeze(schedule, verbose=False)


def callbacks(name: str) -> list[Callback]:
    return [callback(), *([DiscriminativeLR(layer_decay=0.5)] if SETTINGS[name].rates else [])]


def configure(optimizer: str) -> Any:
    if optimizer == "sgd":
        return lambda module: torch.optim.SGD(module.parameters(), lr=0.1)
    return lambda module: torch.optim.AdamW(module.parameters(), lr=0.01)


def by_rate(schedule: dict[int, int]) -> Any:
    """The same stages without freezing: a rate of zero, which plain SGD takes literally."""

    def rates(module: Any) -> Any:
        groups = [{"params": list(block.parameters())} for block in module.backbone.blocks]
        optimizer = torch.optim.SGD([*groups, {"params": list(module.head.parameters())}], lr=0.1)
        factors = [lambda epoch, place=place: float(schedule.get(epoch, 0) >= 3 - place) for place in range(3)]
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, [*factors, lambda epoch: 1.0])]

    return rates


class Sharded(Toy):  # type: ignore[misc, valid-type]
    """All ranks together see the global batches of one process."""

    setting = Setting()

    def configure_model(self) -> None:
        if self.setting.tensor_parallel:
            mesh = self.device_mesh["tensor_parallel"]
            for block in self.backbone.blocks:
                parallelize_module(block, mesh, {"linear": ColwiseParallel(output_layouts=Replicate())})
            return
        mesh = self.device_mesh["data_parallel"]
        for block in self.backbone.blocks if self.setting.units else ():
            fully_shard(block, mesh=mesh, **self.setting.shard)
        fully_shard(self, mesh=mesh, **self.setting.shard)

    def train_dataloader(self) -> DataLoader:
        if self.setting.tensor_parallel:
            return loader()
        dataset = loader().dataset
        return DataLoader(dataset, batch_size=4, sampler=DistributedSampler(dataset, shuffle=False))

    val_dataloader = train_dataloader


class Weights(Callback):
    """Gathers the weights at the end of each epoch, before anything else reads them."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(gathered(pl_module))


class Flags(Callback):
    """Writes which of the optimizer's parameters take gradients, and whether what is frozen has one."""

    def __init__(self) -> None:
        self.open: list[int] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        values = [value for group in optimizer.param_groups for value in group["params"]]
        self.open.append(sum(value.requires_grad for value in values))
        assert all(value.requires_grad or value.grad is None for value in values)


def gathered(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = module.state_dict()
    return {key: (value.full_tensor() if isinstance(value, DTensor) else value).clone() for key, value in state.items()}


def fit(name: str, used: list[Any], *, optimizer: Any = None, seed: int = 0, path: Any = None) -> Any:
    setting = SETTINGS[name]
    module = Sharded(optimizer or configure(setting.optimizer), norm="layer", seed=seed)
    module.setting = setting
    sizes = (1, 2) if setting.tensor_parallel else (2, 1)
    strategy = ModelParallelStrategy(
        *sizes, process_group_backend="gloo", save_distributed_checkpoint=not setting.one_file
    )
    run = trainer(
        used,
        EPOCHS,
        strategy=strategy,
        devices=2,
        accumulate_grad_batches=setting.accumulate,
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(item, ModelCheckpoint) for item in used),
    )
    run.fit(module, ckpt_path=path)
    # Of the shards, which the optimizer holds: what the module shows may be the gathered parameters.
    assert all(value.requires_grad for group in run.optimizers[0].param_groups for value in group["params"])
    return module, run


def train(folder: Path, name: str) -> None:
    flags, weights = Flags(), Weights()
    module, run = fit(name, [*callbacks(name), flags])
    # Gathering the weights also shards them again, so the run that is looked at inside is another one.
    watched, _ = fit(name, [*callbacks(name), weights])
    result = {"state": gathered(module), "open": flags.open, "epochs": weights.epochs, "watched": gathered(watched)}
    if name == "bfloat16":
        by_rates, _ = fit(name, [], optimizer=by_rate(SCHEDULE))
        result["by_rate"] = gathered(by_rates)
    torch.save(result, folder / f"{name}{run.global_rank}.pt")


def resume(folder: Path, name: str) -> None:
    """Takes a run up again from each epoch's end, with the callback and, as the oracle, without."""
    for ours in (True, False):
        path = folder / f"{name}{ours}"
        saver = ModelCheckpoint(path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        whole, run = fit(name, [*(callbacks(name) if ours else []), saver])
        states = [gathered(whole)]
        for epoch in range(EPOCHS - 1):
            again, _ = fit(name, callbacks(name) if ours else [], seed=epoch + 1, path=path / f"epoch={epoch}.ckpt")
            states.append(gathered(again))
        torch.save(states, folder / f"{name}{ours}{run.global_rank}.pt")


if __name__ == "__main__":
    for setting_name in sys.argv[3:]:
        {"train": train, "resume": resume}[sys.argv[2]](Path(sys.argv[1]), setting_name)
