from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateFinder, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch.optim import lr_scheduler

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR
from tests.unit.callbacks.callback_toys import Toy, copy_state, difference, moved, sgd, toy_of, trainer


class Rates(Callback):
    """Writes down the rate of every parameter before each step, by name."""

    def __init__(self) -> None:
        self.history: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        names = {id(value): name for name, value in pl_module.named_parameters()}
        self.history.append(
            {names[id(value)]: float(group["lr"]) for group in optimizer.param_groups for value in group["params"]}
        )


def one_cycle(module: Any) -> Any:
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=16)
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def cosine_floor(module: Any) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, T_max=4, eta_min=0.02)]


def plateau(module: Any) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=10.0)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


FACTORS = {"blocks.0": 0.125, "blocks.1": 0.25, "blocks.2": 0.5, "head": 1.0}


def factor_of(name: str) -> float:
    return next(factor for layer, factor in FACTORS.items() if layer in name)


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("configure", [one_cycle, cosine_floor, plateau])
@pytest.mark.parametrize("order", ["alone", "before", "after"])
def test_every_layer_follows_the_users_curve(package: str, configure: Any, order: str) -> None:
    """The oracle is the curve of a run without the callback."""
    reference, rates = Rates(), Rates()
    trainer([reference], package=package).fit(toy_of(package, configure))
    callbacks: list[Any] = [DiscriminativeLR(layer_decay=0.5)]
    if order != "alone":
        callbacks.insert(0 if order == "before" else 1, BackboneFreezeUnfreeze(verbose=False))
    trainer([*callbacks, rates], package=package).fit(toy_of(package, configure))
    assert len(rates.history) == len(reference.history) == 16
    assert len({step["head.weight"] for step in reference.history}) > 1
    for ours, users in zip(rates.history, reference.history, strict=True):
        assert ours == {name: pytest.approx(rate * factor_of(name), rel=1e-12) for name, rate in users.items()}


