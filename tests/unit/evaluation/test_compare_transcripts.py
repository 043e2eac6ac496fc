"""Tests of comparing runs that transcribe, against the paired difference written out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import compare_runs, format_comparison, write_transcripts
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Record
from tests.unit.evaluation.speech_toys import heard, plain, utterances

pytest.importorskip("jiwer")

RECORDS = utterances()


def written(folder: Path, transcripts: list[Transcript], records: list[Record] = RECORDS) -> Path:
    write_transcripts(folder / "test" / "predictions.jsonl", records, transcripts, plain)
    (folder / "test" / "evaluation.json").write_text(json.dumps({"task": "transcription"}))
    (folder / "metrics.json").write_text(json.dumps({"fit_seconds": {"value": 12.0}}))
    return folder


def test_differences_are_paired_over_speakers(tmp_path: Path) -> None:
    first = written(tmp_path / "a", heard(RECORDS))
    second = written(tmp_path / "b", heard(RECORDS, 0.5, seed=3))
    found = compare_runs([first, second / "test"], n_resamples=3000)
    assert [run.name for run in found.runs] == ["a", "test"]
    assert found.headline == "wer"
    ours, theirs = found.runs
    assert (ours.n, ours.num_groups, ours.facts) == (48, 8, {"fit_seconds": 12.0})
    difference = theirs.difference["wer"]
    assert difference.value == pytest.approx(theirs.metrics["wer"].value - ours.metrics["wer"].value)
    lines = [[json.loads(line) for line in (run / "test/predictions.jsonl").open()] for run in (first, second)]
    words = np.array([len(row["reference_normalised"].split()) for row in lines[0]])
    errors = [np.array([row["wer"] for row in rows]) * words for rows in lines]
    gap = (errors[1] - errors[0]).reshape(8, 6).sum(1)
    sizes = words.reshape(8, 6).sum(1)
    rng = np.random.default_rng(1)
    draws = [gap[chosen].sum() / sizes[chosen].sum() for chosen in rng.integers(0, 8, size=(3000, 8))]
    assert [difference.low, difference.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)
    assert "minus a" in format_comparison(found)


def test_only_what_all_judged_is_compared(tmp_path: Path) -> None:
    first = written(tmp_path / "a", heard(RECORDS))
    second = written(tmp_path / "b", heard(RECORDS)[:30])
    found = compare_runs([first, second, second], n_resamples=50)
    assert [run.n for run in found.runs] == [30, 30, 30]
    assert found.runs[1].difference["wer"].value == 0.0
    assert "30 utterances were judged by all runs" in found.notes[0]
    assert "the best looks better" in found.notes[1]
    changed = [Record(record.id, record.input, "Other words.", group=record.group) for record in RECORDS[:8]]
    found = compare_runs([first, written(tmp_path / "d", heard(RECORDS), [*changed, *RECORDS[8:]])], n_resamples=50)
    assert found.runs[0].n == 40
    other = [Record(f"x{record.id}", record.input, record.label) for record in RECORDS]
    third = written(tmp_path / "c", heard(RECORDS), other)
    with pytest.raises(TransferError, match="No utterance was judged by all of `a`, `c`"):
        compare_runs([first, third])


def test_runs_of_another_kind_are_not_mixed(tmp_path: Path) -> None:
    first = written(tmp_path / "a", heard(RECORDS))
    (tmp_path / "b").mkdir()
    with pytest.raises(TransferError, match="was not tested"):
        compare_runs([first, tmp_path / "b"])
