from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from torch import nn

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import (
    Backbone,
    Toy,
    adamw,
    copy_state,
    loader,
    moved,
    toy_of,
    trainer,
)


class Watch(Callback):
    """Writes down, for each training batch, the blocks that take gradients, and what moved in each epoch."""

    def __init__(self) -> None:
        self.open: list[tuple[int, ...]] = []
        self.moved: list[set[str]] = []
        self.modes: list[dict[str, bool]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.before = copy_state(pl_module)

    on_train_epoch_start = on_train_start

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        blocks = pl_module.backbone.blocks
        self.open.append(tuple(index for index, block in enumerate(blocks) if block.linear.weight.requires_grad))
        self.modes.append({name: module.training for name, module in pl_module.named_modules()})

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.moved.append(moved(self.before, pl_module))


class Crash(Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError("crash")


def tensors_of(module: nn.Module, *prefixes: str) -> set[str]:
    return {name for name in module.state_dict() if name.startswith(prefixes)}


SCHEDULES = [
    ({"schedule": "feature_extraction"}, [(), (), (), ()]),
    ({"schedule": "lp_ft", "unfreeze_at_epoch": 2}, [(), (), (0, 1, 2), (0, 1, 2)]),
    ({"schedule": "partial"}, [(1, 2)] * 4),
    ({"schedule": "gradual"}, [(), (2,), (1, 2), (0, 1, 2)]),
    ({"schedule": "full"}, [(0, 1, 2)] * 4),
    ({"schedule": {1: 1, 2: "all", 3: 0}}, [(), (2,), (0, 1, 2), ()]),
]


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize(("arguments", "expected"), SCHEDULES, ids=[str(item[0]["schedule"]) for item in SCHEDULES])
def test_exactly_what_the_schedule_opens_is_trained(arguments: Any, expected: Any, package: str) -> None:
    """The oracle is bitwise: weights, running means and counters move in open blocks, and nowhere else."""
    module, watch = toy_of(package, adamw), Watch()
    trainer([BackboneFreezeUnfreeze(**arguments, verbose=False), watch], package=package).fit(module)
    assert watch.open[::4] == expected
    assert all(watch.open[index] == watch.open[4 * (index // 4)] for index in range(16))
    for epoch, blocks in enumerate(expected):
        wanted = tensors_of(module, "head", *(f"backbone.blocks.{index}" for index in blocks))
        assert watch.moved[epoch] == wanted


def test_the_plan_is_what_happens() -> None:
    module, watch, callback = Toy(), Watch(), BackboneFreezeUnfreeze("gradual", verbose=False)
    plan = callback.plan(module, max_epochs=4)
    trainer([callback, watch]).fit(module)
    assert [stage.epoch for stage in plan] == [0, 1, 2, 3]
    assert [stage.open_groups for stage in plan] == [
        tuple(f"blocks.{index}" for index in blocks) for blocks in watch.open[::4]
    ]
    assert [stage.opened for stage in plan] == [(), ("blocks.2",), ("blocks.1",), ("blocks.0",)]
    assert [stage.trainable_parameters for stage in plan] == [14, 68, 122, 176]


class Restless(Callback):
    """Calls `.train()` at every level, as other callbacks and users do."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.train()
        pl_module.backbone.train()
        for module in pl_module.modules():
            module.train()


def test_frozen_features_are_their_eval_values_whatever_calls_train() -> None:
    class Comparing(Toy):  # type: ignore[misc, valid-type]
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            features = self.backbone(batch[0])
            self.seen.append(float((features - self.reference(batch[0])).abs().max()))
            return nn.functional.cross_entropy(self.head(features), batch[1])

    module, watch = Comparing(dropout=0.5), Watch()
    module.backbone.blocks[0].norm.running_mean.fill_(0.3)
    # Hidden from `parameters()`, so that it is no part of the module.
    reference = Backbone(dropout=0.5)
    reference.load_state_dict(module.backbone.state_dict())
    object.__setattr__(module, "reference", reference.eval())
    trainer([BackboneFreezeUnfreeze("lp_ft", unfreeze_at_epoch=2, verbose=False), Restless(), watch]).fit(module)
    assert module.seen[:8] == [0.0] * 8
    assert min(module.seen[8:]) > 0.1
    assert not any(mode for name, mode in watch.modes[0].items() if name.startswith("backbone.blocks"))
    assert all(mode for name, mode in watch.modes[-1].items())


def test_train_bn_trains_the_normalisation_of_frozen_blocks_and_nothing_else() -> None:
    module, watch = Toy(), Watch()
    trainer([BackboneFreezeUnfreeze("feature_extraction", train_bn=True, verbose=False), watch]).fit(module)
    norms = {name for name in module.state_dict() if ".norm." in name}
    assert watch.moved[0] == norms | tensors_of(module, "head")


@pytest.mark.parametrize("card", [None, SimpleNamespace(batchnorm="folded")])
def test_bn_when_open_keeps_the_statistics_of_opened_blocks(card: Any) -> None:
    module, watch = Toy(), Watch()
    module.card = card
    option = {} if card else {"bn_when_open": "eval"}
    trainer([BackboneFreezeUnfreeze("full", verbose=False, **option), watch, Restless()]).fit(module)
    statistics = {name for name in module.state_dict() if "running" in name or "num_batches" in name}
    assert statistics
    assert watch.moved[0] == set(module.state_dict()) - statistics


def test_folded_batchnorm_is_said_once_and_refuses_train_bn(caplog: pytest.LogCaptureFixture) -> None:
    module = Toy()
    module.card = SimpleNamespace(batchnorm="folded")
    with caplog.at_level(logging.INFO):
        trainer([BackboneFreezeUnfreeze("full")]).fit(module)
    assert sum("BatchNorm is folded" in record.message for record in caplog.records) <= 1
    with pytest.raises(MisconfigurationException, match="train_bn=True"):
        trainer([BackboneFreezeUnfreeze("full", train_bn=True)]).fit(module)


def test_what_the_user_froze_stays_frozen() -> None:
    module, watch = Toy(adamw), Watch()
    kept = module.backbone.blocks[2].linear.bias
    kept.requires_grad_(False)
    trainer([BackboneFreezeUnfreeze("lp_ft", verbose=False), watch]).fit(module)
    assert watch.moved[-1] == set(module.state_dict()) - {"backbone.blocks.2.linear.bias"}
    assert [value is not kept for value in module.parameters()] == [v.requires_grad for v in module.parameters()]


@pytest.mark.parametrize("fails", [False, True])
def test_a_second_fit_starts_clean(fails: bool) -> None:
    module, callback = Toy(dropout=0.1), BackboneFreezeUnfreeze("gradual", verbose=False)
    module.backbone.blocks[1].eval()
    modes = {name: child.training for name, child in module.named_modules()}
    for _ in range(2):
        watch = Watch()
        if fails:
            with pytest.raises(RuntimeError, match="crash"):
                trainer([callback, watch, Crash(1, 0)]).fit(module)
        else:
            trainer([callback, watch]).fit(module)
        assert watch.open[0] == ()
        assert all(value.requires_grad for value in module.parameters())
        assert {name: child.training for name, child in module.named_modules()} == modes
        assert all("train" not in vars(child) for child in module.modules())


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_validate_test_and_predict_touch_nothing(verb: str) -> None:
    class Complete(Toy):  # type: ignore[misc, valid-type]
        def test_step(self, batch: Any, batch_idx: int) -> None:
            assert all(value.requires_grad for value in self.parameters())

        validation_step = predict_step = test_step

    module, callback = Complete(), BackboneFreezeUnfreeze(verbose=False)
    getattr(trainer([callback]), verb)(module, dataloaders=loader())
    assert all(value.requires_grad for value in module.parameters())
    assert all(child.training for child in module.modules())


def test_other_callbacks_and_max_epochs_are_untouched(tmp_path: Path) -> None:
    def run(extra: list[Any]) -> tuple[Any, ...]:
        stop = EarlyStopping("val_loss", min_delta=0.001, patience=50)
        save = ModelCheckpoint(tmp_path / str(len(extra)), monitor="val_loss", save_top_k=1)
        loop = trainer([*extra, stop, save], enable_checkpointing=True)
        loop.fit(Toy())
        kept = [callback for callback in loop.callbacks if callback not in extra]
        return loop.max_epochs, loop.current_epoch, stop.min_delta, [type(item) for item in kept], stop in kept

    assert run([BackboneFreezeUnfreeze(verbose=False)]) == run([])


def test_lightning_warns_of_no_eval_modules_that_are_meant(recwarn: pytest.WarningsRecorder) -> None:
    trainer([BackboneFreezeUnfreeze(verbose=False)], 1).fit(Toy())
    assert not [item for item in recwarn if "eval mode" in str(item.message)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "partial", "monitor": "val_loss"}, "val_loss.*partial"),
        ({"bn_when_open": "off"}, "off"),
        ({"schedule": "graduale"}, "graduale"),
        ({"monitor": "val_loss", "mode": "lower"}, "lower"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneFreezeUnfreeze(**arguments)


def test_an_optimizer_that_leaves_out_what_will_open_is_an_error_with_the_way_out() -> None:
    module = Toy(lambda toy: torch.optim.SGD(toy.head.parameters(), lr=0.1))
    with pytest.raises(MisconfigurationException, match=r"leaves out 4 parameters of `blocks.2`.*self.parameters\(\)"):
        trainer([BackboneFreezeUnfreeze("gradual")]).fit(module)
    assert all(value.requires_grad for value in module.parameters())
    trainer([BackboneFreezeUnfreeze("feature_extraction", verbose=False)], 1).fit(module)


def test_a_stage_after_max_epochs_is_said_aloud() -> None:
    with pytest.warns(UserWarning, match=r"`blocks.1` is due at epoch 2, but `max_epochs` is 2"):
        trainer([BackboneFreezeUnfreeze("gradual", verbose=False)], 2).fit(Toy())


def test_a_checkpoint_of_other_groups_or_schedule_is_said_aloud(tmp_path: Path) -> None:
    run = trainer([BackboneFreezeUnfreeze("gradual", verbose=False)], 1)
    run.fit(Toy())
    run.save_checkpoint(tmp_path / "one.ckpt")
    others = BackboneFreezeUnfreeze("lp_ft", layer_groups=[r"blocks\.[01]", r"blocks\.2"], verbose=False)
    with pytest.warns(UserWarning, match="layer groups") as caught:
        trainer([others], 2).fit(Toy(), ckpt_path=tmp_path / "one.ckpt")
    texts = " ".join(str(item.message) for item in caught)
    assert "layer groups blocks.0, blocks.1, blocks.2; this run has" in texts
    assert "schedule gradual(unfreeze_at_epoch=1, epochs_per_group=1), this run has lp_ft" in texts


def test_nothing_trainable_is_an_error() -> None:
    module = Toy()
    for value in module.head.parameters():
        value.requires_grad_(False)
    with pytest.raises(MisconfigurationException, match="Nothing is trainable at epoch 0"):
        trainer([BackboneFreezeUnfreeze("gradual")]).fit(module)


def test_each_opening_is_one_line_with_epoch_groups_and_share() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if "rank_zero" in name]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        trainer([BackboneFreezeUnfreeze("gradual")]).fit(Toy())
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
    ours = [line for line in lines if line.startswith("BackboneFreezeUnfreeze")]
    assert len(ours) == 4
    assert "epoch 2: opened blocks.1; 122 of 176 parameters train (69.3%)" in ours[2]


def test_several_backbones_open_together_or_each_by_its_own_callback() -> None:
    class Two(Toy):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(adamw)
            self.other = Backbone()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.backbone(x) + self.other(x))

    module, watch = Two(), Watch()
    both = BackboneFreezeUnfreeze("lp_ft", backbone=["backbone", "other"], verbose=False)
    trainer([both, watch], 2).fit(module)
    assert watch.moved == [tensors_of(module, "head"), set(module.state_dict())]
    module, watch = Two(), Watch()
    callbacks = [
        BackboneFreezeUnfreeze({1: "all"}, backbone="backbone", verbose=False),
        BackboneFreezeUnfreeze({2: "all"}, backbone="other", verbose=False),
    ]
    trainer([*callbacks, watch], 3).fit(module)
    assert watch.moved == [
        tensors_of(module, "head"),
        tensors_of(module, "head", "backbone"),
        set(module.state_dict()),
    ]
    assert all(value.requires_grad for value in module.parameters())


def test_two_optimizers_by_hand() -> None:
    class Manual(Toy):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                with optimizer.toggle_model():
                    if any(value.requires_grad for group in optimizer.param_groups for value in group["params"]):
                        optimizer.zero_grad()
                        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
                        optimizer.step()

        def configure_optimizers(self) -> Any:
            return [
                torch.optim.Adam(self.backbone.parameters(), lr=0.1),
                torch.optim.Adam(self.head.parameters(), lr=0.1),
            ]

    module, watch = Manual(), Watch()
    trainer([BackboneFreezeUnfreeze("gradual", verbose=False), watch]).fit(module)
    for epoch in range(4):
        blocks = (f"backbone.blocks.{index}" for index in range(3 - epoch, 3))
        assert watch.moved[epoch] == tensors_of(module, "head", *blocks)


def test_a_limit_closes_the_deepest_groups_and_travels_with_the_checkpoint(tmp_path: Path) -> None:
    class Closing(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.callbacks[0].limit_open_groups(1)

    watch = Watch()
    run = trainer([BackboneFreezeUnfreeze("gradual", verbose=False), Closing(), watch], 4)
    run.fit(Toy())
    assert watch.open[::4] == [(), (2,), (1, 2), (2,)]
    run.save_checkpoint(tmp_path / "end.ckpt")
    seen = Watch()
    trainer([BackboneFreezeUnfreeze("gradual", verbose=False), seen], 5).fit(Toy(), ckpt_path=tmp_path / "end.ckpt")
    assert seen.open == [(2,)] * 4
    with pytest.raises(ValueError, match="-1"):
        BackboneFreezeUnfreeze().limit_open_groups(-1)


def test_accumulation_clipping_bf16_and_averaging_together() -> None:
    module, watch = Toy(adamw), Watch()
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "precision": "bf16-mixed"}
    callbacks = [DiscriminativeLR(), BackboneFreezeUnfreeze("gradual", verbose=False), WeightAveraging(), watch]
    trainer(callbacks, **options).fit(module)
    assert watch.moved[0] == tensors_of(module, "head")
    assert watch.moved[3] >= tensors_of(module, "backbone")


@pytest.mark.parametrize(
    ("callback", "strategy"),
    [
        (BackboneFreezeUnfreeze(), "FSDPStrategy"),
        (BackboneFreezeUnfreeze(), "DeepSpeedStrategy"),
        (DiscriminativeLR(), "FSDPStrategy"),
        (DiscriminativeLR(), "DeepSpeedStrategy"),
    ],
)
def test_a_sharding_strategy_is_refused_by_name(callback: Any, strategy: str) -> None:
    fake = SimpleNamespace(strategy=type(strategy, (), {})())
    with pytest.raises(MisconfigurationException, match=strategy):
        callback.on_fit_start(fake, Toy())
