"""Tests of the text for the terminal: what a reader must find in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_transfer.evaluation import TranscriptionResult, evaluate_transcription, format_transcription
from lightning_transfer.evaluation.transcription import RecogniserOutputs
from tests.unit.evaluation.speech_toys import SCHEMA, heard, plain, utterances

pytest.importorskip("jiwer")


@pytest.fixture(scope="module")
def found() -> TranscriptionResult:
    records = utterances()
    ours = heard(records)
    rows = {
        "pretrained": RecogniserOutputs(heard(records, 0.5, seed=3), "as it came"),
        "scratch": RecogniserOutputs(None, "the card has no vocabulary"),
    }
    return evaluate_transcription(
        ours,
        records,
        SCHEMA,
        normalise=plain,
        normaliser="plain",
        baselines=rows,
        keywords=["acme", "zebra"],
        decoding_seconds=2.0,
        device="cpu",
        n_resamples=100,
    )


def test_every_part_is_shown(found: TranscriptionResult) -> None:
    text = format_transcription(found)
    assert "48 utterances" in text
    assert "substituted" in text
    assert "(after the scoring normaliser `plain`)" in text
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("metric"))
    assert head.split() == ["metric", "n", "model", "pretrained", "scratch"]
    row = next(line for line in lines if line.startswith("wer "))
    assert str(found.metrics["wer"]) in row
    assert str(found.baselines["pretrained"]["wer"]) in row
    assert row.endswith("n/a")
    assert any(line.startswith("scratch") and line.endswith("the card has no vocabulary") for line in lines)
    assert "real_time_factor 0.0" in text
    assert text.count("s0 ") == 1
    assert "wer of pretrained" in text
    assert "n/a (it is never said)" in text
    assert "Most frequent confusions" in text
    assert "Utterances with most errors" in text
    assert "The scoring normaliser changed" in text
    assert "Slices, the highest WER of each column first" in text
    row = next(line for line in lines if line.startswith("accent ") and " b " in line)
    assert row.endswith("small")
    assert "All 6 slices have fewer than 20 records or 5 groups" in text
    assert "No slices by `channel`: all records have `line`." in text
    assert "only blanks" in text


def test_long_tables_are_cut_and_it_is_said(found: TranscriptionResult) -> None:
    many = replace(found, speakers=found.speakers * 3, keywords=found.keywords * 11)
    text = format_transcription(many)
    assert "14 more speakers" in text
    assert "2 more keywords" in text


def test_texts_of_others_give_no_commands(found: TranscriptionResult) -> None:
    bad = replace(found.worst[0], reference="a\x1b[31mred" + 80 * "x")
    text = format_transcription(replace(found, worst=(bad,)))
    assert "\x1b" not in text
    assert "..." in text
