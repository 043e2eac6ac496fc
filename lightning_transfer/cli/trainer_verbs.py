"""The verbs that Lightning's Trainer runs: fit, validate, test, predict, and what follows each."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.cli.run_folder import RUN_DIR_VARIABLE, remove_empty
from lightning_transfer.cli.sources import Source, find_source
from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["fit", "predict", "start", "test", "trainer_inputs", "validate"]


@contextmanager
def start(recipe: Recipe, arguments: Arguments) -> Iterator[TransferCLI]:
    """Make everything that a verb needs; say at the end where its run folder is.

    The name of the folder stands in the environment only meanwhile, so that a second command in the same process
    makes its own.
    """
    before = os.environ.get(RUN_DIR_VARIABLE)
    try:
        source = Source(configs=arguments.configs) if arguments.wants_help else find_source(recipe, arguments)
        cli = TransferCLI(recipe, arguments, source)
        try:
            yield cli
        finally:
            if cli.trainer.is_global_zero:
                remove_empty(cli.output, cli.folder)
                if cli.folder.is_dir():
                    print(f"Run folder: {cli.folder}", flush=True)
    finally:
        if before is None:
            os.environ.pop(RUN_DIR_VARIABLE, None)
        else:
            os.environ[RUN_DIR_VARIABLE] = before


def fit(recipe: Recipe, arguments: Arguments) -> int:
    """Train, load the best checkpoint, calibrate it, and write ``RUN/model.ckpt``."""
    with start(recipe, arguments) as cli:
        if cli.source.checkpoint is not None:
            _say_what_the_checkpoint_decides(arguments)
        begin = time.perf_counter()
        try:
            cli.trainer.fit(cli.model, **trainer_inputs(cli, cli.trainer.fit))
        except SystemExit:
            if not cli.trainer.interrupted:
                raise
            last = cli.folder / "checkpoints" / "last.ckpt"
            if last.is_file():
                print(f"Interrupted. Go on: {recipe.command} fit --config {cli.folder}/config.yaml --ckpt_path {last}")
            return 130
        _results(cli).finish_fit(cli, time.perf_counter() - begin)
    return 0


def validate(recipe: Recipe, arguments: Arguments) -> int:
    """Run the validation split, and write ``validate/metrics.json``."""
    with start(recipe, arguments) as cli:
        cli.trainer.validate(cli.model, verbose=False, **trainer_inputs(cli, cli.trainer.validate))
        _results(cli).finish_validate(cli)
    return 0


def test(recipe: Recipe, arguments: Arguments) -> int:
    """Run the test split, and write its metrics and predictions into ``test/``."""
    with start(recipe, arguments) as cli:
        cli.trainer.test(cli.model, verbose=False, **trainer_inputs(cli, cli.trainer.test))
        _results(cli).finish_test(cli)
    return 0


def predict(recipe: Recipe, arguments: Arguments) -> int:
    """Predict, and write ``predict/predictions.csv``, or ``.jsonl`` where the recipe routes or transcribes."""
    with start(recipe, arguments) as cli:
        batches = cli.trainer.predict(cli.model, return_predictions=True, **trainer_inputs(cli, cli.trainer.predict))
        _results(cli).finish_predict(cli, batches or [])
    return 0


def _say_what_the_checkpoint_decides(arguments: Arguments) -> None:
    """Warn where an option has no effect: a resumed optimizer goes on with the rates that it had."""
    options = [word for word in arguments.rest if word.startswith(("--model.optimizer", "--model.scheduler"))]
    if options:
        rank_zero_warn(
            f"`{options[0]}` changes a resumed fit only where the checkpoint says nothing: learning rates and the "
            "state of optimizer and scheduler go on from there."
        )


def _results(cli: TransferCLI) -> ModuleType:
    """Import what runs after the Trainer, so that it does not delay the first step."""
    if cli.transcribes:
        from lightning_transfer.cli import transcription_results

        return transcription_results
    if cli.draws_masks:
        from lightning_transfer.cli import segmentation_results

        return segmentation_results
    from lightning_transfer.cli import results

    return results


def trainer_inputs(cli: TransferCLI, method: Any) -> dict[str, Any]:  # noqa: ANN401 - a method of the trainer
    """Return the arguments that all of the trainer's methods share."""
    inputs: dict[str, Any] = {"datamodule": cli.datamodule}
    if cli.source.checkpoint is not None and cli.arguments.verb != "plan":
        inputs["ckpt_path"] = str(cli.source.checkpoint)
        if "weights_only" in inspect.signature(method).parameters:
            inputs["weights_only"] = True
    return inputs