def test_the_monitor_shows_true_rates_under_readable_names(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    callbacks = [LearningRateMonitor("step"), DiscriminativeLR(layer_decay=0.5), Rates()]
    trainer(callbacks, logger=logger, log_every_n_steps=1).fit(Toy(one_cycle))
    with Path(logger.experiment.metrics_file_path).open(newline="") as file:
        lines = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    rows = [row for row in lines if any(key.startswith("lr-") for key in row)]
    assert len(rows) == 16
    for row, rates in zip(rows, callbacks[2].history, strict=True):
        shown = {key: value for key, value in row.items() if key.startswith("lr-")}
        assert len(shown) == 4
        assert sorted(shown.values()) == pytest.approx(sorted(set(rates.values())))
        assert {key for key in shown if "blocks.0" in key and "depth0" in key}
        assert {key for key in shown if "head" in key}


def test_the_scales_are_timms() -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    for name in ("resnet10t", "resnet50", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050"):
        model = timm.create_model(name, num_classes=3)
        oracle = {}
        for group in param_groups_layer_decay(model, layer_decay=0.7):
            oracle.update(dict.fromkeys(map(id, group["params"]), group["lr_scale"]))
        callback = DiscriminativeLR(layer_decay=0.7)
        scales = callback._scales(callback._resolve(model))
        parameters = dict(model.named_parameters())
        assert scales.keys() == parameters.keys()
        classifier = set(map(id, model.get_classifier().parameters()))
        for key, value in parameters.items():
            # timm counts a pretrained projection before the classifier with it; here only what is new is the head.
            expected = oracle[id(value)] if id(value) in classifier else min(oracle[id(value)], 0.7)
            assert scales[key] == pytest.approx(expected), (name, key)


def test_total_ratio_is_stem_over_head_whatever_the_depth() -> None:
    factors = DiscriminativeLR(total_ratio=0.02).factors(Toy())
    assert list(factors) == ["blocks.0", "blocks.1", "blocks.2", "head"]
    assert factors["blocks.0"] / factors["head"] == pytest.approx(0.02)
    assert DiscriminativeLR().factors(Toy())["blocks.0"] == pytest.approx(0.1)
    ratios = [math.log(factors[a] / factors[b]) for a, b in (("blocks.0", "blocks.1"), ("blocks.1", "blocks.2"))]
    assert ratios[0] == pytest.approx(ratios[1])
    assert DiscriminativeLR(layer_decay=0.5, head_lr_multiplier=10.0).factors(Toy())["head"] == 10.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_decay": 1.5}, "layer_decay.*1.5"),
        ({"layer_decay": 0.0}, "layer_decay.*0"),
        ({"total_ratio": -0.1}, "total_ratio.*-0.1"),
        ({"layer_decay": 0.5, "total_ratio": 0.1}, "layer_decay=0.5.*total_ratio=0.1"),
        ({"head_lr_multiplier": 0.0}, "head_lr_multiplier.*0.0"),
        ({"multipliers": {"stem": 0.0}}, "above 0 for 'stem' in `multipliers`, got 0.0.*freeze"),
        ({"multipliers": {"stem": -1.0}}, "got -1.0"),
        ({"multipliers": {"stem": float("nan")}}, "got nan"),
        ({"multipliers": {"stem": float("inf")}}, "got inf"),
        ({"multipliers": {"head": 3.0}, "head_lr_multiplier": 2.0}, "two factors.*=3.0.*=2.0"),
    ],
)
def test_a_wrong_argument_is_named_at_once(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiscriminativeLR(**arguments)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({}, {"blocks.0": 1.0, "blocks.1": 0.3, "blocks.2": 1.0, "head": 2.0}),
        ({"layer_decay": 0.5}, {"blocks.0": 0.125, "blocks.1": 0.3, "blocks.2": 0.5, "head": 2.0}),
        ({"total_ratio": 0.125}, {"blocks.0": 0.125, "blocks.1": 0.3, "blocks.2": 0.5, "head": 2.0}),
    ],
)
def test_multipliers_are_the_factors_of_what_they_name(arguments: dict[str, float], wanted: dict[str, float]) -> None:
    """What nobody names keeps the user's rate, or follows the ladder that was asked for."""
    callback = DiscriminativeLR(multipliers={"head": 2.0, "blocks.1": 0.3}, **arguments)
    assert callback.factors(Toy()) == pytest.approx(wanted)
    reference, rates = Rates(), Rates()
    trainer([reference]).fit(Toy(one_cycle))
    trainer([callback, rates]).fit(Toy(one_cycle))
    for ours, users in zip(rates.history, reference.history, strict=True):
        for name, rate in ours.items():
            assert rate == pytest.approx(users[name] * next(v for layer, v in wanted.items() if layer in name))


def test_no_multipliers_are_the_default_ladder() -> None:
    assert DiscriminativeLR(multipliers={}).factors(Toy()) == DiscriminativeLR().factors(Toy())


def test_a_wrong_name_in_multipliers_stops_the_fit_before_it_begins() -> None:
    with pytest.raises(ValueError, match=r"'block.1'.*Did you mean `blocks.1`.*Groups: blocks.0, blocks.1, blocks.2"):
        trainer([DiscriminativeLR(multipliers={"block.1": 0.3})]).fit(Toy())


