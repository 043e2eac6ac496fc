"""The monitor in real fits: it must not be seen in the training, and what it reports must be true."""

from __future__ import annotations

import copy
import inspect
import pickle
import random
import warnings
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
from lightning_transfer.errors import CheckpointError
from lightning_transfer.metrics.forgetting import agreement

warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.3)

    def forward(self, x):
        return self.drop(self.norm(self.conv(x)).relu()).mean((2, 3))


def make_module(lib=lightning.pytorch, lr=0.05, frozen=False, optimizer=torch.optim.AdamW):
    class Module(lib.LightningModule):
        def __init__(self):
            super().__init__()
            self.lr = lr
            self.backbone = Network()
            self.head = nn.Linear(8, 3)
            if frozen:
                self.backbone.requires_grad_(False)

        def training_step(self, batch, batch_idx):
            if frozen:
                self.backbone.eval()
            loss = nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1]))

        def configure_optimizers(self):
            return optimizer(self.parameters(), lr=self.lr)

    torch.manual_seed(0)
    return Module()


def dataset(n=24, seed=1, classes=3):
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % classes
    return TensorDataset(torch.randn(n, 3, 6, 6, generator=generator) + target[:, None, None, None], target)


def source_head(classes=4):
    torch.manual_seed(7)
    return nn.Linear(8, classes).requires_grad_(False)


PROBE = dataset(n=20, seed=2)


def train(tmp_path, *callbacks, module=None, lib=lightning.pytorch, ckpt_path=None, max_epochs=3, **trainer_options):
    module = make_module(lib) if module is None else module
    options = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path),
        **trainer_options,
    }
    trainer = lib.Trainer(max_epochs=max_epochs, callbacks=list(callbacks), **options)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    train_loader = DataLoader(dataset(), batch_size=8, shuffle=True)
    trainer.fit(module, train_loader, DataLoader(dataset(12, 5), batch_size=6), ckpt_path=ckpt_path)
    return trainer, module


def monitor(probe=PROBE, **options):
    return ForgettingMonitor(probe, **{"max_overhead": None, "backbone": "backbone", **options})


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


# ---- alarms --------------------------------------------------------------------------------------------------------


