"""The same network from random weights. Oracle: a plain Lightning fit with Lightning's own stopping and checkpoints."""

from __future__ import annotations

import math
import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR
from torch.utils.data import DataLoader

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import fit_scratch
from lightning_transfer.evaluation.scratch import random_twin
from lightning_transfer.modules import ClassificationModule
from lightning_transfer.types import Batch, Schema

SCHEMA = Schema(task="multiclass", classes=("dark", "light", "striped"))
CPU = {"accelerator": "cpu", "devices": 1}


class _Interrupted(ClassificationModule):
    """Sends Ctrl-C in its second epoch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, batch_idx)


def _module(cls: type[ClassificationModule] = ClassificationModule, **arguments: Any) -> ClassificationModule:
    torch.manual_seed(5)
    module = cls("timm/test_resnet", weights="random", head_norm="batchnorm", **arguments)
    module.use_schema(SCHEMA)
    module.configure_model()
    return module


def _images(n: int, seed: int, wrong: int = 0) -> DataLoader[Any]:
    """Images of three kinds that are easy to tell; each ``wrong``-th label is."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % 3
    images = 0.7 * torch.randn(n, 3, 32, 32, generator=generator) + (target - 1).float()[:, None, None, None]
    images[target == 2, :, ::2] -= 2.0
    if wrong:
        target[::wrong] = (target[::wrong] + 1) % 3
    batches = [Batch(images[i : i + 8], target[i : i + 8], torch.arange(i, min(i + 8, n))) for i in range(0, n, 8)]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


TRAIN, VAL = _images(24, 0), _images(24, 1)


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(), dict(os.environ)


class _Recorded(ClassificationModule):
    """Notes the rate of each epoch, of all its objects."""

    rates: ClassVar[list[float]] = []

    def on_train_epoch_start(self) -> None:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])


class _History(pl.Callback):
    """What validation says of each epoch."""

    def __init__(self) -> None:
        self.scores: list[float] = []
        self.losses: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.scores.append(float(trainer.callback_metrics["val_macro_f1"]))
        self.losses.append(float(trainer.callback_metrics["val_loss"]))


def _expected_epochs(history: _History, patience: int) -> tuple[int, list[int]]:
    """Return when to stop, and when to slow down: the loss must fall by a hundredth to count."""
    slower: list[int] = []
    top, low, last = -1.0, float("inf"), 0
    for epoch, (score, loss) in enumerate(zip(history.scores, history.losses, strict=True), start=1):
        if score > top or loss < 0.99 * low:
            last = epoch
        top, low = max(top, score), loss if loss < 0.99 * low else low
        if epoch - last == patience and len(slower) == 2:
            return epoch, slower
        if epoch - last == patience:
            slower.append(epoch)
            last = epoch
    return -1, slower


def test_one_rate_gives_what_lightning_s_own_callbacks_give(tmp_path: Path) -> None:
    _Recorded.rates.clear()
    odd = _images(24, 1, wrong=4)  # the loss rises again once the network is sure of itself
    found = fit_scratch(_module(_Recorded), TRAIN, odd, learning_rates=[3e-3], patience=4, max_epochs=40, seed=3,
                        trainer_options=CPU)  # fmt: skip
    rates = list(_Recorded.rates)
    slower: list[int] = []

    def plain_fit(epochs: int) -> tuple[_History, ModelCheckpoint]:
        _Recorded.rates.clear()
        torch.manual_seed(3)
        plain = _Recorded(
            "timm/test_resnet", weights="random", head_norm="batchnorm",
            optimizer=partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.05),
            scheduler=partial(MultiStepLR, milestones=slower, gamma=0.2),
        )  # fmt: skip
        plain.use_schema(SCHEMA)
        history, keep = _History(), ModelCheckpoint(tmp_path, monitor="val_macro_f1", mode="max")
        trainer = pl.Trainer(max_epochs=epochs, callbacks=[history, keep], logger=False, enable_progress_bar=False,
                             enable_model_summary=False, num_sanity_val_steps=0, **CPU)  # fmt: skip
        trainer.fit(plain, TRAIN, odd)
        return history, keep

    # Each slower rate changes what follows it: find them one after the other.
    while (now := _expected_epochs(plain_fit(found.epochs)[0], 4)[1]) != slower:
        slower = now[: len(slower) + 1]
    history, keep = plain_fit(found.epochs)
    assert rates == pytest.approx(_Recorded.rates)
    assert slower, "the rate never fell, so that is not shown"
    assert found.epochs == _expected_epochs(history, 4)[0]
    best = torch.load(keep.best_model_path, weights_only=True)
    assert found.scores == {3e-3: float(keep.best_model_score)}
    assert found.best_epoch == best["epoch"] + 1
    state = found.module.state_dict()
    assert state.keys() == best["state_dict"].keys()
    assert all(torch.equal(value, state[name]) for name, value in best["state_dict"].items())
    assert found.stalled
    assert not found.module.training


def test_it_learns_and_the_best_rate_on_validation_is_taken() -> None:
    found = fit_scratch(_module(), TRAIN, VAL, learning_rates=[1e-7, 3e-3], patience=5, max_epochs=20,
                        trainer_options=CPU)  # fmt: skip
    assert found.learning_rate == 3e-3
    assert found.scores[3e-3] == max(found.scores.values()) > 0.9
    with torch.no_grad():
        hits = torch.cat([found.module(batch.input).argmax(1) == batch.target for batch in VAL])
    assert hits.float().mean() > 0.9
    for word in (
        "learning rate 0.003 of 1e-07, 0.003",
        "val_macro_f1",
        f"{found.epochs} epochs",
        "s with the choice of the rate",
    ):
        assert word in found.description


