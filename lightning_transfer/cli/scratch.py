"""The row ``scratch`` of a test: the same network from random weights, trained on the same split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import (
    BaselineOutputs,
    Outputs,
    Scratch,
    collect_outputs,
    fit_calibration,
    fit_scratch,
)
from lightning_transfer.modules import TransferModule

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["scratch_baseline", "train_scratch"]


def scratch_baseline(cli: TransferCLI, test: Outputs, *, show_progress: bool) -> BaselineOutputs:
    """Train the same network from random weights, calibrate it as the model, and run it on the test split.

    Args:
        cli: After its trainer's ``test``.
        test: What the model said; the same records are judged.
        show_progress: Whether to show bars.

    Raises:
        TransferError: If the module cannot be trained from random weights, or there is nothing to choose on.
        KeyboardInterrupt: If the user interrupts the training.
    """
    found, data = train_scratch(cli, show_progress=show_progress), cli.datamodule
    device = cli.trainer.strategy.root_device
    calibration = collect_outputs(found.module, data.calibration_dataloader(), device, show_progress)
    outputs = collect_outputs(found.module, data.test_dataloader(), device, show_progress)
    rate = cli.config_init["evaluation"].max_false_reject_rate
    return BaselineOutputs(
        test.with_logits(outputs.logits[test.index]),
        fit_calibration(calibration, cli.model.schema, max_false_reject_rate=rate),
        found.description,
        found.seconds,
    )


def train_scratch(cli: TransferCLI, *, show_progress: bool, module: TransferModule | None = None) -> Scratch:
    """Train the same network from random weights as the options say, and say how it went.

    Args:
        cli: After its trainer's ``test``.
        show_progress: Whether to show bars.
        module: Another network that learns the same; None takes that of the run.

    Raises:
        TransferError: If the module cannot be trained from random weights, or there is nothing to choose on.
        KeyboardInterrupt: If the user interrupts the training.
    """
    data, module = cli.datamodule, module or cli.model
    if not isinstance(module, TransferModule):
        raise TransferError(
            f"`{type(module).__name__}` is no TransferModule, so it cannot be built with random weights."
        )
    if not data.records_for("train"):
        raise TransferError("These data have no training split.")
    options = cli.config_init["evaluation"].scratch
    seed = cli.resolved["seed_everything"]
    found: Scratch = fit_scratch(
        module,
        data.train_dataloader(),
        data.val_dataloader(),
        learning_rates=options.learning_rates,
        trial_epochs=options.trial_epochs,
        patience=options.patience,
        max_epochs=options.max_epochs,
        seed=int(seed or 0),
        trainer_options=_trainer_options(cli),
        show_progress=show_progress,
    )
    print(f"From scratch: {found.description}")
    return found


def _trainer_options(cli: TransferCLI) -> dict[str, Any]:
    """Return what the run's trainer says of how a step is made: its device, precision, batches and clipping."""
    trainer: Any = cli.trainer
    device = trainer.strategy.root_device
    given = cli.config_init["trainer"]
    return {
        "accelerator": device.type,
        "devices": [device.index] if device.index is not None else 1,
        "precision": given["precision"],
        "accumulate_grad_batches": given["accumulate_grad_batches"],
        "gradient_clip_val": given["gradient_clip_val"],
        "gradient_clip_algorithm": given["gradient_clip_algorithm"],
        "limit_train_batches": given["limit_train_batches"],
        "limit_val_batches": given["limit_val_batches"],
    }