def test_log_only_warns(tmp_path):
    callback = monitor(tolerance={"cosine": 0.0}, confirm=2)
    with pytest.warns(UserWarning, match="step 6: forgetting_cosine is .* tolerance 0, in 2 checks in a row"):
        trainer, _ = train(tmp_path, callback)
    assert [report.alarms for report in callback.history] == [(), (), ("forgetting_cosine",), ()]
    assert trainer.global_step == 9


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_stop_after_confirmed_checks(tmp_path):
    callback = monitor(tolerance={"cosine": 0.0}, confirm=2, on_alarm="stop")
    trainer, _ = train(tmp_path, callback, max_epochs=8)
    assert trainer.current_epoch == 2
    tolerant = monitor(tolerance={"cosine": 1.9}, confirm=1, on_alarm="stop")
    trainer, _ = train(tmp_path, tolerant)
    assert trainer.current_epoch == 3


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_callable_gets_trainer_module_and_report(tmp_path):
    calls = []
    callback = monitor(tolerance={"cosine": 0.0}, confirm=1, on_alarm=lambda *given: calls.append(given))
    trainer, module = train(tmp_path, callback, max_epochs=2)
    assert len(calls) == 1
    assert calls[0][:2] == (trainer, module)
    assert calls[0][2] is callback.history[1]


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_rollback_restores_weights_and_optimizer_state_of_the_last_good_check(tmp_path):
    """The second epoch is made harmful; after it the run must stand where the first epoch ended."""
    kept = {}

    class Spoil(lightning.pytorch.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                kept["weights"] = copy.deepcopy(pl_module.state_dict())
                kept["optimizer"] = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
                with torch.no_grad():
                    pl_module.backbone.conv.weight.mul_(-3)

        def on_train_epoch_end(self, trainer, pl_module):
            trainer.optimizers[0].param_groups[0]["lr"] = 0.01 * (trainer.current_epoch + 1)

    class Look(lightning.pytorch.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                kept["after"] = copy.deepcopy(pl_module.state_dict())
                kept["state"] = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
                kept["lr"] = trainer.optimizers[0].param_groups[0]["lr"]

    callback = monitor(tolerance={"cosine": 0.2}, confirm=1, on_alarm="rollback")
    trainer, _ = train(tmp_path, Spoil(), callback, Look(), module=make_module(lr=1e-4))
    assert [bool(report.alarms) for report in callback.history] == [False, False, True, False]
    for name, value in kept["weights"].items():
        assert torch.equal(value, kept["after"][name]), name
    assert kept["optimizer"].keys() == kept["state"].keys()
    for index, state in kept["optimizer"].items():
        for key, value in state.items():
            assert torch.equal(value, kept["state"][index][key]), (index, key)
    assert kept["lr"] == 0.02  # the schedule goes on
    assert trainer.global_step == 9
    assert not list(tmp_path.rglob("forgetting_last_good*"))


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_rollback_twice_without_a_good_check_stops(tmp_path):
    start = make_module()
    callback = monitor(tolerance={"cosine": 0.0}, confirm=1, on_alarm="rollback")
    trainer, module = train(tmp_path, callback, max_epochs=8)
    assert trainer.current_epoch == 2
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in start.state_dict().items())
    assert callback.summary["metrics"]["forgetting_cosine"]["last"]["value"] == 0.0


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_a_proxy_beside_source_data_warns_but_does_not_act(tmp_path):
    class Still(ForgettingMonitor):
        def _act(self, trainer, module, report):
            raise AssertionError

    probes = {"photos": TensorDataset(torch.zeros(6, 3, 6, 6)), "grain": "noise"}
    callback = Still(
        probes,
        backbone="backbone",
        metrics=("l2",),
        tolerance={"l2": 0.0},
        confirm=1,
        on_alarm="stop",
        max_overhead=None,
    )
    module = make_module()
    module.backbone.conv.bias.requires_grad_(False)
    module.backbone.norm.requires_grad_(False).eval()
    module.backbone.norm.train = lambda mode: module.backbone.norm  # images of zeros are not affected by the weights
    trainer, _ = train(tmp_path, callback, module=module)
    assert callback.history[1].alarms == ("drift_grain_l2",)
    assert trainer.current_epoch == 3


@pytest.mark.parametrize("action", ["refreeze", "interpolate"])
def test_actions_that_do_not_exist_yet_are_refused(tmp_path, action):
    callback = monitor(tolerance={"cosine": 0.1}, on_alarm=action)
    with pytest.raises(MisconfigurationException, match=f"{action}.* not available.*'rollback'"):
        train(tmp_path, callback)


# ---- checkpoints ---------------------------------------------------------------------------------------------------


class Crash(lightning.pytorch.Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt("crash")


def interrupted(tmp_path, **options):
    folder = tmp_path / "first"
    callback = monitor(head=source_head(), **options)
    saver = ModelCheckpoint(folder, save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, callback, saver, Crash(2), enable_checkpointing=True, max_epochs=4)
    return folder / "last.ckpt"


def test_crash_and_resume_read_the_same_as_the_uninterrupted_run(tmp_path):
    ckpt = interrupted(tmp_path)
    resumed = monitor(head=source_head())
    train(
        tmp_path, resumed, ModelCheckpoint(tmp_path / "second"), enable_checkpointing=True, ckpt_path=ckpt, max_epochs=4
    )
    # The same data order as after the resume, but without a resume of the monitor: the reference is the first one.
    start, (_, module) = make_module(), train(tmp_path, ckpt_path=ckpt, max_epochs=4)
    inputs = PROBE.tensors[0]
    with torch.no_grad():
        before, after = start.eval().backbone(inputs), module.eval().backbone(inputs)
    expected = 1 - nn.functional.cosine_similarity(before.double(), after.double()).mean().item()
    assert [report.step for report in resumed.history] == [0, 3, 6, 9, 12]
    assert resumed.history[-1].readings["forgetting_cosine"].value == pytest.approx(expected, abs=1e-9)
    names = [{path.name for path in (tmp_path / item).glob("*.safetensors")} for item in ("first", "second")]
    assert names[0] == names[1]
    assert len(names[0]) == 1


def test_a_moved_run_folder_still_resumes(tmp_path):
    ckpt = interrupted(tmp_path)
    moved = tmp_path / "elsewhere"
    ckpt.parent.rename(moved)
    resumed = monitor(head=source_head())
    train(tmp_path, resumed, ckpt_path=moved / "last.ckpt", max_epochs=3)
    assert len(resumed.history) == 4


def test_state_is_plain(tmp_path):
    ckpt = interrupted(tmp_path)
    state = torch.load(ckpt, weights_only=True)["callbacks"]["ForgettingMonitor"]
    assert state["reference"] == f"forgetting_reference-{state['sha256'][:12]}.safetensors"
    assert (ckpt.parent / state["reference"]).is_file()


def test_missing_changed_or_other_reference_is_an_error(tmp_path):
    ckpt = interrupted(tmp_path)
    reference = next(ckpt.parent.glob("*.safetensors"))
    with pytest.raises(CheckpointError, match="not those that the reference"):
        train(tmp_path, monitor(dataset(20, 99), head=source_head()), ckpt_path=ckpt)
    with pytest.raises(CheckpointError, match="no probe `photos`"):
        train(tmp_path, monitor({"photos": PROBE}, head=source_head()), ckpt_path=ckpt)
    content = reference.read_bytes()
    reference.write_bytes(content[:-1] + b"\0")
    with pytest.raises(CheckpointError, match="has changed"):
        train(tmp_path, monitor(head=source_head()), ckpt_path=ckpt)
    reference.unlink()
    with pytest.raises(CheckpointError, match=f"{reference.name}.*is missing"):
        train(tmp_path, monitor(head=source_head()), ckpt_path=ckpt)


def test_a_run_that_was_not_watched_is_not_resumed(tmp_path):
    saver = ModelCheckpoint(tmp_path / "plain", save_last=True)
    train(tmp_path, saver, enable_checkpointing=True, max_epochs=1)
    with pytest.raises(CheckpointError, match=r"last\.ckpt holds no state of ForgettingMonitor"):
        train(tmp_path, monitor(), ckpt_path=tmp_path / "plain" / "last.ckpt")


@pytest.mark.filterwarnings("ignore:ForgettingMonitor")
def test_rollback_after_resume(tmp_path):
    options = {"tolerance": {"cosine": 0.0}, "confirm": 3, "on_alarm": "rollback"}
    ckpt = interrupted(tmp_path, **options)
    start = make_module()
    resumed = monitor(head=source_head(), **options)
    # Two strikes were saved, the third is the alarm; the good weights are those from before training.
    _, module = train(tmp_path, resumed, ckpt_path=ckpt, max_epochs=3)
    assert [bool(report.alarms) for report in resumed.history[:4]] == [False, False, False, True]
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in start.state_dict().items())
    next(ckpt.parent.glob("forgetting_last_good*")).unlink()
    with pytest.raises(CheckpointError, match=r"last good weights, `forgetting_last_good.*are missing"):
        train(tmp_path, monitor(head=source_head(), **options), ckpt_path=ckpt, max_epochs=3)


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
    assert callback._probes == []


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
        "n_probe": 512,
        "every_n_epochs": 1,
        "every_n_steps": None,
        "max_overhead": 0.05,
        "tolerance": None,
        "confirm": 2,
        "on_alarm": "log",
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


@pytest.mark.slow
def test_two_processes_agree_and_do_not_hang(tmp_path):
    callback = Collect(
        {"photos": PROBE, "own": "target"},
        head=source_head(),
        backbone="backbone",
        max_overhead=None,
        tolerance={"cosine": 0.0},
        confirm=2,
        on_alarm="stop",
    )
    callback.folder = str(tmp_path)
    trainer, module = make_ddp_trainer(tmp_path, callback)
    trainer.fit(module, DataLoader(dataset(48), batch_size=8), DataLoader(dataset(12, 5), batch_size=6))
    found = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert found[0] == found[1]
    assert found[0][0]["step"] == 0
    assert {row["value"] for row in found[0][0]["readings"].values()} == {0.0}
    assert found[0][-1]["step"] == 6  # stopped on both ranks after the second check
    assert len(list(Path(tmp_path, "saved").glob("forgetting_reference*"))) == 1


class Collect(ForgettingMonitor):
    folder = ""

    def on_train_end(self, trainer, pl_module):
        super().on_train_end(trainer, pl_module)
        history = [{**report.to_dict(), "seconds": 0.0, "scores": {}} for report in self.history]
        torch.save(history, Path(self.folder, f"rank{trainer.global_rank}.pt"))


class DdpModule(lightning.pytorch.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone, self.head = Network(), nn.Linear(8, 3)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def make_ddp_trainer(tmp_path, callback):
    trainer = lightning.pytorch.Trainer(
        max_epochs=4,
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        logger=False,
        callbacks=[callback, ModelCheckpoint(tmp_path / "saved")],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    return trainer, DdpModule()
