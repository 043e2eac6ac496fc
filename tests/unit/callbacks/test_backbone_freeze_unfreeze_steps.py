"""BackboneFreezeUnfreeze with a schedule in optimizer steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, adamw, difference, loader, sgd, trainer
from tests.unit.callbacks.test_backbone_freeze_unfreeze import Crash, Watch
from tests.unit.callbacks.test_backbone_freeze_unfreeze_resume import one_cycle


def by_step(schedule: dict[int, Any]) -> BackboneFreezeUnfreeze:
    return BackboneFreezeUnfreeze(schedule, unit="step", verbose=False)


class Resumable(torch.utils.data.DataLoader):
    """Goes on with the next batch after a restart in the middle of an epoch; Lightning saves and loads its state."""

    position = 0

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["position"] % len(self)

    def __iter__(self) -> Any:
        start, self.start = getattr(self, "start", 0), 0
        for place, batch in enumerate(super().__iter__()):
            if place >= start:
                self.position = place + 1
                yield batch


class Steady(Toy):  # type: ignore[misc, valid-type]
    """Its training data can be taken up again in the middle of an epoch."""

    size = 8

    def train_dataloader(self) -> Any:
        return Resumable(loader().dataset, batch_size=self.size)


@pytest.mark.parametrize("batch_size", [8, 4])
def test_groups_open_before_exactly_their_step(batch_size: int) -> None:
    """Four or eight steps an epoch: the epoch has no say, and every step has the number written by hand."""
    module, watch = Toy(adamw), Watch()
    module.train_dataloader = lambda: loader(batch_size)
    trainer([by_step({0: 0, 1: 1, 6: "all", 7: 0}), watch], 2).fit(module)
    expected = [(), *[(2,)] * 5, (0, 1, 2)]
    assert watch.open[:7] == expected
    assert set(watch.open[7:]) == {()}


def test_batches_that_accumulate_make_one_step() -> None:
    seen: list[tuple[int, int]] = []

    class Batches(Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            opened = sum(block.linear.weight.requires_grad for block in pl_module.backbone.blocks)
            seen.append((trainer.global_step, opened))

    module = Toy()
    module.train_dataloader = lambda: loader(batch_size=4)
    # Eight batches an epoch make steps of three, three and two.
    trainer([by_step({0: 0, 1: 1, 2: 2, 4: 3}), Batches()], 2, accumulate_grad_batches=3).fit(module)
    assert [step for step, _ in seen] == [0] * 3 + [1] * 3 + [2] * 2 + [3] * 3 + [4] * 3 + [5] * 2
    wanted = {0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 5: 3}
    assert [opened for _, opened in seen] == [wanted[step] for step, _ in seen]


@pytest.mark.parametrize("configure", [sgd, adamw, one_cycle])
@pytest.mark.parametrize("freezing", [False, True])
def test_a_run_resumed_in_the_middle_of_an_epoch_ends_where_the_uninterrupted_one_does(
    configure: Any, freezing: bool, tmp_path: Path
) -> None:
    """Without the callback first: what bare Lightning does not resume, this test could not blame on us."""

    def callbacks() -> list[Any]:
        return [DiscriminativeLR(layer_decay=0.5), by_step({0: 0, 2: 1, 5: 2, 10: "all"})] if freezing else []

    whole, watch = Steady(configure), Watch()
    saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    trainer([*callbacks(), saver, watch], 4, enable_checkpointing=True).fit(whole)
    # 2 and 5 open; 6 and 7 lie in the middle of an epoch, after an opening; 4 and 8 are an epoch's end.
    for step in (1, 2, 5, 6, 7, 9, 10, 13):
        again, seen = Steady(configure, seed=step), Watch()
        trainer([*callbacks(), seen], 4).fit(again, ckpt_path=tmp_path / f"step={step}.ckpt")
        assert difference(whole, again) == 0.0, step
        assert seen.open == watch.open[step:]


def test_a_crashed_run_goes_on_in_its_stage(tmp_path: Path) -> None:
    schedule = {0: 0, 5: 2}
    saver = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False)
    with pytest.raises(RuntimeError, match="crash"):
        trainer([by_step(schedule), saver, Crash(1, 2)], enable_checkpointing=True).fit(Steady(adamw))
    whole, again, seen = Steady(adamw), Steady(adamw, seed=3), Watch()
    trainer([by_step(schedule)]).fit(whole)
    trainer([by_step(schedule), seen]).fit(again, ckpt_path=tmp_path / "last.ckpt")
    assert seen.open[0] == (1, 2)
    assert difference(whole, again) == 0.0


def test_a_resumed_run_with_accumulation_opens_at_its_step(tmp_path: Path) -> None:
    class Small(Steady):
        size = 4

    options = {"accumulate_grad_batches": 2}
    whole, watch = Small(adamw), Watch()
    saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    trainer([by_step({0: 0, 2: 1, 5: 3}), saver, watch], 2, enable_checkpointing=True, **options).fit(whole)
    assert watch.open == [(), (), (2,), (2,), (2,), (0, 1, 2), (0, 1, 2), (0, 1, 2)]
    for step in (1, 3, 5, 6):
        again, seen = Small(adamw, seed=step), Watch()
        trainer([by_step({0: 0, 2: 1, 5: 3}), seen], 2, **options).fit(again, ckpt_path=tmp_path / f"step={step}.ckpt")
        assert difference(whole, again) == 0.0, step
        assert seen.open == watch.open[step:]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_optimizers_make_two_steps_in_a_batch(accumulate: int) -> None:
    """Manual optimization: the module accumulates by itself, so an opening waits for a step that was taken."""
    seen: list[tuple[int, int]] = []

    class Manual(Toy):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            opened = sum(block.linear.weight.requires_grad for block in self.backbone.blocks)
            seen.append((self.trainer.global_step, opened))
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
            if (batch_idx + 1) % accumulate == 0:
                for optimizer in self.optimizers():
                    optimizer.step()
                    optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.SGD(self.backbone.parameters(), lr=0.1),
                torch.optim.SGD(self.head.parameters(), lr=0.1),
            ]

    class Meddling(Callback):
        """Asks for a limit in the middle of an accumulated step."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if accumulate == 2 and (trainer.current_epoch, batch_idx) == (1, 2):
                trainer.callbacks[0].limit_open_groups(1)

    # 3 is stepped over: the second batch begins at step 2, the third at step 4.
    trainer([by_step({0: 0, 3: 1, 6: 3}), Meddling()], 2).fit(Manual())
    if accumulate == 1:
        assert seen == [(0, 0), (2, 0), (4, 1), (6, 3), (8, 3), (10, 3), (12, 3), (14, 3)]
    else:
        assert seen == [(0, 0), (0, 0), (2, 0), (2, 0), (4, 1), (4, 1), (6, 3), (6, 3)]


