"""The monitor in real fits: it must not be seen in the training, and what it reports must be true."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
from pathlib import Path

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_transfer.callbacks.forgetting_monitor import ForgettingMonitor
from lightning_transfer.metrics.forgetting import agreement
from tests.unit.callbacks.forgetting_toys import (
    PROBE,
    Crash,
    dataset,
    make_module,
    monitor,
    source_head,
    train,
)


def random_states():
    return torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64)), random.getstate()


# ---- it changes nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lib", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
@pytest.mark.parametrize("options", [{"every_n_steps": 1}, {"probe": "target"}, {"probe": "noise"}], ids=str)
def test_training_is_bitwise_the_same_with_and_without(tmp_path, lib, options):
    class Noisy(torch.utils.data.Dataset):
        """Draws from every global random state, as augmentations do."""

        def __len__(self):
            return 20

        def __getitem__(self, index):
            return torch.rand(3, 6, 6) + random.random() + np.random.rand(), index % 4

    options = {"probe": Noisy(), "head": source_head(), **options}
    _, plain = train(tmp_path, lib=lib, module=make_module(lib))
    states = random_states()
    callback = monitor(**options, metrics=("agreement", "kl", "cosine", "cka", "l2"))
    _, watched = train(tmp_path, callback, lib=lib, module=make_module(lib))
    assert len(callback.history) > 3
    assert any(reading.value != 0 for reading in callback.history[-1].readings.values())
    for (name, before), after in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(before, after), name
    for before, after in zip(states, random_states(), strict=True):
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after
    assert [m.training for m in plain.modules()] == [m.training for m in watched.modules()]


def test_beside_the_other_two_callbacks(tmp_path):
    from lightning_transfer.callbacks import BackboneFreezeUnfreeze, DiscriminativeLR

    weights = []
    for watcher in ([], [monitor(head=source_head(), every_n_steps=1)]):
        others = BackboneFreezeUnfreeze("gradual", backbone="backbone"), DiscriminativeLR(backbone="backbone")
        _, module = train(tmp_path, *others, *watcher, module=make_module())
        weights.append(module.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    values = [report.readings["forgetting_cka"].value for report in watcher[0].history]
    assert values[:4] == [0.0] * 4  # frozen for an epoch of three steps
    assert all(value > 0 for value in values[4:])


# ---- what it reads -------------------------------------------------------------------------------------------------


def test_step_zero_and_an_all_frozen_run_read_exactly_zero(tmp_path):
    callback = monitor(head=source_head(), metrics=("agreement", "kl", "cosine", "cka", "accuracy", "knn", "l2"))
    train(tmp_path, callback, module=make_module(frozen=True))
    assert [report.step for report in callback.history] == [0, 3, 6, 9]
    for report in callback.history:
        assert len(report.readings) == 7
        assert {reading.value for reading in report.readings.values()} == {0.0}, report
        assert {reading.low for reading in report.readings.values()} == {0.0}
    moving = monitor(head=source_head())
    train(tmp_path, moving)
    assert {reading.value for reading in moving.history[0].readings.values()} == {0.0}
    assert all(reading.value > 0 for reading in moving.history[-1].readings.values())


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
def test_reads_exactly_zero_in_the_trainers_precision(tmp_path, precision):
    callback = monitor(head=source_head())
    train(tmp_path, callback, module=make_module(frozen=True), precision=precision, max_epochs=2)
    assert {reading.value for report in callback.history for reading in report.readings.values()} == {0.0}


def test_last_reading_is_what_one_measures_by_hand(tmp_path):
    head, start = source_head(), make_module()
    callback = monitor(head=head, metrics=("agreement", "accuracy"))
    _, module = train(tmp_path, callback)
    inputs, target = PROBE.tensors
    with torch.no_grad():
        before, after = head(start.eval().backbone(inputs)), head(module.eval().backbone(inputs))
    lost = 1 - agreement(before, after)
    reading = callback.history[-1].readings["forgetting_agreement"]
    assert reading.value == pytest.approx(lost.mean().item())
    assert reading.low == pytest.approx(lost.mean().item() - 1.96 * lost.std().item() / 20**0.5)
    accuracy = [(logits.argmax(1) == target).double().mean().item() for logits in (before, after)]
    assert callback.history[-1].readings["forgetting_accuracy"].value == pytest.approx(accuracy[0] - accuracy[1])


def test_names_logs_and_scores(tmp_path):
    callback = monitor({"photos": PROBE, "grain": "noise"}, head="head", metrics=("agreement", "cosine"))
    logger = CSVLogger(tmp_path, name="logs", version=0)
    trainer, _ = train(tmp_path, callback, logger=logger, max_epochs=2, log_every_n_steps=100)
    keys = {
        "forgetting_photos_agreement",
        "forgetting_photos_cosine",
        "drift_grain_agreement",
        "drift_grain_cosine",
    }
    assert keys <= set(trainer.callback_metrics)
    assert set(callback.history[-1].readings) == keys
    assert set(callback.history[-1].scores) == {"train_loss", "val_loss"}
    lines = Path(logger.log_dir, "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("forgetting_photos_cosine")
    values = [line.split(",")[column] for line in lines[1:]]
    assert len([value for value in values if value]) == 3  # before training, and after each epoch
    unnamed = monitor(metrics=("cosine",))
    train(tmp_path, unnamed, max_epochs=1)
    assert set(unnamed.history[0].readings) == {"forgetting_cosine"}
    drift = monitor("target", metrics=("cosine",))
    train(tmp_path, drift, max_epochs=1)
    assert set(drift.history[0].readings) == {"drift_cosine"}


def test_another_callback_can_monitor_it(tmp_path):
    stopper = EarlyStopping("forgetting_cosine", mode="min", patience=1, check_on_train_epoch_end=True)
    trainer, _ = train(tmp_path, stopper, monitor(metrics=("cosine",)), max_epochs=6)
    assert trainer.current_epoch < 6


def test_without_head_it_says_so_once_and_measures_the_representation(tmp_path, caplog):
    callback = monitor()
    with caplog.at_level("INFO"):
        train(tmp_path, callback, max_epochs=2)
    said = [record.message for record in caplog.records if "no source head" in record.message]
    assert len(said) == 1
    assert "agreement, kl cannot" in said[0]
    assert set(callback.history[0].readings) == {"forgetting_cosine", "forgetting_cka"}


def test_summary_is_first_worst_last_and_cost(tmp_path, caplog):
    callback = monitor(metrics=("cosine",))
    with caplog.at_level("INFO"):
        train(tmp_path, callback, max_epochs=4)
    values = [report.readings["forgetting_cosine"].value for report in callback.history]
    found = callback.summary["metrics"]["forgetting_cosine"]
    assert (found["first"]["value"], found["last"]["value"]) == (values[1], values[-1])
    assert found["worst"]["value"] == max(values)
    assert 0 < callback.summary["cost_percent"] < 100
    curve = callback.summary["curve"]
    assert [point["forgetting"]["forgetting_cosine"] for point in curve] == values
    assert [set(point["scores"]) for point in curve] == [set(), *[{"train_loss", "val_loss"}] * 4]
    text = next(record.message for record in caplog.records if "% of the run" in record.message)
    assert f"worst {max(values):.4f}" in text


# ---- cadence -------------------------------------------------------------------------------------------------------


def test_cadence_and_final_check(tmp_path):
    by_epoch = monitor(every_n_epochs=2)
    train(tmp_path, by_epoch, max_epochs=5)
    assert [report.step for report in by_epoch.history] == [0, 6, 12, 15]
    by_step = monitor(every_n_steps=4)
    train(tmp_path, by_step, max_epochs=4, accumulate_grad_batches=1)
    assert [report.step for report in by_step.history] == [0, 4, 8, 12]
    accumulated = monitor(every_n_steps=1)
    train(tmp_path, accumulated, max_epochs=1, accumulate_grad_batches=2)
    assert [report.step for report in accumulated.history] == [0, 1, 2]


def test_max_overhead_is_decided_once_and_saved(tmp_path):
    callback = monitor(max_overhead=1e-7)
    saver = ModelCheckpoint(tmp_path, save_last=True)
    train(tmp_path, callback, saver, enable_checkpointing=True)
    assert [report.step for report in callback.history] == [0, 9]
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["ForgettingMonitor"]
    assert saved["stretch"] == callback._cadence.stretch > 1


# ---- the life of the callback --------------------------------------------------------------------------------------


def test_second_fit_starts_clean_also_after_a_failure(tmp_path):
    callback = monitor()
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, callback, Crash(1))
    assert len(callback.history) == 2
    _, module = train(tmp_path, callback, max_epochs=2)
    first = [report.readings for report in callback.history]
    assert [report.step for report in callback.history] == [0, 3, 6]
    train(tmp_path, callback, module=module, max_epochs=2)
    assert {reading.value for reading in callback.history[0].readings.values()} == {0.0}
    assert [report.readings for report in callback.history] != first
    assert not module.backbone._forward_pre_hooks
    assert callback._meter is None


def test_acts_in_fit_only(tmp_path):
    callback = monitor()
    trainer, module = train(tmp_path, callback, max_epochs=1)
    before = list(callback.history)
    trainer.validate(module, DataLoader(dataset(), batch_size=8), verbose=False)
    assert callback.history == before


def test_defaults_are_part_of_the_contract():
    parameters = inspect.signature(ForgettingMonitor).parameters
    assert {name: item.default for name, item in parameters.items() if name != "probe"} == {
        "head": None,
        "feature_fn": None,
        "metrics": ("agreement", "kl", "cosine", "cka"),
        "backbone": None,
        "downstream_head": None,
        "n_probe": 512,
        "every_n_epochs": 1,
        "every_n_steps": None,
        "max_overhead": 0.05,
        "tolerance": None,
        "confirm": 2,
        "on_alarm": "log",
        "monitor": None,
        "mode": "min",
    }


def test_pickles_and_copies():
    callback = pickle.loads(pickle.dumps(monitor(head=source_head())))  # noqa: S301
    assert copy.deepcopy(callback).n_probe == 512


def test_fast_dev_run_writes_nothing(tmp_path):
    train(tmp_path, monitor(), fast_dev_run=True, enable_checkpointing=True)
    assert not list(tmp_path.rglob("forgetting*"))


def test_with_the_learning_rate_finder(tmp_path):
    finder = LearningRateFinder(num_training_steps=4, max_lr=0.01)
    callback = monitor()
    train(tmp_path, finder, callback, max_epochs=2)
    assert callback.history[0].step == 0
    assert {reading.value for reading in callback.history[0].readings.values()} == {0.0}


def test_randomness_in_eval_mode_is_said(tmp_path):
    def feature_fn(module, batch):
        features = module.backbone(batch[0])
        return features + 0.1 * torch.randn(features.shape, generator=generator)

    generator = torch.Generator().manual_seed(0)
    with pytest.warns(UserWarning, match="random in eval mode"):
        train(tmp_path, monitor(feature_fn=feature_fn), max_epochs=1)


def test_tolerance_of_what_cannot_be_shown(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"forgetting_cka.*do not vary"):
        train(tmp_path, monitor(TensorDataset(torch.ones(6, 3, 6, 6)), tolerance={"cka": 0.1}))


class Plain(nn.Module):
    """A network of one's own with its classifier inside: nothing in it says what is new."""

    def __init__(self):
        super().__init__()
        self.stem, self.middle, self.top = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.top(self.middle(self.stem(x).relu()).relu())