def test_after_a_trial_the_best_rate_starts_again_and_ends_as_if_it_had_been_the_only_one() -> None:
    options = {"patience": 4, "max_epochs": 12, "trainer_options": CPU}
    alone = fit_scratch(_module(), TRAIN, VAL, learning_rates=[3e-3], **options)
    found = fit_scratch(_module(), TRAIN, VAL, learning_rates=[1e-7, 3e-3], trial_epochs=3, **options)
    assert (found.learning_rate, found.epochs, found.best_epoch) == (3e-3, alone.epochs, alone.best_epoch)
    state = found.module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in alone.module.state_dict().items())
    assert "(by val_macro_f1 after 3 epochs)" in found.description
    short = fit_scratch(_module(), TRAIN, VAL, learning_rates=[1e-7, 3e-3], patience=9, max_epochs=3,
                        trainer_options=CPU)  # fmt: skip
    assert found.scores == short.scores


def test_a_smaller_loss_is_better_where_the_module_says_so() -> None:
    class ByLoss(ClassificationModule):
        monitor, monitor_mode = "val_loss", "min"

    found = fit_scratch(_module(ByLoss), TRAIN, VAL, learning_rates=[1e-7, 3e-3], patience=3, max_epochs=8,
                        trainer_options=CPU)  # fmt: skip
    assert found.learning_rate == 3e-3
    assert found.scores[3e-3] == min(found.scores.values())


def test_the_twin_has_the_same_architecture_and_loss_other_weights_and_all_of_it_trains() -> None:
    module = _module(loss="focal", head_dropout=0.25)
    module.backbone.requires_grad_(False)
    twin = random_twin(module, 1e-3)
    twin.configure_model()
    assert twin.rebuild_arguments() == module.rebuild_arguments()
    assert all(parameter.requires_grad for parameter in twin.parameters())
    pairs = dict(module.named_parameters())
    assert pairs.keys() == dict(twin.named_parameters()).keys()
    matrices = {name: value for name, value in twin.named_parameters() if value.ndim > 1}  # norms start at 1 and 0
    assert not any(torch.equal(value, pairs[name]) for name, value in matrices.items())
    found = fit_scratch(module, TRAIN, VAL, learning_rates=[3e-3], patience=2, max_epochs=3, trainer_options=CPU)
    assert not any(parameter.requires_grad for parameter in module.backbone.parameters())
    torch.manual_seed(0)
    start = dict(random_twin(module, 3e-3).named_parameters())
    moved = [name for name, value in found.module.named_parameters() if name in start and not value.equal(start[name])]
    assert set(moved) == set(start), "something stayed at its random start"


def test_the_run_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = _module()
    before, weights = _states(), {name: value.clone() for name, value in module.state_dict().items()}
    handler = signal.getsignal(signal.SIGINT)
    fit_scratch(module, TRAIN, VAL, learning_rates=[1e-3], patience=1, max_epochs=2, trainer_options=CPU)
    assert _states() == before
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert module._trainer is None
    assert signal.getsignal(signal.SIGINT) is handler
    assert not list(tmp_path.iterdir())


def test_the_bound_is_said_where_validation_did_not_stall() -> None:
    found = fit_scratch(_module(), TRAIN, VAL, learning_rates=[1e-3], patience=9, max_epochs=2, trainer_options=CPU)
    assert (found.epochs, found.stalled) == (2, False)
    assert "validation had not stalled" in found.description


def test_a_rate_that_diverges_is_passed_over_and_only_such_are_an_error() -> None:
    found = fit_scratch(_module(), TRAIN, VAL, learning_rates=[1e30, 1e-3], patience=2, max_epochs=3,
                        trainer_options=CPU)  # fmt: skip
    assert found.learning_rate == 1e-3
    assert math.isnan(found.scores[1e30])
    with pytest.raises(TransferError, match=r"diverged with every learning rate \(1e\+30\)"):
        fit_scratch(_module(), TRAIN, VAL, learning_rates=[1e30], patience=2, max_epochs=3, trainer_options=CPU)


def test_an_interrupt_is_the_caller_s_and_the_next_one_works_too() -> None:
    handler, module = signal.getsignal(signal.SIGINT), _module(_Interrupted)
    before = _states()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit_scratch(module, TRAIN, VAL, learning_rates=[1e-3], patience=3, trainer_options=CPU)
        assert signal.getsignal(signal.SIGINT) is handler
        assert _states() == before


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(TransferError, match="there is no validation split"):
        fit_scratch(_module(), TRAIN, [])
    with pytest.raises(ValueError, match=r"got \[0.001, 0\]"):
        fit_scratch(_module(), TRAIN, VAL, learning_rates=[1e-3, 0])
    with pytest.raises(ValueError, match="got 0, 300 and None"):
        fit_scratch(_module(), TRAIN, VAL, patience=0)

    class Silent(ClassificationModule):
        monitor = "val_nothing"

    with pytest.raises(TransferError, match="`val_nothing`, which validation does not log"):
        fit_scratch(_module(Silent), TRAIN, VAL, learning_rates=[1e-3], trainer_options=CPU)
