"""Other ways to draw masks beside the model that is tested: nothing at all, single pixels, networks from scratch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_transfer.cli.baselines import shows_bar
from lightning_transfer.cli.scratch import train_scratch
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import MaskJudge, MaskRow, fit_pixels, progress, stream_outputs
from lightning_transfer.modules import PlainUNetModule
from lightning_transfer.modules.transfer import TransferModule
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["other_drawers", "plain_unet"]


def other_drawers(cli: TransferCLI, places: Sequence[int]) -> tuple[dict[str, MaskRow], bool]:
    """Run what the options ask for on the records that the model was judged on.

    What cannot be run keeps its row, with the reason in place of numbers.

    Args:
        cli: After its trainer's ``test``.
        places: Of the records with a known truth.

    Returns:
        The rows, and whether the user interrupted the training of one.
    """
    makers = {"majority": _majority, "plain": _plain, "unet": _unet, "scratch": _scratch}
    names: list[str] = cli.config_init["evaluation"].baselines
    rows: dict[str, MaskRow] = {}
    for name in names:
        try:
            rows[name] = makers[name](cli, places)
        except KeyboardInterrupt:
            rows[name] = MaskRow(None, "its training was interrupted")
            return rows, True
        except Exception as error:  # whatever another method runs into, the results of this one are there
            reason = str(error) if isinstance(error, TransferError) else f"{type(error).__name__}: {error}"
            rank_zero_warn(f"The row `{name}` has no numbers; all else of this test is kept: {reason}")
            rows[name] = MaskRow(None, reason)
    return rows, False


def plain_unet(module: TransferModule) -> PlainUNetModule:
    """Return a plain U-Net with the loss, the classes and as many parameters as a module, from random weights."""
    arguments = {**module.rebuild_arguments(), "card": module.card.to_dict(), "layers": None, "decoder_widths": None}
    arguments.pop("lora", None)
    twin = PlainUNetModule(**arguments, num_parameters=sum(item.numel() for item in module.parameters()))
    if module.schema is not None:
        twin.use_schema(module.schema)
    return twin


def _judge(cli: TransferCLI) -> tuple[MaskJudge, list[Record]]:
    records = cli.datamodule.records_for("test")
    return MaskJudge(cli.datamodule, records, cli.model.schema), records


def _draw(
    cli: TransferCLI, places: Sequence[int], draw: Callable[[Record], Tensor], description: str, start: float
) -> MaskRow:
    """Judge what a function of a record draws."""
    judge, records = _judge(cli)
    with progress("Drawing", len(places), shows_bar(cli)) as bar:
        for place in places:
            judge.add(place, draw(records[place]))
            bar.update(1)
    return MaskRow(judge.rows(), description, time.perf_counter() - start)


def _majority(cli: TransferCLI, places: Sequence[int]) -> MaskRow:
    schema = cli.model.schema
    size = [int(side) for side in schema.preprocessing["size"]]
    nothing = torch.zeros(schema.num_logits, *size)
    nothing[0] = 10.0
    return _draw(cli, places, lambda _: nothing, f"`{schema.classes[0]}` everywhere", time.perf_counter())


def _plain(cli: TransferCLI, places: Sequence[int]) -> MaskRow:
    start, data = time.perf_counter(), cli.datamodule
    train = data.records_for("train")
    if not train:
        raise TransferError("These data have no training split.")
    found = fit_pixels(lambda place: data.load_pair(train[place], None), len(train), cli.model.schema.num_logits)
    about = "gradient boosting on single pixels: brightness and filters of four sizes, no network"
    return _draw(cli, places, lambda record: found(data.load_input(record)), about, start)


def _unet(cli: TransferCLI, places: Sequence[int]) -> MaskRow:
    return _trained(cli, places, plain_unet(cli.model), "plain U-Net")


def _scratch(cli: TransferCLI, places: Sequence[int]) -> MaskRow:
    return _trained(cli, places, cli.model, "the same network")


def _trained(cli: TransferCLI, places: Sequence[int], module: TransferModule, what: str) -> MaskRow:
    """Train a network from random weights on the same split, with a rate of its own, and judge it."""
    found = train_scratch(cli, show_progress=shows_bar(cli), module=module)
    judge, _ = _judge(cli)
    loader = cli.datamodule.ordered_dataloader("test", only=places)
    stream_outputs(found.module, loader, judge, cli.trainer.strategy.root_device, shows_bar(cli))
    count = sum(item.numel() for item in found.module.parameters())
    return MaskRow(
        judge.rows(), f"{what} from random weights, {count:,} parameters: {found.description}", found.seconds
    )
