"""Compare tested runs that transcribe: word and character errors on the same utterances and the same draws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.compare import ComparedRun, RunComparison, run_names
from lightning_transfer.evaluation.tested_runs import read_facts
from lightning_transfer.evaluation.transcription_texts import TextErrors, compare_texts
from lightning_transfer.metrics import Resamples
from lightning_transfer.metrics.bootstrap import Float

__all__ = ["compare_transcripts", "transcripts_folder"]

_FILE = "predictions.jsonl"
_NAMES = ("wer", "cer", "substitution_rate", "insertion_rate", "deletion_rate", "sentence_error_rate")


@dataclass(frozen=True)
class _Row:
    """An utterance that was judged."""

    speaker: str | None
    reference: str
    text: str


def transcripts_folder(folder: str | Path) -> Path | None:
    """Return the folder of a test that wrote transcripts: the given one, or its ``test``; None for other runs."""
    for place in (Path(folder), Path(folder) / "test"):
        if (place / _FILE).is_file() and _evaluation(place).get("task") == "transcription":
            return place
    return None


def compare_transcripts(
    folders: Sequence[Path],
    names: Sequence[str | Path],
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RunComparison:
    """Compare what ``test`` wrote in several folders, on the utterances that all of them judged.

    Args:
        folders: Of the tests, as `transcripts_folder` finds them.
        names: As the user gave them.
        n_resamples: Draws of the bootstrap over speakers.
        confidence: Of the intervals.
        seed: Of the draws.

    Raises:
        TransferError: If no utterance was judged by all, with the same reference.
    """
    shown = run_names(names)
    tested = [_rows(folder) for folder in folders]
    common = [
        key
        for key, row in tested[0].items()
        if all(key in run and run[key].reference == row.reference for run in tested)
    ]
    if not common:
        raise TransferError(
            f"No utterance was judged by all of {', '.join(f'`{name}`' for name in shown)} with the same reference. "
            "Test them on the same data, with the same `--evaluation.scoring_normaliser`."
        )
    speakers = [tested[0][key].speaker for key in common]
    runs: list[ComparedRun] = []
    reference: Resamples | None = None
    for name, folder, rows in zip(shown, folders, tested, strict=True):
        found = compare_texts([rows[key].reference for key in common], [rows[key].text for key in common], parts=False)
        drawn = _draw(found, speakers, n_resamples, seed)
        both = None if reference is None else drawn.minus(reference)
        table = {key: drawn.interval(key, confidence=confidence, reason="no reference has words") for key in _NAMES}
        runs.append(
            ComparedRun(
                name=name,
                folder=str(folder),
                n=len(common),
                num_groups=int(drawn.codes.max()) + 1,
                metrics=table,
                difference={} if both is None else {key: both.interval(key, confidence=confidence) for key in _NAMES},
                paired=None if both is None else True,
                facts=read_facts(folder),
            )
        )
        reference = reference or drawn
    return RunComparison(tuple(runs), "wer", tuple(_notes(shown, tested, len(common))), confidence)


def _rows(folder: Path) -> dict[str, _Row]:
    """Return the utterances that have a reference and could be read."""
    found = {}
    for line in (folder / _FILE).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("reference") is not None and row.get("reason") is None:
            speaker = row.get("speaker")
            found[str(row["id"])] = _Row(speaker, row["reference_normalised"] or "", row["text_normalised"] or "")
    return found


def _draw(found: TextErrors, speakers: Sequence[str | None], n_resamples: int, seed: int) -> Resamples:
    words, letters = found.words, found.characters

    def statistic(weights: Float) -> dict[str, Float]:
        return {
            "wer": metrics.error_rate(words.errors, words.lengths, weights),
            "cer": metrics.error_rate(letters.errors, letters.lengths, weights),
            "substitution_rate": metrics.error_rate(words.substitutions, words.lengths, weights),
            "insertion_rate": metrics.error_rate(words.insertions, words.lengths, weights),
            "deletion_rate": metrics.error_rate(words.deletions, words.lengths, weights),
            "sentence_error_rate": metrics.error_rate(words.errors > 0, words.lengths >= 0, weights),
        }

    return metrics.resample(statistic, speakers, n_resamples=n_resamples, seed=seed)


def _notes(names: Sequence[str], tested: Sequence[Mapping[str, _Row]], common: int) -> list[str]:
    notes = []
    most = max(len(rows) for rows in tested)
    if common < most:
        notes.append(
            f"{common} utterances were judged by all runs with the same reference, of up to {most}; the others are "
            "left out."
        )
    if len(names) > 2:
        notes.append(
            f"{len(names) - 1} runs are compared with `{names[0]}`: of several, the best looks better than it is. "
            "Choose on validation, and test the one that you chose."
        )
    return notes


def _evaluation(place: Path) -> dict[str, Any]:
    try:
        values = json.loads((place / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
