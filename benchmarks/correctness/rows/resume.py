"""Does a resumed run end where the uninterrupted one does?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from torch import Tensor

from benchmarks.correctness.contestants import BARE, Contestant, Settings
from benchmarks.correctness.outcome import Case, Row
from benchmarks.correctness.toys import STEPS, Recorder, Toy, copy_of, largest_difference, trainer

__all__ = ["ROWS"]

EPOCHS, OPEN_AT = 5, 2
BOUNDARIES = (1, 2, 3)
"""Epochs whose checkpoints are resumed from: the last before the opening, the first after it, one later."""


def decaying(module: Toy) -> Any:  # noqa: ANN401
    """Return an optimizer with state and a scheduler that every contestant can drive."""
    values = [value for value in module.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(values, lr=0.01)
    return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}


class CommandLineToy(Toy):
    """Without arguments, as LightningCLI makes it."""

    def __init__(self) -> None:
        super().__init__(decaying)


Run = Callable[[Contestant, Settings, Path | None], tuple[dict[str, Tensor], list[set[str]]]]


def measure_resume(run: Run, gradual: bool, contestant: Contestant, folder: Path) -> tuple[bool, str] | None:
    """Train in one go, then again from each checkpoint with other initial weights.

    The rule: no larger difference than bare Lightning's own, which is measured in the same way.
    """
    if gradual and contestant.name == "BF":
        return None
    allowed, _ = _resume_everywhere(run, gradual, BARE, folder / "bare")
    difference, trainable = _resume_everywhere(run, gradual, contestant, folder / "own")
    return difference <= allowed, f"{difference:.1g} off{trainable}"


def _resume_everywhere(run: Run, gradual: bool, contestant: Contestant, folder: Path) -> tuple[float, str]:
    wish = Settings(folder, EPOCHS, OPEN_AT, rate=0.01, checkpoint=True, gradual=gradual)
    whole, expected = run(contestant, wish, None)
    worst, text = 0.0, ""
    for epoch in BOUNDARIES:
        again = replace(wish, folder=folder / f"from{epoch}")
        weights, trainable = run(contestant, again, folder / f"epoch={epoch}.ckpt")
        worst = max(worst, largest_difference(whole, weights))
        wanted = expected[(epoch + 1) * STEPS :]
        if not text and [len(names) for names in trainable] != [len(names) for names in wanted]:
            first = len(trainable[0]) if trainable else 0
            text = f"; from epoch {epoch}: {first} parameters train instead of {len(wanted[0])}"
    return worst, text


def _by_fit(contestant: Contestant, wish: Settings, path: Path | None) -> tuple[dict[str, Tensor], list[set[str]]]:
    module, recorder = Toy(decaying, seed=0 if path is None else 1), Recorder()
    trainer([*contestant.callbacks(wish), recorder], wish.epochs).fit(module, ckpt_path=path)
    return copy_of(module), recorder.trainable


def _by_command_line(
    contestant: Contestant, wish: Settings, path: Path | None
) -> tuple[dict[str, Tensor], list[set[str]]]:
    wish.folder.mkdir(parents=True, exist_ok=True)
    recorder = {"class_path": "benchmarks.correctness.toys.Recorder"}
    options = {
        "max_epochs": wish.epochs,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": [*contestant.config(wish), recorder],
    }
    config = wish.folder / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": options}))
    words = ["fit", f"--config={config}", *([] if path is None else [f"--ckpt_path={path}"])]
    cli = LightningCLI(CommandLineToy, save_config_callback=None, auto_configure_optimizers=False, args=words)
    found = next(callback for callback in cli.trainer.callbacks if isinstance(callback, Recorder))
    return copy_of(cli.model), found.trainable


def _cases(run: Run) -> tuple[Case, ...]:
    return (
        Case("one opening", lambda who, folder: measure_resume(run, False, who, folder)),
        Case("gradual", lambda who, folder: measure_resume(run, True, who, folder)),
    )


ROWS = (
    Row(
        "resume",
        "resume by `fit(ckpt_path=)` after an opening",
        f"from the checkpoints of epochs {', '.join(map(str, BOUNDARIES))}, opening from epoch {OPEN_AT} on: no weight "
        "differs more than with bare Lightning",
        _cases(_by_fit),
    ),
    Row(
        "resume-cli",
        "resume by `LightningCLI fit --ckpt_path`",
        "the same",
        _cases(_by_command_line),
    ),
)
