"""What a fit keeps: the weights of its best checkpoint, with what evaluation needs, as ``model.ckpt``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_transfer.callbacks import RetentionBudget
from lightning_transfer.cli.facts import fit_facts, forgetting_facts, source_lines
from lightning_transfer.cli.report import report_of_fit
from lightning_transfer.files import atomic, write_json
from lightning_transfer.modules.transfer import CHECKPOINT_KEY, read_checkpoint

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["KeptModel", "finish_fit", "finish_validate", "keep_best", "write_fit_facts", "write_model"]

# A finished model is for prediction: what only a resumed fit reads stays in `checkpoints/`.
_TRAINING_STATE = ("optimizer_states", "lr_schedulers", "callbacks", "current_model_state", "averaging_state")


@dataclass(frozen=True)
class KeptModel:
    """A checkpoint that was chosen.

    Attributes:
        path: Where it was written while training.
        checkpoint: What it holds, without the state of training.
    """

    path: Path
    checkpoint: Mapping[str, Any]


def keep_best(cli: TransferCLI) -> KeptModel | None:
    """Load the checkpoint to keep into the module.

    Args:
        cli: After its trainer's ``fit``.

    Returns:
        None where there is nothing to write: after ``fast_dev_run``, in all processes but the first, and of a sharded
        checkpoint.
    """
    if getattr(cli.trainer, "fast_dev_run", False):
        rank_zero_info("`fast_dev_run` writes no checkpoint, so there is no `model.ckpt`.")
        return None
    best = _best_checkpoint(cli)
    if not cli.trainer.is_global_zero:
        return None
    if best.is_dir():
        rank_zero_warn(
            f"`{best}` is a sharded checkpoint, so no `model.ckpt` was written. Set the strategy's "
            "`state_dict_type: full`."
        )
        return None
    checkpoint = {key: value for key, value in read_checkpoint(best).items() if key not in _TRAINING_STATE}
    cli.model.load_state_dict(checkpoint["state_dict"])
    return KeptModel(best, checkpoint)


def write_model(cli: TransferCLI, kept: KeptModel, more: Mapping[str, Any] | None = None) -> Path:
    """Write ``model.ckpt``, whole or not at all.

    Args:
        cli: Its ``output`` is the run folder.
        kept: The weights.
        more: What was fitted since, beside or in place of what the checkpoint says of itself.
    """
    path = cli.output / "model.ckpt"
    whole = {**kept.checkpoint, CHECKPOINT_KEY: {**kept.checkpoint[CHECKPOINT_KEY], **(more or {})}}
    with atomic(path) as part:
        torch.save(whole, part)
    return path


def write_fit_facts(cli: TransferCLI, kept: KeptModel, seconds: float) -> Iterator[str]:
    """Write ``metrics.json`` and ``forgetting.json`` of a fit, and yield the first as lines for the terminal.

    Args:
        cli: After its trainer's ``fit``.
        kept: The weights.
        seconds: That the fit took.
    """
    scores, facts = _logged(cli), fit_facts(cli, int(kept.checkpoint["global_step"]), seconds)
    write_json(cli.output / "metrics.json", {**scores, **{name: item.to_dict() for name, item in facts.items()}})
    story = forgetting_facts(cli)
    if story:
        write_json(cli.output / "forgetting.json", story)
    yield f"Checkpoint: {kept.path}"
    for name, score in scores.items():
        yield f"Best {name}: {score['value']:.4f}"
    yield from source_lines(facts)


def finish_fit(cli: TransferCLI, seconds: float) -> None:
    """Load the checkpoint to keep, and write ``model.ckpt``: nothing is fitted after training.

    Args:
        cli: After its trainer's ``fit``.
        seconds: That the fit took.
    """
    kept = keep_best(cli)
    if kept is None:
        return
    write_model(cli, kept)
    for line in write_fit_facts(cli, kept, seconds):
        print(line)
    report_of_fit(cli)


def finish_validate(cli: TransferCLI) -> None:
    """Write and print what the module logged on the validation split."""
    if not cli.trainer.is_global_zero:
        return
    scores = {name: _score(float(value)) for name, value in cli.trainer.callback_metrics.items()}
    write_json(cli.output / "metrics.json", scores)
    width = max((len(name) for name in scores), default=0)
    for name, score in scores.items():
        print(f"{name:<{width}}  {score['value']:.4f}")


def _best_checkpoint(cli: TransferCLI) -> Path:
    """Return the checkpoint to keep: interpolated, best by its monitor, the last, or the weights as they are now."""
    interpolated = _interpolated_checkpoint(cli)
    if interpolated is not None:
        return interpolated
    callback = cli.trainer.checkpoint_callback
    for name in ("best_model_path", "last_model_path"):
        found = getattr(callback, name, "")
        if found:
            return Path(found)
    # Without any checkpoint callback. All processes take part in saving.
    path = cli.output / "checkpoints" / "last.ckpt"
    cli.trainer.save_checkpoint(path, weights_only=True)
    return path


def _interpolated_checkpoint(cli: TransferCLI) -> Path | None:
    """Return what a `ForgettingMonitor` wrote in this run."""
    callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
    paths = [path for item in callbacks if (path := getattr(item, "interpolated_path", ""))]
    # With `ddp_spawn` the callback that knows was in another process; the run's folder is this run's alone.
    paths += (cli.output / "checkpoints").glob("interpolated-alpha=*.ckpt")
    return Path(paths[0]) if paths else None


def _logged(cli: TransferCLI) -> dict[str, Any]:
    """Return the score of the checkpoint that was kept; where a budget chose, the new task's error beside it."""
    callback = cli.trainer.checkpoint_callback
    score = getattr(callback, "best_model_score", None)
    monitor = getattr(callback, "monitor", None)
    callbacks = cli.trainer.callbacks  # type: ignore[attr-defined]
    budget = next((item for item in callbacks if isinstance(item, RetentionBudget) and item.best is not None), None)
    if monitor is not None and _interpolated_checkpoint(cli) is not None:
        # The mixture has no retention score: it was sought by the error alone, within its own tolerance.
        monitor, budget = monitor if budget is None else budget.monitor, None
        score = cli.trainer.callback_metrics.get(monitor)
    found = {} if score is None or monitor is None else {monitor: float(score)}
    if budget is not None and budget.best is not None:
        found[budget.monitor] = float(budget.best["new"])
    return {name: _score(value) for name, value in found.items()}


def _score(value: float) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None, "n": None, "reason": "logged by the module, without interval"}
