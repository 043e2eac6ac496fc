"""The cached run against the run that reads its inputs: losses, weights, order; and when it must not be used."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import nn

from lightning_transfer.callbacks import BackboneFreezeUnfreeze, FeatureCache, ForgettingMonitor
from tests.unit.callbacks.cache_domains import Masked, Sounds, make_recogniser, make_segmenter
from tests.unit.callbacks.cache_toys import Losses, Pictures, make_module, run


def worst(one: list[float], other: list[float]) -> float:
    """Return the largest difference, relative where numbers are above 1."""
    assert len(one) == len(other) > 0
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in zip(one, other, strict=True))


def same(plain: tuple[Any, Losses, Any], cached: tuple[Any, Losses, Any], bound: float) -> None:
    """Compare every training loss, every validation loss, what was drawn, and the weights at the end."""
    (one, a, _), (other, b, _) = plain, cached
    assert a.index == b.index
    assert worst(a.train, b.train) <= bound
    assert worst(a.val, b.val) <= bound
    for name, value in one.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, other.state_dict()[name], rtol=0, atol=20 * bound), name
        else:
            assert torch.equal(value, other.state_dict()[name]), name


DATA: dict[str, dict[str, Any]] = {
    "a last batch of one is left out": {},
    "a smaller last batch": {"batch_size": 6},
    "one batch": {"batch_size": 64},
    "weighted": {"sampler": "weighted"},
}


@pytest.mark.parametrize("data", DATA, ids=str)
def test_losses_of_the_frozen_stage_are_the_same(tmp_path: Path, data: str) -> None:
    """Float32, no augmentation: 1e-6; every batch is made from the cache, and each file is read once."""
    plain = run(tmp_path, None, data=Pictures(**DATA[data]))
    cached = run(tmp_path, FeatureCache("always"), data=Pictures(**DATA[data]))
    same(plain, cached, 1e-6)
    assert all(cached[1].cached)
    items = len(cached[2].records_for("train")) + len(cached[2].records_for("val"))
    # Two more are looked at to find the cut, in a batch and alone, and one of each split is read twice.
    assert cached[1].loads == [items + 4 + 4] * 4


@pytest.mark.parametrize("schedule", [{0: 1}, {0: 0, 2: 1}], ids=str)
def test_losses_behind_a_cut_in_the_middle_are_the_same(tmp_path: Path, schedule: Any) -> None:
    cached = run(tmp_path, FeatureCache("always"), schedule=schedule)
    same(run(tmp_path, None, schedule=schedule), cached, 1e-6)
    assert all(cached[1].cached)


@pytest.mark.parametrize("schedule", ["lp_ft", "gradual", {0: 0, 2: 1, 4: "all"}, {0: 3, 4: 5}], ids=str)
def test_a_whole_run_is_the_same_to_the_last_bit_of_double_precision(tmp_path: Path, schedule: Any) -> None:
    """Training with open norms doubles a rounding error in a few steps: float32 would show that and nothing else."""
    options = {"schedule": schedule, "epochs": 6, "precision": "64-true"}
    plain, cached = run(tmp_path, None, **options), run(tmp_path, FeatureCache(min_epochs=1), **options)
    same(plain, cached, 1e-12)
    assert any(cached[1].cached)
    assert not all(cached[1].cached)


@pytest.mark.parametrize("schedule", ["feature_extraction", {0: 1}, {0: 0, 2: 1}], ids=str)
@pytest.mark.parametrize("budget", [None, 120.0], ids=["by length", "within a budget"])
def test_speech_of_unequal_length_is_the_same(tmp_path: Path, schedule: Any, budget: float | None) -> None:
    pytest.importorskip("transformers")
    options: dict[str, Any] = {"schedule": schedule, "epochs": 4}
    plain = run(tmp_path, None, module=make_recogniser(), data=Sounds(budget=budget), **options)
    cached = run(tmp_path, FeatureCache("always"), module=make_recogniser(), data=Sounds(budget=budget), **options)
    same(plain, cached, 1e-6)
    assert all(cached[1].cached)
    for key in ("val_wer", "val_cer"):
        assert plain[0].trainer.callback_metrics[key] == cached[0].trainer.callback_metrics[key]


@pytest.mark.parametrize("schedule", ["feature_extraction", {0: 2}], ids=str)
@pytest.mark.parametrize("flips", [False, True])
def test_masks_pass_unchanged(tmp_path: Path, schedule: Any, flips: bool) -> None:
    """In double precision; with flips the oracle is a run on the same views, so that picture and mask must agree."""
    seen: list[torch.Tensor] = []

    class Keep(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch.target.clone())

    options: dict[str, Any] = {"schedule": schedule, "precision": "64-true", "more": [Keep()], "epochs": 3}
    cache = FeatureCache("always", views=2 if flips else None)
    cached = run(tmp_path, cache, module=make_segmenter(), data=Masked(flips=flips), **options)
    targets, seen = seen, []
    data = Masked(flips=flips)
    if flips:
        data.__class__ = Views
    plain = run(tmp_path, None, module=make_segmenter(), data=data, **{**options, "more": [Keep()]})
    same(plain, cached, 1e-9)
    assert all(torch.equal(one, other) for one, other in zip(targets, seen, strict=True))
    assert int(targets[0].min()) == -100


class Views(Masked):
    """Changes an input as the view does that the cache would choose for the sampler's seed."""

    def load_pair(self, record: Any, generator: torch.Generator | None) -> Any:
        if generator is not None:
            item = next(n for n, row in enumerate(self.rows) if row.id == record.id)
            generator = torch.Generator().manual_seed(2 * item + generator.initial_seed() % 2)
        return super().load_pair(record, generator)

    def train_dataloader(self) -> Any:
        self.rows = self.records_for("train")
        return super().train_dataloader()