@pytest.mark.parametrize("configure", [one_cycle, cosine_floor])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(configure: Any, tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole = Toy(configure)
    rates = Rates()
    trainer([DiscriminativeLR(layer_decay=0.5), saver, rates], enable_checkpointing=True).fit(whole)
    for epoch in range(3):
        path = tmp_path / f"epoch={epoch}.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        assert len(checkpoint["optimizer_states"][0]["param_groups"]) == 1
        again, seen = Toy(configure, seed=3), Rates()
        trainer([DiscriminativeLR(layer_decay=0.5), seen]).fit(again, ckpt_path=path, weights_only=True)
        assert difference(whole, again) == 0.0
        assert seen.history == rates.history[4 * (epoch + 1) :]


def test_plateau_resumes_as_it_does_without_the_callback(tmp_path: Path) -> None:
    """Lightning itself saves before the plateau scheduler has stepped: the oracle is its own resumed run."""
    histories = []
    for callbacks in ([], [DiscriminativeLR(layer_decay=0.5)]):
        run, rates = trainer([*callbacks], epochs=2), Rates()
        run.fit(Toy(plateau))
        run.save_checkpoint(tmp_path / "two.ckpt")
        trainer([*callbacks, rates]).fit(Toy(plateau), ckpt_path=tmp_path / "two.ckpt")
        histories.append(rates.history)
    assert len(histories[0]) == len(histories[1]) == 8
    for users, ours in zip(*histories, strict=True):
        assert ours == {name: pytest.approx(rate * factor_of(name)) for name, rate in users.items()}


def test_a_checkpoint_loads_with_and_without_the_callback(tmp_path: Path) -> None:
    """The checkpoint has the user's form: the same run, half with the callback, in both orders."""
    for first, second in (([DiscriminativeLR(layer_decay=1.0)], []), ([], [DiscriminativeLR(layer_decay=1.0)])):
        whole, half = Toy(one_cycle), Toy(one_cycle)
        trainer([]).fit(whole)
        run = trainer(first, epochs=2)
        run.fit(half)
        run.save_checkpoint(tmp_path / "half.ckpt")
        again = Toy(one_cycle, seed=3)
        trainer(second).fit(again, ckpt_path=tmp_path / "half.ckpt")
        assert difference(whole, again) < 1e-6


def test_other_factors_than_the_checkpoints_are_said_aloud(tmp_path: Path) -> None:
    run = trainer([DiscriminativeLR(layer_decay=0.5)], epochs=1)
    run.fit(Toy())
    run.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.warns(UserWarning, match=r"blocks.0': 0.125.*blocks.0': 0.512"):
        trainer([DiscriminativeLR(layer_decay=0.8)], epochs=2).fit(Toy(), ckpt_path=tmp_path / "one.ckpt")


def test_a_second_fit_starts_clean_also_with_one_optimizer_object() -> None:
    module, rates, callback = Toy(), Rates(), DiscriminativeLR(layer_decay=0.5)
    optimizer = sgd(module)
    module.configure = lambda _: optimizer
    for _ in range(2):
        trainer([callback, rates], epochs=1).fit(module)
        assert len(optimizer.param_groups) == 1
        assert optimizer.param_groups[0]["lr"] == 0.1
    assert rates.history[0] == rates.history[-1]
    assert rates.history[0]["backbone.blocks.0.linear.weight"] == 0.0125


def test_a_failed_fit_gives_the_groups_back() -> None:
    module = Toy()
    optimizer = sgd(module)
    module.configure = lambda _: optimizer

    class Failing(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            assert len(optimizer.param_groups) == 4
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        trainer([DiscriminativeLR(), Failing()]).fit(module)
    assert len(optimizer.param_groups) == 1


def test_validate_test_and_predict_are_left_alone() -> None:
    module = Toy()
    before = copy_state(module)
    trainer([DiscriminativeLR()]).validate(module, verbose=False)
    assert not moved(before, module)


def test_two_optimizers_by_hand_are_each_split(recwarn: pytest.WarningsRecorder) -> None:
    class Manual(Toy):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer, scheduler in zip(self.optimizers(), self.lr_schedulers(), strict=True):
                optimizer.step()
                scheduler.step()

        def configure_optimizers(self) -> Any:
            body = torch.optim.SGD(self.backbone.parameters(), lr=0.1)
            head = torch.optim.Adam(self.head.parameters(), lr=0.3)
            return [body, head], [lr_scheduler.ExponentialLR(body, 0.5), lr_scheduler.ExponentialLR(head, 0.9)]

    rates = Rates()
    trainer([DiscriminativeLR(layer_decay=0.5), rates], epochs=1).fit(Manual())
    merged = [{**rates.history[index], **rates.history[index + 1]} for index in range(0, len(rates.history), 2)]
    assert len(merged) == 4
    for step, seen in enumerate(merged):
        for name, rate in seen.items():
            users = 0.3 * 0.9**step if name.startswith("head") else 0.1 * 0.5**step
            assert rate == pytest.approx(users * factor_of(name))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_rate_finder_works_and_its_rate_is_the_heads(frozen: bool, tmp_path: Path) -> None:
    class Tunable(Toy):  # type: ignore[misc, valid-type]
        lr = 1e-3

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    callbacks: list[Any] = [DiscriminativeLR(layer_decay=0.5), Rates()]
    if frozen:
        callbacks.append(BackboneFreezeUnfreeze({0: "all"}, verbose=False))
    module = Tunable()
    before = copy_state(module)
    run = trainer(callbacks, epochs=8, default_root_dir=tmp_path)
    finder = Tuner(run).lr_find(module, num_training=20, min_lr=1e-4, max_lr=1.0)
    assert len(finder.results["lr"]) >= 15
    assert not moved(before, module)
    run.fit(module)
    assert callbacks[1].history[-1] == {
        name: pytest.approx(module.lr * factor_of(name)) for name in callbacks[1].history[-1]
    }


def test_a_search_while_the_groups_are_split_uses_the_factors_and_puts_all_back(tmp_path: Path) -> None:
    class Late(Callback):
        """Lightning moves its own finder to the front, where nothing is split yet; this one stays behind."""

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            before = copy_state(pl_module)
            finder = LearningRateFinder(num_training_steps=20, min_lr=1e-4, max_lr=1.0, early_stop_threshold=None)
            finder.lr_find(trainer, pl_module)
            self.searched = len(pl_module.seen)
            self.changed = moved(before, pl_module)

    class Tunable(Toy):  # type: ignore[misc, valid-type]
        lr = 1e-3

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            super().optimizer_step(epoch, batch_idx, optimizer, closure)
            self.seen.append({group["name"]: group["lr"] for group in optimizer.param_groups})

    late, module = Late(), Tunable()
    trainer([DiscriminativeLR(layer_decay=0.5), late], epochs=8, default_root_dir=tmp_path).fit(module)
    assert late.searched == 20
    assert not late.changed
    for rates in module.seen:
        stem, head = (next(value for name, value in rates.items() if key in name) for key in ("blocks.0", "head"))
        assert stem == pytest.approx(head * 0.125)
    assert module.lr != 1e-3
    assert next(value for name, value in module.seen[-1].items() if "head" in name) == pytest.approx(module.lr)


def test_a_scheduler_made_after_the_split_is_said_aloud() -> None:
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    with pytest.warns(UserWarning, match="SWALR.*made after"):
        trainer([StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1), DiscriminativeLR()]).fit(Toy())


def test_an_optimizer_with_one_group_only_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="LBFGS"):
        trainer([DiscriminativeLR()]).fit(Toy(lambda module: torch.optim.LBFGS(module.parameters())))


def test_a_head_that_only_the_user_knows() -> None:
    net = torch.nn.ModuleDict(
        {
            "body": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
            "alpha": torch.nn.Linear(2, 2),
            "beta": torch.nn.Linear(2, 1),
        }
    )
    factors = DiscriminativeLR(layer_decay=0.5, backbone="body", head=["alpha", "beta"]).factors(net)
    assert list(factors.values()) == [0.25, 0.5, 1.0]
    inside = torch.nn.ModuleDict({"body": torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))})
    factors = DiscriminativeLR(layer_decay=0.5, backbone="body", head="body.2").factors(inside)
    assert list(factors.values()) == [0.25, 0.5, 1.0]
