"""BackboneFreezeUnfreeze across interruptions, and stages that a metric opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, adamw, difference, loader, sgd, trainer
from tests.unit.callbacks.test_backbone_freeze_unfreeze import Crash, Watch


def one_cycle(module: Any) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=20)
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


@pytest.mark.parametrize("configure", [sgd, adamw, one_cycle])
def test_a_run_resumed_at_an_epoch_boundary_ends_where_the_uninterrupted_one_does(
    configure: Any, tmp_path: Path
) -> None:
    def callbacks() -> list[Any]:
        return [DiscriminativeLR(layer_decay=0.5), BackboneFreezeUnfreeze("gradual", verbose=False)]

    saver, watch = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True), Watch()
    whole = Toy(configure)
    trainer([*callbacks(), saver, watch], 5, enable_checkpointing=True).fit(whole)
    for epoch in range(4):
        again, seen = Toy(configure, seed=epoch + 1), Watch()
        trainer([*callbacks(), seen], 5).fit(again, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert difference(whole, again) == 0.0
        assert seen.open == watch.open[4 * (epoch + 1) :]


def test_a_crashed_run_resumed_mid_epoch_is_what_it_is_without_the_callback(tmp_path: Path) -> None:
    """Mid-epoch, Lightning reads the epoch's first batches again: the oracle is a run that is fully open."""
    opened = []
    for callback in (BackboneFreezeUnfreeze({0: 0, 2: 2}, verbose=False), None):
        module, path = Toy(), tmp_path / f"{callback is None}"
        saver = ModelCheckpoint(path, "last", every_n_train_steps=1, enable_version_counter=False)
        callbacks = [callback] if callback else []
        with pytest.raises(RuntimeError, match="crash"):
            trainer([*callbacks, saver, Crash(2, 1)], enable_checkpointing=True).fit(module)
        watch, again = Watch(), Toy(seed=5)
        trainer([*callbacks, watch]).fit(again, ckpt_path=path / "last.ckpt")
        opened.append(watch.open)
    assert len(opened[0]) == len(opened[1])
    assert set(opened[0]) == {(1, 2)}
    assert set(opened[1]) == {(0, 1, 2)}


class Script(Callback):
    """Logs a metric from a list instead of a real one."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            pl_module.log("score", self.values[trainer.current_epoch])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("train_score", self.values[trainer.current_epoch])


@pytest.mark.parametrize("monitor", ["score", "train_score"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("gradual", [(), (), (), (2,), (2,), (1, 2)]),
        ("lp_ft", [(), (), (), (0, 1, 2), (0, 1, 2), (0, 1, 2)]),
    ],
)
def test_a_stalled_metric_opens_the_next_stage(schedule: str, expected: Any, monitor: str, tmp_path: Path) -> None:
    values = [0.5, 0.4, 0.45, 0.45, 0.41, 0.3]

    def callbacks() -> list[Any]:
        callback = BackboneFreezeUnfreeze(schedule, monitor=monitor, mode="max", patience=2, verbose=False)
        return [Script(values), callback]

    whole, watch = Toy(), Watch()
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer([*callbacks(), saver, watch], 6, enable_checkpointing=True).fit(whole)
    assert watch.open[::4] == expected
    for epoch in range(5):
        again, seen = Toy(seed=9), Watch()
        trainer([*callbacks(), seen], 6).fit(again, ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        assert seen.open == watch.open[4 * (epoch + 1) :]
        assert difference(whole, again) == 0.0


def test_a_decision_within_an_epoch_waits_for_the_end_of_an_accumulated_step() -> None:
    class Often(Script):
        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            pl_module.log("score", 1.0)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            return

    open_at_batch: list[int] = []

    class Batches(Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            open_at_batch.append(sum(block.linear.weight.requires_grad for block in pl_module.backbone.blocks))

    callback = BackboneFreezeUnfreeze("lp_ft", monitor="score", patience=2, verbose=False)
    run = trainer([Often([]), callback, Batches()], 2, accumulate_grad_batches=4, val_check_interval=1)
    module = Toy()
    module.train_dataloader = lambda: loader(batch_size=4)
    run.fit(module)
    assert len(open_at_batch) == 16
    # The third check stalls after batch 2; four batches make a step.
    assert open_at_batch == [0] * 4 + [3] * 12


def test_a_metric_that_is_never_logged_is_an_error() -> None:
    with pytest.raises(MisconfigurationException, match=r"val_los'.*Did you mean `val_loss`"):
        trainer([BackboneFreezeUnfreeze("gradual", monitor="val_los")]).fit(Toy())
