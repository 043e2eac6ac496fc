"""The same network from random weights: what the pretraining was worth."""

from __future__ import annotations

import math
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_transfer.callbacks.forgetting_random import isolated_rng
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.progress import progress
from lightning_transfer.modules import TransferModule
from lightning_transfer.silence import silenced

__all__ = ["LEARNING_RATES", "Scratch", "fit_scratch", "random_twin"]

LEARNING_RATES = (3e-4, 1e-3, 3e-3)
"""Of AdamW: the range in which convolutional networks and transformers of all sizes train from random weights."""

# Of a Trainer that the user never made.
_REMARKING = ("lightning.pytorch", "lightning.fabric", "lightning_transfer")
_WEIGHT_DECAY = 0.05
_SLOWER = 0.2
_TIMES_SLOWER = 2
_LEAST_FALL = 0.01  # of the loss, below which it is no progress: it may creep down for ever


@dataclass(frozen=True)
class Scratch:
    """A network that was trained from random weights.

    Attributes:
        module: With the weights of its best epoch, in eval mode, on the CPU.
        learning_rate: The one whose best epoch was the best.
        scores: Learning rate -> validation score that the choice was made by; NaN where training diverged.
        best_epoch: The epoch that was kept, counted from 1.
        epochs: Trained with the chosen rate.
        stalled: Whether validation stalled; False if ``max_epochs`` came first.
        seconds: Spent on all rates together.
        description: All this in words.
    """

    module: TransferModule
    learning_rate: float
    scores: Mapping[float, float]
    best_epoch: int
    epochs: int
    stalled: bool
    seconds: float
    description: str


@dataclass(frozen=True)
class _Trial:
    """What training with one rate gave."""

    score: float
    state: Mapping[str, Tensor]
    best_epoch: int
    epochs: int
    stalled: bool