def test_views_are_chosen_by_seed_and_epoch(tmp_path: Path) -> None:
    cached = run(tmp_path, FeatureCache("always", views=3), data=Pictures(flips=True))
    again = run(tmp_path, FeatureCache("always", views=3), data=Pictures(flips=True))
    assert cached[1].train == again[1].train
    train, val = (len(cached[2].records_for(name)) for name in ("train", "val"))
    assert cached[1].loads[-1] - 8 == 3 * train + val
    other = run(tmp_path, FeatureCache("always", views=1), data=Pictures(flips=True))
    assert other[1].train != cached[1].train


@pytest.mark.parametrize("where", ["memory", "files", "shared"])
@pytest.mark.parametrize("dtype", [None, "float16"])
def test_where_it_lies_and_what_is_left(tmp_path: Path, where: str, dtype: Any) -> None:
    folder = tmp_path / "shared" if where == "shared" else None
    options = {"folder": None if folder is None else str(folder), "memory_limit": 0.0 if where == "files" else 1.0}
    cached = run(tmp_path / "run", FeatureCache("always", dtype=dtype, **options))
    same(run(tmp_path / "plain", None), cached, 1e-6 if dtype is None else 2e-3)
    assert not (tmp_path / "run" / "feature_cache").exists()
    if folder is None:
        return
    # The second run of the same weights and data reads nothing but the items by which the cut is found.
    again = run(tmp_path / "run", FeatureCache("always", dtype=dtype, folder=str(folder)))
    assert again[1].train == cached[1].train
    assert again[1].loads[-1] == 8
    assert len(list(folder.iterdir())) == 2
    # One damaged file, and that split is run again.
    next(iter(sorted(folder.glob("*/part-0-of-1/0.bin")))).write_bytes(b"")
    mended = run(tmp_path / "run", FeatureCache("always", dtype=dtype, folder=str(folder)))
    assert mended[1].train == cached[1].train
    assert mended[1].loads[-1] > 8


class Stop(Callback):
    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(Path(trainer.default_root_dir, "stopped.ckpt"))
            raise RuntimeError("stopped")


