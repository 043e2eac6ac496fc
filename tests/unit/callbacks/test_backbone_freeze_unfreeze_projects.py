"""BackboneFreezeUnfreeze in other people's projects: LightningCLI, PEFT, other callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.cli import LightningCLI
from torch import nn

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, adamw, copy_state, difference, loader, moved, trainer
from tests.unit.callbacks.test_backbone_freeze_unfreeze import Watch, tensors_of


class CliToy(Toy):  # type: ignore[misc, valid-type]
    """Without arguments, as the command line makes it."""

    def __init__(self) -> None:
        super().__init__(adamw)


def run_cli(*arguments: str, epochs: int) -> Any:
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": epochs,
    }
    callbacks = [
        "--trainer.callbacks+=lightning_transfer.callbacks.BackboneFreezeUnfreeze",
        "--trainer.callbacks.schedule={1: 1, 2: all}",
        "--trainer.callbacks.verbose=false",
        "--trainer.callbacks+=lightning_transfer.callbacks.DiscriminativeLR",
        "--trainer.callbacks.layer_decay=0.5",
    ]
    return LightningCLI(
        CliToy,
        trainer_defaults=defaults,
        save_config_callback=None,
        auto_configure_optimizers=False,
        args=["fit", *callbacks, *arguments],
    )


def test_lightning_cli_resumes_where_the_run_was(tmp_path: Path) -> None:
    whole = run_cli(epochs=4).model
    half = run_cli(epochs=3)
    half.trainer.save_checkpoint(tmp_path / "three.ckpt")
    again = run_cli(f"--ckpt_path={tmp_path / 'three.ckpt'}", epochs=4)
    assert again.trainer.callbacks[0].schedule.kind == {1: 1, 2: "all"}
    assert difference(whole, again.model) == 0.0


def test_a_frozen_backbone_takes_no_part_in_the_backward_pass() -> None:
    class Looking(Toy):  # type: ignore[misc, valid-type]
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            x, needed = batch[0], []
            for block in self.backbone.blocks:
                x = block(x)
                needed.append(x.requires_grad)
            self.seen.append(needed)
            return nn.functional.cross_entropy(self.head(x), batch[1])

    module = Looking()
    trainer([BackboneFreezeUnfreeze("gradual", verbose=False)]).fit(module)
    assert module.seen[::4] == [[False] * 3, [False, False, True], [False, True, True], [True] * 3]


def test_frozen_parameters_cost_the_optimizer_no_state() -> None:
    module = Toy(adamw)
    run = trainer([BackboneFreezeUnfreeze("feature_extraction", verbose=False)])
    run.fit(module)
    assert {id(value) for value in run.optimizers[0].state} == {id(value) for value in module.head.parameters()}


def test_under_peft_only_adapters_of_open_groups_train() -> None:
    peft = pytest.importorskip("peft")
    module, watch = Toy(adamw), Watch()
    start = copy_state(module)
    module.backbone = peft.get_peft_model(module.backbone, peft.LoraConfig(target_modules=["linear"], r=2))
    blocks = module.backbone.base_model.model.blocks
    watch_open: list[set[int]] = []

    class Open(Watch):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            names = [name for name, value in pl_module.named_parameters() if value.requires_grad and "lora" in name]
            watch_open.append({index for index in range(3) if any(f"blocks.{index}." in name for name in names)})

    watch = Open()
    callbacks = [DiscriminativeLR(layer_decay=0.5), BackboneFreezeUnfreeze("gradual", verbose=False), watch]
    trainer(callbacks).fit(module)
    assert watch_open[::4] == [set(), {2}, {1, 2}, {0, 1, 2}]
    assert watch.moved[0] == tensors_of(module, "head")
    assert all(
        "lora" in name or "running" in name or "num_batches" in name for name in watch.moved[3] if "head" not in name
    )
    for index, block in enumerate(blocks):
        assert torch.equal(block.linear.base_layer.weight, start[f"backbone.blocks.{index}.linear.weight"])


def test_what_the_users_code_opens_in_a_step_is_not_stepped_with() -> None:
    class Opening(Toy):  # type: ignore[misc, valid-type]
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.backbone.requires_grad_(True)
            return super().training_step(batch, batch_idx)

    module = Opening(adamw)
    start = copy_state(module)
    trainer([BackboneFreezeUnfreeze({0: 1}, verbose=False)]).fit(module)
    assert moved(start, module) == {name for name in start if "blocks.2" in name or "head" in name}


@pytest.mark.parametrize(
    "where",
    ["submodule", pytest.param("module", marks=pytest.mark.slow), pytest.param("method", marks=pytest.mark.slow)],
)
def test_compiled_code_trains_what_opens(where: str) -> None:
    class Plain(Toy):  # type: ignore[misc, valid-type]
        """No module of it asks for its mode: a new mode alone would make dynamo trace again."""

        def __init__(self) -> None:
            super().__init__(adamw)
            self.backbone = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3)))

    class Moved(Watch):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            return

    module, watch = Plain(), Moved()
    fitted: Any = module
    if where == "module":
        fitted = torch.compile(module, backend="aot_eager")
    elif where == "submodule":
        module.backbone = torch.compile(module.backbone, backend="aot_eager")
    else:
        module.backbone.compile(backend="aot_eager")
    trainer([BackboneFreezeUnfreeze("lp_ft", backbone="backbone", verbose=False), watch], 2).fit(fitted)
    assert watch.moved == [tensors_of(module, "head"), set(module.state_dict())]


def test_a_group_that_closes_is_not_moved_by_a_gradient_left_over() -> None:
    class Zeroing(Toy):  # type: ignore[misc, valid-type]
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
            optimizer.zero_grad(set_to_none=False)

    module, watch = Zeroing(adamw), Watch()
    # Validation would clear the gradients.
    trainer([BackboneFreezeUnfreeze({0: "all", 1: 1}, verbose=False), watch], 2, limit_val_batches=0).fit(module)
    assert watch.moved[1] == tensors_of(module, "head", "backbone.blocks.2")


def test_a_resumed_run_is_in_its_stage_when_training_starts(tmp_path: Path) -> None:
    class First(Watch):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            super().on_train_start(trainer, pl_module)
            blocks = pl_module.backbone.blocks
            self.start = [(block.linear.weight.requires_grad, block.norm.training) for block in blocks]

    half, first = trainer([BackboneFreezeUnfreeze(verbose=False)], 2), First()
    half.fit(Toy())
    half.save_checkpoint(tmp_path / "two.ckpt")
    trainer([BackboneFreezeUnfreeze(verbose=False), first], 3).fit(Toy(), ckpt_path=tmp_path / "two.ckpt")
    assert first.start == [(False, False), (True, True), (True, True)]


def test_the_batch_size_finder_leaves_everything_as_it_was(tmp_path: Path) -> None:
    class Sized(Toy):  # type: ignore[misc, valid-type]
        batch_size = 2

        def train_dataloader(self) -> Any:
            return loader(self.batch_size)

    module, watch = Sized(adamw), Watch()
    finder = BatchSizeFinder(max_trials=2, steps_per_trial=2)
    callbacks = [DiscriminativeLR(), BackboneFreezeUnfreeze("lp_ft", verbose=False), finder, watch]
    trainer(callbacks, 2, default_root_dir=tmp_path).fit(module)
    assert module.batch_size > 2
    assert watch.open[0] == ()
    assert watch.moved[0] == tensors_of(module, "head")
    assert watch.moved[1] >= tensors_of(module, "backbone.blocks.0.linear")


def test_a_module_that_is_fitted_and_copied_and_pickled(tmp_path: Path) -> None:
    import copy

    module = Toy(adamw)
    trainer([DiscriminativeLR(), BackboneFreezeUnfreeze("lp_ft", verbose=False)], 1).fit(module)
    twin = copy.deepcopy(module)
    before = copy_state(twin)
    trainer([copy.deepcopy(BackboneFreezeUnfreeze("full", verbose=False))], 1).fit(twin)
    assert moved(before, twin) == set(before)
    torch.save(twin.state_dict(), tmp_path / "weights.pt")
