"""The budget in real fits: the score is what one computes by hand, it decides, and it is not seen in the training."""

from __future__ import annotations

import copy

import lightning.pytorch
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_transfer.callbacks.retention_budget import RETENTION_SCORE, RetentionBudget
from lightning_transfer.errors import CheckpointError
from lightning_transfer.metrics.retention import retention_rank
from tests.unit.callbacks.forgetting_toys import PROBE, Crash, dataset, make_module, monitor, train


def budget(limit=0.2, **options):
    return RetentionBudget(limit, **{"monitor": "val_loss", "metric": "cosine", **options})


def saver(folder, **options):
    return ModelCheckpoint(
        folder, "best-{epoch}", monitor=RETENTION_SCORE, mode="max", save_on_train_epoch_end=True, **options
    )


class Recorded(lightning.pytorch.Callback):
    """By hand: the validation loss, and the cosine distance on the probe, before training and after each epoch."""

    def __init__(self):
        self.rows = []

    def measure(self, module):
        modes = [(item, item.training) for item in module.modules()]
        module.eval()
        with torch.no_grad():
            inputs, target = dataset(12, 5).tensors
            loss = nn.functional.cross_entropy(module.head(module.backbone(inputs)), target).item()
            features = module.backbone(PROBE.tensors[0])
        for item, training in modes:
            item.training = training
        return loss, features

    def on_fit_start(self, trainer, pl_module):
        self.start = self.measure(pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        loss, features = self.measure(pl_module)
        distance = 1 - nn.functional.cosine_similarity(self.start[1].double(), features.double()).mean().item()
        self.rows.append((loss, distance, {key: value.clone() for key, value in pl_module.state_dict().items()}))


def test_the_score_is_that_of_the_paper_and_the_best_within_the_budget_is_kept(tmp_path):
    by_hand, callback, keeper = Recorded(), budget(0.25), saver(tmp_path)
    callbacks = by_hand, monitor(metrics=("cosine",)), callback, keeper
    train(tmp_path, *callbacks, module=make_module(lr=0.003), enable_checkpointing=True, max_epochs=6)
    assert callback.before == pytest.approx(by_hand.start[0], abs=1e-6)
    expected = [retention_rank(by_hand.start[0], loss, [distance], [0.25]) for loss, distance, _ in by_hand.rows]
    assert [row["score"] for row in callback.rows] == pytest.approx(expected, abs=1e-4)
    assert min(expected) < 0 < max(expected), "the budget decides nothing here, so nothing is shown"
    best = max(range(6), key=expected.__getitem__)
    assert best != min(range(6), key=lambda epoch: by_hand.rows[epoch][0]), "without a budget the same would be kept"
    assert keeper.best_model_path.endswith(f"best-epoch={best}.ckpt")
    assert callback.best["epoch"] == best
    kept = torch.load(keeper.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(value, by_hand.rows[best][2][name]) for name, value in kept.items())


def test_where_no_epoch_fits_the_least_past_is_kept_and_it_is_said(tmp_path):
    callback, keeper = budget(1e-4), saver(tmp_path)
    with pytest.warns(UserWarning, match=r"no epoch keeps forgetting_cosine within 0.0001. Epoch 0 is least past it"):
        train(tmp_path, monitor(metrics=("cosine",)), callback, keeper, enable_checkpointing=True)
    losses = [row["losses"]["forgetting_cosine"] for row in callback.rows]
    assert losses[0] == min(losses)
    assert not any(row["within"] for row in callback.rows)
    assert keeper.best_model_path.endswith("best-epoch=0.ckpt")


class Progress(lightning.pytorch.Callback):
    """What a checkpoint of the first epoch would say of validation."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            self.seen = copy.deepcopy(trainer.fit_loop.epoch_loop.val_loop.batch_progress)


def test_training_is_bitwise_the_same_with_and_without(tmp_path):
    watched = []
    for callbacks in ([monitor(metrics=("cosine",))], [monitor(metrics=("cosine",)), budget()]):
        look = Progress()
        trainer, module = train(tmp_path, *callbacks, look)
        progress = look.seen
        metrics = {key: value for key, value in trainer.callback_metrics.items() if key != RETENTION_SCORE}
        watched.append((module.state_dict(), torch.get_rng_state(), progress, metrics))
    (plain, rng, steps, scores), (other, other_rng, other_steps, other_scores) = watched
    assert all(torch.equal(value, other[name]) for name, value in plain.items())
    assert torch.equal(rng, other_rng)
    assert steps == other_steps
    assert scores == other_scores


def test_a_resumed_run_keeps_what_the_uninterrupted_one_keeps(tmp_path):
    whole, kept = budget(), saver(tmp_path / "whole")
    train(tmp_path, monitor(metrics=("cosine",)), whole, kept, enable_checkpointing=True, max_epochs=4)
    first = saver(tmp_path / "first", save_last=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(
            tmp_path, monitor(metrics=("cosine",)), budget(), first, Crash(2), enable_checkpointing=True, max_epochs=4
        )
    resumed = budget()
    last = tmp_path / "first" / "last.ckpt"
    torch.load(last, weights_only=True)
    watcher = monitor(metrics=("cosine",))
    train(
        tmp_path,
        watcher,
        resumed,
        saver(tmp_path / "first"),
        enable_checkpointing=True,
        max_epochs=4,
        ckpt_path=last,
    )
    assert resumed.before == whole.before
    assert [row["epoch"] for row in resumed.rows] == [0, 1, 2, 3]
    # Lightning writes `last.ckpt` with a new best alone, and the toy's loader shuffles anew after a resume.
    assert resumed.rows[0] == whole.rows[0]


def test_a_run_without_the_budget_is_not_resumed_with_one(tmp_path):
    plain = ModelCheckpoint(tmp_path / "plain", save_last=True)
    train(tmp_path, monitor(metrics=("cosine",)), plain, enable_checkpointing=True, max_epochs=1)
    last = tmp_path / "plain" / "last.ckpt"
    with pytest.raises(CheckpointError, match=r"last\.ckpt holds no state of RetentionBudget"):
        train(tmp_path, monitor(metrics=("cosine",)), budget(), ckpt_path=last)


def test_each_old_task_may_have_its_own_budget(tmp_path):
    limits = {"forgetting_photos_cosine": 0.05, "forgetting_others_cosine": 5.0}
    callback = budget(limits)
    with pytest.warns(UserWarning, match="no epoch keeps"):
        train(tmp_path, monitor({"photos": PROBE, "others": dataset(16, 9)}, metrics=("cosine", "l2")), callback)
    for row in callback.rows:
        losses = [row["losses"][key] for key in limits]
        assert row["score"] == pytest.approx(retention_rank(callback.before, row["new"], losses, list(limits.values())))
    both = budget(5.0)
    train(tmp_path, monitor({"photos": PROBE, "grain": "noise"}, metrics=("cosine", "l2")), both)
    assert [set(row["losses"]) for row in both.rows] == [{"forgetting_photos_cosine"}] * 3


@pytest.mark.parametrize(
    ("callbacks", "options", "said"),
    [
        ([], {}, r"add `ForgettingMonitor\(probe, metrics=\['cosine'\]"),
        ([monitor(metrics=("cosine",), max_overhead=0.05)], {}, "max_overhead=0.05"),
        ([monitor(metrics=("cosine",), every_n_epochs=2)], {}, "every_n_epochs=2"),
        ([monitor(metrics=("cosine",))], {"check_val_every_n_epoch": 2}, "check_val_every_n_epoch=2"),
        ([monitor(metrics=("l2",))], {}, "reads forgetting_l2. Add 'cosine'"),
        ([monitor("target", metrics=("cosine",))], {}, "reads drift_cosine"),
        ([monitor(metrics=("cosine",)), ModelCheckpoint(monitor=RETENTION_SCORE, mode="max")], {},
         "save_on_train_epoch_end=True"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(tmp_path, callbacks, options, said):
    with pytest.raises(MisconfigurationException, match=said):
        train(tmp_path, *callbacks, budget(), **{"enable_checkpointing": True, **options})


def test_a_monitor_that_comes_later_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="Put it after"):
        train(tmp_path, budget(), monitor(metrics=("cosine",)))


def test_names_that_do_not_exist(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"forgetting_cosin,.*Did you mean `forgetting_cosine`"):
        train(tmp_path, monitor(metrics=("cosine",)), budget({"forgetting_cosin": 0.1}))
    with pytest.raises(MisconfigurationException, match=r"val_los.*Did you mean `val_loss`"):
        train(tmp_path, monitor(metrics=("cosine",)), budget(monitor="val_los"))
    for value in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"got {value}"):
            RetentionBudget(value)
    with pytest.raises(ValueError, match=r"got \{\}"):
        RetentionBudget({})


def test_a_second_fit_starts_clean(tmp_path):
    callback, watcher = budget(), monitor(metrics=("cosine",))
    _, module = train(tmp_path, watcher, callback, max_epochs=2)
    first = callback.before
    train(tmp_path, watcher, callback, module=module, max_epochs=2)
    assert len(callback.rows) == 2
    assert callback.before != first
    assert callback.to_dict()["best"] == callback.best
    assert make_module() is not module
