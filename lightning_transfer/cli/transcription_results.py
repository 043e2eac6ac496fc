"""What follows a verb of the Trainer where speech is recognised: the model, the transcripts, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from lightning_transfer.cli.baselines import shows_bar
from lightning_transfer.cli.decoding_clock import DecodingClock
from lightning_transfer.cli.facts import read_facts
from lightning_transfer.cli.kept_model import finish_fit, finish_validate
from lightning_transfer.cli.report import report_of_test
from lightning_transfer.cli.tracking import log_scores
from lightning_transfer.cli.transcription_baselines import other_recognisers, piece_starts
from lightning_transfer.data.transcripts import normaliser
from lightning_transfer.errors import listing
from lightning_transfer.evaluation import (
    RecogniserOutputs,
    evaluate_transcription,
    format_transcription,
    join_transcripts,
    write_transcripts,
)
from lightning_transfer.files import write_json
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["finish_fit", "finish_predict", "finish_test", "finish_validate"]

FILE = "predictions.jsonl"


def finish_test(cli: TransferCLI) -> None:
    """Judge what the module heard beside other recognisers; write and print it."""
    if not cli.trainer.is_global_zero:
        return
    data, options = cli.datamodule, cli.config_init["evaluation"]
    records = data.records_for("test")
    heard = _joined(cli, cli.model.test_outputs, "test")
    skipped = [item for item in data.list_skipped("fit") if item.record.split in (None, "test")]
    name, normalise = _scoring(cli)
    path = write_transcripts(
        cli.output / FILE, records, heard, normalise, skipped if len(heard) == len(records) else ()
    )
    rows, interrupted = other_recognisers(cli, [item.index for item in heard])
    result = evaluate_transcription(
        heard,
        records,
        cli.model.schema,
        normalise=normalise,
        normaliser=name,
        baselines=rows,
        keywords=options.list_keywords() or list(getattr(data, "keywords", ())),
        slices=options.slices,
        decoding_seconds=_decoding_seconds(cli),
        device=str(cli.trainer.strategy.root_device),
        seconds=_seconds(cli, rows),
        show_progress=shows_bar(cli),
    )
    result.write_json(cli.output / "metrics.json")
    write_json(cli.output / "evaluation.json", result.to_dict())
    log_scores(cli.trainer.loggers, result.flat(), "test")
    print(format_transcription(result))
    if skipped:
        names = listing(item.record.id for item in skipped)
        print(f"Not judged, as it could not be read: {names} (see `reason` in {FILE})")
    print(f"Written: {path}")
    report_of_test(cli)
    if interrupted:
        raise KeyboardInterrupt


def finish_predict(cli: TransferCLI, batches: Sequence[Sequence[Transcript]]) -> None:
    """Write what was heard, a row for each input, unreadable ones with the reason."""
    if not cli.trainer.is_global_zero:
        return
    data = cli.datamodule
    heard = _joined(cli, list(chain.from_iterable(batches)), "predict")
    _, normalise = _scoring(cli)
    skipped = data.list_skipped("predict")
    path = write_transcripts(cli.output / FILE, data.records_for("predict"), heard, normalise, skipped)
    troubled = sum(bool(item.problem) for item in heard)
    about = f", {len(skipped)} unreadable" if skipped else ""
    about += f", {troubled} in which the recogniser doubts itself" if troubled else ""
    print(f"{len(heard)} recordings transcribed{about}")
    print(f"Predictions: {path}")


def _joined(cli: TransferCLI, heard: Sequence[Transcript], split: Split) -> list[Transcript]:
    data = cli.datamodule
    return join_transcripts(heard, piece_starts(data, data.records_for(split), heard))


def _scoring(cli: TransferCLI) -> tuple[str, Callable[[str], str]]:
    """Return the scoring normaliser's name and itself: that of the options, or of the data."""
    given = cli.config_init["evaluation"].scoring_normaliser
    name = str(given or cli.model.schema.preprocessing.get("scoring_normaliser", "basic"))
    return name, normaliser(name)


def _decoding_seconds(cli: TransferCLI) -> float | None:
    clocks = [item for item in cli.trainer.callbacks if isinstance(item, DecodingClock)]  # type: ignore[attr-defined]
    return clocks[0].seconds if clocks else None


def _seconds(cli: TransferCLI, rows: dict[str, RecogniserOutputs]) -> dict[str, float]:
    """Return what the fit and each other recogniser took."""
    fit = read_facts(cli.folder).get("fit_seconds")
    found: dict[str, Any] = {"fit": None if fit is None else fit.value}
    found |= {f"baseline_{name}": row.seconds for name, row in rows.items()}
    return {name: float(value) for name, value in found.items() if value is not None}