@pytest.mark.parametrize("at", [(0, 2), (1, 3), (2, 1), (3, 0), (4, 3)], ids=str)
def test_a_fit_resumed_anywhere_is_the_uninterrupted_one(tmp_path: Path, at: tuple[int, int]) -> None:
    """The stages of {0: 0, 2: 1, 4: all} are the whole backbone, a cut in the middle, and the inputs."""
    options: dict[str, Any] = {"schedule": {0: 0, 2: 1, 4: "all"}, "epochs": 5, "precision": "64-true"}

    def module() -> Any:
        return make_module().double()  # Lightning reads a checkpoint before it converts the module

    whole = run(tmp_path, None, module=module(), **options)
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path, FeatureCache("always"), module=module(), more=[Stop(*at)], **options)
    resumed = run(tmp_path, FeatureCache(), module=module(), ckpt_path=tmp_path / "stopped.ckpt", **options)
    done = at[0] * 5 + at[1] + 1
    assert worst(whole[1].train[done:], resumed[1].train) <= 1e-12
    for name, value in whole[0].state_dict().items():
        assert torch.allclose(value.double(), resumed[0].state_dict()[name].double(), rtol=0, atol=1e-10), name


def test_a_resumed_fit_is_bit_by_bit_that_of_the_same_cache(tmp_path: Path) -> None:
    whole = run(tmp_path, FeatureCache("always"))
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path, FeatureCache("always"), more=[Stop(2, 1)])
    resumed = run(tmp_path, FeatureCache("always"), ckpt_path=tmp_path / "stopped.ckpt")
    assert all(torch.equal(v, resumed[0].state_dict()[n]) for n, v in whole[0].state_dict().items())


def test_folding_differs_by_its_bound(tmp_path: Path) -> None:
    plain = run(tmp_path, None, epochs=2)
    folded = run(tmp_path, FeatureCache("always", fold_batchnorm=True), epochs=2)
    assert 0 < worst(plain[1].train, folded[1].train) <= 1e-5
    deeper = run(tmp_path, FeatureCache("always", fold_batchnorm=True), schedule={0: 1}, epochs=2)
    assert worst(run(tmp_path, None, schedule={0: 1}, epochs=2)[1].train, deeper[1].train) <= 1e-4


