"""Tests of the rows for what was heard."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_transfer.data import Skipped
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation.transcripts_file import TRANSCRIPT_COLUMNS, write_transcripts
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Record
from tests.unit.evaluation.speech_toys import heard, plain, utterances

RECORDS = utterances(2, 2)


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_input_has_a_row_in_order(tmp_path: Path) -> None:
    pytest.importorskip("jiwer")
    broken = [
        Skipped(Record("bad", RECORDS[0].input, label="Yes."), "empty file", 1),
        Skipped(Record("x", "x"), "gone"),
    ]
    found = [item._replace(text="wrong", problem="") for item in heard(RECORDS)]
    rows = read(write_transcripts(tmp_path / "predictions.jsonl", RECORDS, found, plain, broken))
    assert [row["id"] for row in rows] == ["u0", "bad", "u1", "u2", "u3", "x"]
    assert all(tuple(row) == TRANSCRIPT_COLUMNS for row in rows)
    assert rows[0]["path"] == "s0/0.wav"
    assert rows[0]["duration"] == RECORDS[0].input.duration
    assert rows[5]["duration"] is None
    assert rows[0]["text"] == rows[0]["text_normalised"] == "wrong"
    assert rows[0]["reference"] == RECORDS[0].label
    assert rows[0]["reference_normalised"] == plain(RECORDS[0].label)
    assert (rows[0]["wer"], rows[0]["confidence"], rows[0]["speaker"]) == (1.0, 0.8, "s0")
    assert (rows[1]["text"], rows[1]["reference"], rows[1]["reason"]) == (None, "Yes.", "empty file")
    with pytest.raises(DataError, match=r"predictions\.jsonl"):
        write_transcripts(tmp_path / "predictions.jsonl", RECORDS, found, plain)


def test_without_references_no_rate_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    records = [replace(record, label=None, input=replace(record.input, duration=None)) for record in RECORDS]
    rows = read(
        write_transcripts(tmp_path / "p.jsonl", records, [Transcript(2, "Yes.", None, 1.0, "only blanks")], plain)
    )
    assert len(rows) == 1
    assert (rows[0]["id"], rows[0]["text_normalised"], rows[0]["wer"]) == ("u2", "yes", None)
    assert rows[0]["duration"] == RECORDS[2].meta["duration"]
    assert (rows[0]["problem"], rows[0]["confidence"]) == ("only blanks", None)