def test_the_plan_in_steps_is_what_happens() -> None:
    module, watch, callback = Toy(), Watch(), by_step({0: 0, 3: 1, 7: "all"})
    plan = callback.plan(module, max_steps=16)
    trainer([callback, watch]).fit(module)
    assert [(stage.epoch, stage.step, stage.reached) for stage in plan] == [
        (None, 0, True),
        (None, 3, True),
        (None, 7, True),
    ]
    names = [tuple(f"blocks.{index}" for index in watch.open[stage.step]) for stage in plan]
    assert [stage.open_groups for stage in plan] == names
    assert [stage.begins for stage in plan] == ["at step 0", "at step 3", "at step 7"]
    assert [stage.reached for stage in callback.plan(module, 1, max_steps=7)] == [True, True, False]


@pytest.mark.parametrize(
    ("options", "end"),
    [({}, 16), ({"accumulate_grad_batches": 2}, 8), ({"max_steps": 5}, 5), ({"max_steps": 5, "epochs": -1}, 5)],
)
def test_a_step_after_the_end_is_said_aloud(options: dict[str, Any], end: int) -> None:
    with pytest.warns(UserWarning, match=rf"opening `blocks.2` is due at step {end}, but the run ends after {end} opt"):
        trainer([by_step({0: 0, end: 1})], **options).fit(Toy())


def test_the_last_step_is_reached_and_nothing_is_said(recwarn: pytest.WarningsRecorder) -> None:
    watch = Watch()
    trainer([by_step({0: 0, 15: 1}), watch]).fit(Toy())
    assert watch.open[14:] == [(), (2,)]
    assert not [item for item in recwarn if "never reached" in str(item.message)]


def test_an_optimizer_may_leave_out_what_opens_after_the_end() -> None:
    def configure(toy: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(toy.head.parameters(), lr=0.1)

    trainer([by_step({0: 0, 5: 1})], max_steps=5).fit(Toy(configure))
    with pytest.raises(MisconfigurationException, match="which the schedule opens at step 4"):
        trainer([by_step({0: 0, 4: 1})], max_steps=5).fit(Toy(configure))


def test_a_checkpoint_of_a_schedule_in_epochs_is_told_apart(tmp_path: Path) -> None:
    run = trainer([BackboneFreezeUnfreeze({0: 0, 2: 1}, verbose=False)], 1)
    run.fit(Toy())
    run.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.warns(UserWarning, match=r"schedule {0: 0, 2: 1}, this run has {0: 0, 2: 1} by step"):
        trainer([by_step({0: 0, 2: 1})], 2).fit(Toy(), ckpt_path=tmp_path / "one.ckpt")


def test_nothing_trainable_names_the_step() -> None:
    module = Toy()
    for value in module.head.parameters():
        value.requires_grad_(False)
    with pytest.raises(MisconfigurationException, match="Nothing is trainable at step 3"):
        trainer([by_step({0: 1, 3: 0})]).fit(module)


def test_names_and_the_monitor_count_in_epochs_and_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'gradual' counts in epochs.*{0: 0, 200: 1"):
        BackboneFreezeUnfreeze("gradual", unit="step")
    with pytest.raises(ValueError, match=r"val_loss.*{0: 1}"):
        BackboneFreezeUnfreeze({0: 1}, unit="step", monitor="val_loss")