class Inside(lightning.pytorch.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = Plain()

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("backbone", ["net", None])
def test_a_project_that_must_name_its_new_head(tmp_path, backbone):
    from lightning_transfer.callbacks import BackboneFreezeUnfreeze
    from tests.unit.callbacks.callback_toys import loader

    def fit(callback):
        module = Inside()
        freezing = BackboneFreezeUnfreeze("feature_extraction", backbone="net", head="net.top", verbose=False)
        lightning.pytorch.Trainer(
            max_epochs=2,
            accelerator="cpu",
            callbacks=[freezing, callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(tmp_path),
        ).fit(module, loader())
        return module

    probe = TensorDataset(torch.randn(12, 6, generator=torch.Generator().manual_seed(3)))
    if backbone is None:
        with pytest.raises(MisconfigurationException, match=r"`head` is the source task's: pass `downstream_head="):
            fit(monitor(probe, backbone=None))
    named = monitor(probe, backbone=backbone, downstream_head="net.top", metrics=("l2",))
    fit(named)
    # The features are what enters the new head, and they are frozen; the logits after it have moved.
    assert {report.readings["forgetting_l2"].value for report in named.history} == {0.0}
    logits = monitor(probe, backbone="net", metrics=("l2",))
    fit(logits)
    assert logits.history[-1].readings["forgetting_l2"].value > 0


def test_a_new_head_that_is_not_there(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"`hed`"):
        train(tmp_path, monitor(downstream_head="hed"))