def random_twin(module: TransferModule, learning_rate: float) -> TransferModule:
    """Return a module of the same architecture, head and loss with random weights, all of which train.

    It trains with AdamW, whatever optimizer suits the pretrained one.

    Args:
        module: The network to match.
        learning_rate: Of AdamW.
    """
    arguments = {**module.rebuild_arguments(), "weights": "random", "card": module.card.to_dict()}
    arguments.pop("lora", None)  # adapters would keep the random weights frozen
    if "feature_encoder" in arguments:
        arguments["feature_encoder"] = "open"  # of speech: what is frozen as pretrained would stay random
    optimizer = partial(torch.optim.AdamW, lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    twin = type(module)(**arguments, optimizer=optimizer)
    if module.schema is not None:
        twin.use_schema(module.schema)
    return twin


def fit_scratch(
    module: TransferModule,
    train: Any,  # noqa: ANN401 - any loader
    val: Any,  # noqa: ANN401
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    trial_epochs: int | None = None,
    patience: int = 10,
    max_epochs: int = 300,
    seed: int = 0,
    trainer_options: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> Scratch:
    """Train the network of ``module`` from random weights until validation stalls, and keep the best epoch.

    Rate and epoch are chosen by the module's own ``monitor`` on validation. Stalled means that it gets no better, and
    ``val_loss`` by no hundredth: at the start the loss falls for long before the first class but the most frequent one
    is ever predicted. Twice a stall makes the rate fall to a fifth, as a plateau at a large rate is often none at a
    smaller one; the third ends the training. Nothing is written, and the random states are put back.

    Args:
        module: The network to match, with its schema; it stays as it is.
        train: Loader of the training split, augmentation included.
        val: Loader of the validation split.
        learning_rates: Rates of AdamW to choose from.
        trial_epochs: Epochs after which the rates are compared; then the best one starts again and trains until
            validation stalls. None trains each of them until then, which is surer and takes longer.
        patience: Epochs in which validation gets no better that make a stall.
        max_epochs: Bound for each rate, should validation never stall.
        seed: Of the random weights and of dropout, the same for each rate.
        trainer_options: Of the Trainer: device, precision, gradient clipping.
        show_progress: Whether to show a bar that counts epochs.

    Raises:
        ValueError: If an argument is out of range.
        TransferError: If the module trains no weights, there is no validation data, or training diverged with every
            rate.
        KeyboardInterrupt: If the user interrupts; Ctrl-C works as before again.
    """
    if not learning_rates or min(learning_rates) <= 0:
        raise ValueError(f"Expected positive `learning_rates`, got {list(learning_rates)}. Use {list(LEARNING_RATES)}.")
    if patience < 1 or max_epochs < 1 or (trial_epochs is not None and trial_epochs < 1):
        raise ValueError(
            f"Expected `patience`, `max_epochs` and `trial_epochs` of at least 1, got {patience}, {max_epochs} and "
            f"{trial_epochs}."
        )
    if val is None or val == []:
        raise TransferError("From scratch, rate and epoch are chosen on validation, and there is no validation split.")
    monitor = module.monitor
    if monitor is None:
        raise TransferError(
            f"`{type(module).__name__}` trains no weights, so there is no training from scratch to compare with. "
            "Leave `scratch` out of the baselines."
        )
    start = time.perf_counter()
    trials: dict[float, _Trial] = {}
    with silenced(*_REMARKING), isolated_rng(), progress("From scratch", None, show_progress) as bar:

        def train_with(rate: float, epochs: int) -> _Trial:
            _seed(seed)
            bar.set_description(f"From scratch, learning rate {rate:g}")
            watcher = _UntilPlateau(monitor, module.monitor_mode, patience, bar)
            return _train(random_twin(module, rate), watcher, train, val, epochs, dict(trainer_options or {}))

        for rate in learning_rates:
            trials[rate] = train_with(rate, min(trial_epochs or max_epochs, max_epochs))
        chosen = _best(trials, module.monitor_mode)
        trial = trials[chosen] if trial_epochs is None else train_with(chosen, max_epochs)
        best = random_twin(module, chosen)
        best.configure_model()
    best.load_state_dict(trial.state)
    seconds = time.perf_counter() - start
    return Scratch(
        module=best.eval(),
        learning_rate=chosen,
        scores={rate: item.score for rate, item in trials.items()},
        best_epoch=trial.best_epoch,
        epochs=trial.epochs,
        stalled=trial.stalled,
        seconds=seconds,
        description=_describe(chosen, trial, list(trials), monitor, trial_epochs, seconds),
    )


class _UntilPlateau(Callback):
    """Keep the best epoch's weights in memory; slow down, and in the end stop, when validation stalls."""

    def __init__(self, monitor: str, mode: str, patience: int, bar: Any) -> None:  # noqa: ANN401 - the progress bar
        self.monitor = monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.patience = patience
        self.bar = bar
        self.score = self.loss = math.nan
        self.state: dict[str, Tensor] = {}
        self.best_epoch = self.progress_epoch = self.slowed = 0
        self.stalled = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare this epoch with the best."""
        logged = trainer.callback_metrics
        if self.monitor not in logged:
            raise TransferError(
                f"From scratch, the best epoch is chosen by `{self.monitor}`, which validation does not log."
            )
        epoch = trainer.current_epoch + 1
        score, loss = float(logged[self.monitor]), float(logged.get("val_loss", math.nan))
        finite = all(bool(item.isfinite().all()) for item in pl_module.parameters())
        if finite and _is_better(self.sign * score, self.sign * self.score):
            self.score, self.best_epoch, self.progress_epoch = score, epoch, epoch
            self.state = {name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()}
        if finite and _is_better(-loss, -self.loss * (1 - _LEAST_FALL)):
            self.loss, self.progress_epoch = loss, epoch
        if epoch - self.progress_epoch >= self.patience:
            self._stall(trainer, epoch)
        self.bar.update(1)
        self.bar.set_postfix_str(f"{self.monitor} {score:.3f}, best {self.score:.3f} in epoch {self.best_epoch}")

    def _stall(self, trainer: Trainer, epoch: int) -> None:
        """Go on at a smaller rate, which often gets further at once; after the last one, stop."""
        if self.slowed == _TIMES_SLOWER:
            self.stalled = trainer.should_stop = True
            return
        self.slowed += 1
        self.progress_epoch = epoch
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= _SLOWER


def _is_better(value: float, best: float) -> bool:
    """Say whether a value is higher than the best so far; NaN stands for none."""
    return math.isfinite(value) and not value <= best


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _train(
    module: TransferModule,
    watcher: _UntilPlateau,
    train: Any,  # noqa: ANN401
    val: Any,  # noqa: ANN401
    max_epochs: int,
    options: dict[str, Any],
) -> _Trial:
    """Train one module until validation stalls."""
    with tempfile.TemporaryDirectory() as folder, _interruptible():
        trainer = Trainer(
            max_epochs=max_epochs,
            callbacks=[watcher],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
            **options,
        )
        trainer.fit(module, train_dataloaders=train, val_dataloaders=val)
    return _Trial(watcher.score, watcher.state, watcher.best_epoch, trainer.current_epoch, watcher.stalled)


def _best(trials: Mapping[float, _Trial], mode: str) -> float:
    """Return the rate of the best score."""
    finite = {rate: trial.score for rate, trial in trials.items() if trial.state}
    if not finite:
        rates = ", ".join(f"{rate:g}" for rate in trials)
        raise TransferError(f"From scratch, training diverged with every learning rate ({rates}). Give smaller ones.")
    return (max if mode == "max" else min)(finite, key=lambda rate: finite[rate])


def _describe(
    chosen: float, trial: _Trial, rates: Sequence[float], monitor: str, trial_epochs: int | None, seconds: float
) -> str:
    tried = ", ".join(f"{rate:g}" for rate in rates)
    after = "" if trial_epochs is None else f" after {trial_epochs} epochs"
    end = "until validation stalled" if trial.stalled else "its upper bound, and validation had not stalled"
    return (
        f"learning rate {chosen:g} of {tried} (by {monitor}{after}); {trial.epochs} epochs, {end}, the best was "
        f"{trial.best_epoch}; {seconds:.0f} s with the choice of the rate"
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt`, and work again: Lightning ends the process and ignores a second one."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        if main and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)