def test_the_global_random_state_stands_still(tmp_path: Path) -> None:
    states = []

    class State(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            states.append(torch.get_rng_state())

    run(tmp_path, None, more=[State()], epochs=2)
    plain, states = states, []
    run(tmp_path, FeatureCache("always"), more=[State()], epochs=2)
    assert all(torch.equal(one, other) for one, other in zip(plain, states, strict=True))


def test_after_the_fit_everything_is_as_before(tmp_path: Path) -> None:
    cache = FeatureCache("always")
    module, _, data = run(tmp_path, cache, epochs=2)
    assert module.cut is None
    assert cache.cut is None
    assert not any("forward" in part.__dict__ for part in module.modules())
    batch = next(iter(data.val_dataloader()))
    assert isinstance(batch.input, torch.Tensor)
    # A failed fit too; the second fit in the same process starts clean.
    with pytest.raises(RuntimeError, match="stopped"):
        run(tmp_path, cache, module=module, more=[Stop(0, 1)])
    assert module.cut is None
    assert len(run(tmp_path, cache, module=module, epochs=2)[1].train) == 10


SAYS: dict[str, tuple[dict[str, Any], str]] = {
    "all open": ({"schedule": "full"}, "all 5 layer groups train"),
    "one epoch": ({"epochs": 1}, "1 epoch is left, and running the frozen layers once for all pays from 2 on"),
    "each epoch another": (
        {"schedule": {0: 0, 1: "all"}}, "no layer group stays frozen for 2 epochs more"
    ),
    "few batches": ({"limit_train_batches": 1, "epochs": 3}, "pays from 6 on"),
    "flips": ({"data": {"flips": True}}, r"changed at random in each epoch; .*`FeatureCache\(views=4\)`"),
    "train_bn": ({"freeze": {"train_bn": True}}, r"`backbone\.conv1\.1\.weight` of the frozen group `stem` trains"),
    "reload": ({"reload_dataloaders_every_n_epochs": 1}, "`reload_dataloaders_every_n_epochs=1` makes other data"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAYS)
def test_why_nothing_is_kept_is_said_in_one_line(tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture) -> None:
    options, expected = SAYS[case]
    options = {**options}
    data = options.pop("data", {})
    caplog.set_level(logging.INFO)
    _, losses, _ = run(tmp_path, FeatureCache(), data=Pictures(**data), **options)
    assert not any(losses.cached)
    said = [record.message for record in caplog.records if "FeatureCache" in record.message]
    assert len(said) == 1
    assert said[0].startswith("FeatureCache: not used: ")
    assert re.search(expected, said[0])
    with pytest.raises(MisconfigurationException, match=r"`FeatureCache\(when='always'\)` keeps nothing: "):
        run(tmp_path, FeatureCache("always"), data=Pictures(**data), **options)


def test_what_was_frozen_by_hand_is_kept_if_it_is_in_eval_mode(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    module = make_module()
    module.backbone.requires_grad_(False)
    assert not any(run(tmp_path, FeatureCache(), module=module, schedule=None)[1].cached)
    assert "is in train mode; freeze with `BackboneFreezeUnfreeze`, or call its `eval()`" in caplog.text

    class Hold(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.backbone.eval()

        on_train_start = on_train_epoch_start

    class First(FeatureCache):
        """After `Hold`, which a list of the toys puts behind."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.backbone.eval()
            super().on_train_start(trainer, pl_module)

    module = make_module()
    module.backbone.requires_grad_(False)
    _, losses, _ = run(tmp_path, First("always"), module=module, schedule=None, more=[Hold()])
    assert all(losses.cached)


def test_an_order_that_would_know_the_stage_too_late_is_refused(tmp_path: Path) -> None:
    freeze = BackboneFreezeUnfreeze(verbose=False)
    with pytest.raises(MisconfigurationException, match="stands before `BackboneFreezeUnfreeze`"):
        run(tmp_path, FeatureCache(), schedule=None, more=[freeze])


def test_a_layer_opened_by_other_code_within_an_epoch_stops_the_fit(tmp_path: Path) -> None:
    class Open(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            pl_module.backbone.layer4.requires_grad_(True)

    with pytest.raises(MisconfigurationException, match=r"opened in the middle of epoch 0.*`cache_features: never`"):
        run(tmp_path, FeatureCache(), schedule="feature_extraction", more=[Open()])


def test_weights_that_other_code_changes_end_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Change(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                with torch.no_grad():
                    pl_module.backbone.layer1[0].conv1.weight.mul_(1.5)

    caplog.set_level(logging.INFO)
    options: dict[str, Any] = {"more": [Change()], "precision": "64-true", "epochs": 5}
    same(run(tmp_path, None, **options), run(tmp_path, FeatureCache("always"), **options), 1e-12)
    assert "epoch 1: weights before the cut have changed: back to the inputs." in caplog.text


def test_a_validation_with_other_weights_reads_its_inputs(tmp_path: Path) -> None:
    """Mixing of weights at the end of a fit validates with callbacks taken out: nobody could tell the cache."""
    seen: list[str] = []

    class Mix(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            weight = pl_module.backbone.layer1[0].conv1.weight
            before = weight.detach().clone()
            for factor in (1.0, 0.5, 1.0):
                with torch.no_grad():
                    weight.copy_(factor * before)
                seen.append(type(next(iter(trainer.val_dataloaders)).input).__name__)
                seen.append(type(next(iter(trainer.train_dataloader)).input).__name__)

    class Late(FeatureCache):
        """Lets the mixing come first, as a monitor that stands before it in the list."""

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            Mix().on_train_end(trainer, pl_module)
            super().on_train_end(trainer, pl_module)

    run(tmp_path, Late("always"), epochs=2)
    assert seen == ["Activations", "Activations", "Tensor", "Tensor", "Activations", "Activations"]


def test_steps_of_a_schedule_end_the_cache_in_time(tmp_path: Path) -> None:
    """12 steps are two epochs and two batches of five: the third epoch must read its inputs from the begin."""
    options: dict[str, Any] = {
        "schedule": {0: 0, 12: 1}, "freeze": {"unit": "step"}, "epochs": 6, "precision": "64-true"
    }  # fmt: skip
    cached = run(tmp_path, FeatureCache("always"), **options)
    same(run(tmp_path, None, **options), cached, 1e-12)
    assert cached[1].cached == [True] * 30
    shorter = run(tmp_path, FeatureCache("always", min_epochs=4), **options)
    assert shorter[1].cached == [True] * 30


def test_stages_that_a_metric_opens_are_kept_for_as_long_as_is_sure(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "schedule": "gradual", "freeze": {"monitor": "val_loss", "mode": "max", "patience": 2}, "epochs": 8,
        "precision": "64-true",
    }  # fmt: skip
    cached = run(tmp_path, FeatureCache("always"), **options)
    same(run(tmp_path, None, **options), cached, 1e-12)
    assert sum(cached[1].cached) >= 15


@pytest.mark.parametrize("kind", ["averaging", "monitor", "checkpoint"])
def test_other_callbacks_see_what_they_would_see(tmp_path: Path, kind: str) -> None:
    def more() -> list[Any]:
        if kind == "averaging":
            return [WeightAveraging()]
        if kind == "monitor":
            return [ForgettingMonitor("target", head=None, max_overhead=None)]
        return [ModelCheckpoint(tmp_path / "ckpt", monitor="val_loss")]

    options: dict[str, Any] = {"schedule": {0: 0, 2: 1}, "precision": "64-true"}
    enabled = {"enable_checkpointing": True} if kind == "checkpoint" else {}
    plain = run(tmp_path, None, more=more(), **options, **enabled)
    cached = run(tmp_path, FeatureCache("always"), more=more(), **options, **enabled)
    same(plain, cached, 1e-12)
    for name, value in plain[0].trainer.callback_metrics.items():
        assert float(cached[0].trainer.callback_metrics[name]) == pytest.approx(float(value), abs=1e-9), name
    assert all(cached[1].cached)


def test_limits_refuse_with_the_size_and_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(tmp_path, FeatureCache(disk_limit=1e-6), epochs=2)
    assert "48 items take about 0.0 MB, past `disk_limit` of 0.0 MB; halve them with `dtype='float16'`" in caplog.text


def test_a_plan_says_what_will_be_kept(tmp_path: Path) -> None:
    said: list[str] = []

    class Ask(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            trainer.fit_loop.setup_data()
            said.extend(cache.plan(trainer, pl_module))

    cache = FeatureCache()
    run(tmp_path, cache, schedule={0: 0, 3: 1, 6: "all"}, epochs=7, more=[Ask()])
    assert said[0].startswith(
        "Feature cache: epochs 0 to 2 on the features of the whole backbone, about 0.0 MB in memory"
    )
    assert said[1].startswith("Feature cache: epochs 3 to 5 on the output of `layer3`, about 0.1 MB in memory")
    said.clear()
    run(tmp_path, cache, schedule="full", epochs=2, more=[Ask()])
    assert said == ["Feature cache: not used, all 5 layer groups train."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"when": "yes"}, "Expected `when` to be 'auto', 'always' or 'never', got 'yes'"),
        ({"views": 0}, "Expected `views` of at least 1 or None, got 0"),
        ({"dtype": "int8"}, "Expected `dtype` 'float16', 'bfloat16' or None, got 'int8'"),
        ({"memory_limit": -1.0}, "Expected `memory_limit` of at least 0 gigabytes, got -1"),
        ({"min_epochs": 0}, "Expected `min_epochs` of at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureCache(**arguments)


def test_never_does_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert not any(run(tmp_path, FeatureCache("never"), epochs=2)[1].cached)
    assert "FeatureCache" not in caplog.text
    assert FeatureCache("never").plan(None, nn.Identity()) == ["Feature cache: off"]  # type: ignore[arg-type]
