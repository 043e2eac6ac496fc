"""What follows a verb of the Trainer where masks are drawn: the model, the masks, and how well they fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightning_transfer.cli.baselines import shows_bar
from lightning_transfer.cli.facts import read_facts
from lightning_transfer.cli.kept_model import finish_fit, finish_validate
from lightning_transfer.cli.report import report_of_test
from lightning_transfer.cli.segmentation_baselines import other_drawers
from lightning_transfer.cli.tracking import log_scores
from lightning_transfer.evaluation import (
    MaskJudge,
    MaskRow,
    MaskWriter,
    evaluate_segmentation,
    format_segmentation,
    write_masks_table,
)
from lightning_transfer.files import write_json
from lightning_transfer.types import Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["MaskSink", "finish_fit", "finish_predict", "finish_test", "finish_validate"]

FILE = "predictions.csv"


class MaskSink:
    """Take the outputs of ``test`` or ``predict`` as they come: write each mask, and keep counts of it.

    Args:
        cli: Its datamodule has read nothing yet.
        split: That is run.
    """

    def __init__(self, cli: TransferCLI, split: Split) -> None:
        self.cli = cli
        self.split = split
        self.judge: MaskJudge | None = None
        self.writer: MaskWriter | None = None

    def __call__(self, output: Any) -> None:  # noqa: ANN401 - a PixelOutput
        """Begin with the first batch, when the records are there."""
        if self.judge is None:
            self.begin()(output)
        else:
            self.judge(output)

    def begin(self) -> MaskJudge:
        """Return what judges, made for the records of the split."""
        records, schema = self.cli.datamodule.records_for(self.split), self.cli.model.schema
        save = bool(self.cli.config_init["evaluation"].save_masks)
        self.writer = MaskWriter(self.cli.output, records, schema.classes, save=save)
        compare = self.split != "predict"
        self.judge = MaskJudge(self.cli.datamodule, records, schema, compare=compare, on_drawn=self.writer)
        return self.judge


def finish_test(cli: TransferCLI) -> None:
    """Judge the masks that the module drew beside others; write and print it."""
    if not cli.trainer.is_global_zero:
        return
    data, options = cli.datamodule, cli.config_init["evaluation"]
    judge, writer = _drawn(cli)
    records = data.records_for("test")
    skipped = [item for item in data.list_skipped("fit") if item.record.split in (None, "test")]
    whole = len(writer.rows) == len(records)
    classes = cli.model.schema.classes
    path = write_masks_table(cli.output / FILE, records, writer.rows, classes, judge.judged, skipped if whole else ())
    rows, interrupted = other_drawers(cli, sorted(judge.judged))
    result = evaluate_segmentation(
        judge.rows(),
        records,
        cli.model.schema,
        baselines=rows,
        slices=options.slices,
        num_unknown=len(judge.unknown),
        masks={place: row.file for place, row in writer.rows.items()},
        seconds=_seconds(cli, rows),
        show_progress=shows_bar(cli),
    )
    result.write_json(cli.output / "metrics.json")
    write_json(cli.output / "evaluation.json", result.to_dict())
    log_scores(cli.trainer.loggers, result.flat(), "test")
    print(format_segmentation(result))
    print(f"Written: {path}")
    _say_masks(cli, writer)
    report_of_test(cli)
    if interrupted:
        raise KeyboardInterrupt


def finish_predict(cli: TransferCLI, batches: Sequence[Any]) -> None:
    """Write what was drawn, a row for each input, unreadable ones with the reason."""
    if not cli.trainer.is_global_zero:
        return
    data = cli.datamodule
    _, writer = _drawn(cli)
    skipped = data.list_skipped("predict")
    records, classes = data.records_for("predict"), cli.model.schema.classes
    path = write_masks_table(cli.output / FILE, records, writer.rows, classes, None, skipped)
    found = sum(bool(row.present) for row in writer.rows.values())
    about = f", {len(skipped)} unreadable" if skipped else ""
    print(f"{len(writer.rows)} pictures, on {found} of which something was drawn{about}")
    print(f"Predictions: {path}")
    _say_masks(cli, writer)


def _drawn(cli: TransferCLI) -> tuple[MaskJudge, MaskWriter]:
    """Return what the sink kept; empty where no batch came."""
    sink: MaskSink = cli.model.sink
    judge = sink.judge or sink.begin()
    if sink.writer is None:
        raise RuntimeError("The sink of masks has no writer.")
    return judge, sink.writer


def _say_masks(cli: TransferCLI, writer: MaskWriter) -> None:
    if writer.save and writer.rows:
        print(f"Masks: {cli.output / 'masks'}")


def _seconds(cli: TransferCLI, rows: dict[str, MaskRow]) -> dict[str, float]:
    """Return what the fit and each baseline took."""
    fit = read_facts(cli.folder).get("fit_seconds")
    found: dict[str, Any] = {"fit": None if fit is None else fit.value}
    found |= {f"baseline_{name}": row.seconds for name, row in rows.items()}
    return {name: float(value) for name, value in found.items() if value is not None}
