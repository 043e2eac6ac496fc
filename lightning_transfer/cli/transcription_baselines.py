"""Other recognisers beside the model that is tested: as it was before adapting, and trained from scratch."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.cli.baselines import shows_bar
from lightning_transfer.cli.scratch import train_scratch
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import BackboneError, TransferError
from lightning_transfer.evaluation import RecogniserOutputs, collect_transcripts, join_transcripts
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Record, Schema

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["other_recognisers", "piece_starts"]

GREEDY = "greedy"
"""Of a row, or the end of its name: the best token of each frame, where the model writes words of a lexicon."""


class _Other(NamedTuple):
    """A recogniser beside the one that is tested, what it is, and the seconds that it took to have it."""

    module: Any
    about: str
    seconds: float


def other_recognisers(cli: TransferCLI, places: Collection[int]) -> tuple[dict[str, RecogniserOutputs], bool]:
    """Run the recognisers that the options ask for on the records that the model was tested on.

    What cannot be run keeps its row, with the reason in place of numbers. Where the model writes words of a lexicon,
    each of them, and the model too, has a second row for the best tokens: the two are different results.

    Args:
        cli: After its trainer's ``test``.
        places: Of the records.

    Returns:
        The rows, and whether the user interrupted the training of one.
    """
    rows: dict[str, RecogniserOutputs] = {}
    names: list[str] = cli.config_init["evaluation"].baselines
    interrupted, has_lexicon = False, getattr(cli.model, "decoding", None) is not None
    if has_lexicon:
        rows[GREEDY] = _greedily(cli, _Other(cli.model, "the same model", 0.0), places)
    for name in names:
        try:
            found = _pretrained(cli) if name == "pretrained" else _scratch(cli)
            rows[name] = _listened(cli, found, places)
            if has_lexicon:
                rows[f"{name}_{GREEDY}"] = _greedily(cli, found, places)
        except KeyboardInterrupt:
            rows[name], interrupted = RecogniserOutputs(None, "its training was interrupted"), True
        except Exception as error:  # whatever another recogniser runs into, the results of this one are there
            reason = str(error) if isinstance(error, TransferError) else f"{type(error).__name__}: {error}"
            rank_zero_warn(f"The row `{name}` has no numbers; all else of this test is kept: {reason}")
            rows[name] = RecogniserOutputs(None, reason)
        if interrupted:
            break
    return rows, interrupted


def piece_starts(data: Any, records: Sequence[Record], heard: Sequence[Transcript]) -> dict[int, list[float]]:  # noqa: ANN401
    """Return where the pieces of each record that was cut begin in it, in seconds.

    Args:
        data: The datamodule.
        records: Of the split.
        heard: What was heard in it, in pieces.
    """
    found = {}
    for place in sorted({item.index for item in heard if item.num_pieces > 1}):
        record = records[place]
        pieces = data.pieces(record, learn=False) or [record]
        found[place] = [piece.input.start - record.input.start for piece in pieces]
    return found


def _pretrained(cli: TransferCLI) -> _Other:
    """Run the backbone with its own head, as it was before adapting, writing in its own alphabet."""
    begin = time.perf_counter()
    module, given = cli.model, cli.resolved["model"]
    if given.get("weights") == "random":
        raise TransferError("the network began with random weights, so there is nothing before adapting")
    arguments = {
        **module.rebuild_arguments(),
        "backbone": given["backbone"],
        "weights": given.get("weights"),
        "card": given.get("card"),
    }
    arguments.pop("lora", None)
    try:
        twin = type(module)(**arguments)
    except BackboneError as error:
        raise TransferError(f"its weights cannot be read: {error}") from error
    twin.use_schema(_own_schema(twin, module.schema))
    twin.configure_model()
    if not getattr(twin, "head_is_pretrained", True):
        raise TransferError(f"`{given['backbone']}` comes without a head that writes, so it cannot be judged as it is")
    return _Other(twin, "the backbone with its own head, before adapting", time.perf_counter() - begin)


def _own_schema(twin: Any, schema: Schema) -> Schema:  # noqa: ANN401 - a module of speech
    """Return the schema with the vocabulary of the card: what it writes is compared as text, whatever the alphabet."""
    if not schema.classes:
        return schema
    vocabulary = CTCVocabulary.from_card(twin.card)
    if vocabulary is None:
        raise TransferError(f"`{twin.card.name}` has no vocabulary of its own: it was pretrained without transcripts")
    preprocessing = {**schema.preprocessing, "vocabulary": vocabulary.to_dict()}
    return replace(schema, classes=vocabulary.tokens, preprocessing=preprocessing)


def _scratch(cli: TransferCLI) -> _Other:
    """Train the same network from random weights on the same split, with a rate of its own."""
    found = train_scratch(cli, show_progress=shows_bar(cli))
    return _Other(found.module, found.description, found.seconds)


def _listened(cli: TransferCLI, other: _Other, places: Collection[int]) -> RecogniserOutputs:
    """Run it on the records, and add the time to what it took."""
    data, device, begin = cli.datamodule, cli.trainer.strategy.root_device, time.perf_counter()
    loader = data.ordered_dataloader("test", only=places)
    pieces = collect_transcripts(other.module, loader, device, shows_bar(cli))
    heard = join_transcripts(pieces, piece_starts(data, data.records_for("test"), pieces))
    return RecogniserOutputs(heard, other.about, other.seconds + time.perf_counter() - begin)


def _greedily(cli: TransferCLI, other: _Other, places: Collection[int]) -> RecogniserOutputs:
    """Run it without its lexicon."""
    decoding, other.module.decoding = other.module.decoding, None
    try:
        return _listened(cli, other._replace(about=f"{other.about}, the best token of each frame"), places)
    finally:
        other.module.decoding = decoding
