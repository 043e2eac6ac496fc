"""Tests of the frozen result as plain values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.slices import Slice, SliceTable
from lightning_transfer.evaluation.transcription_result import SpeakerScore, TranscriptionResult, Utterance
from lightning_transfer.metrics import AlignedPart, ErrorCounts, Interval

WER = Interval(0.5, 0.25, 0.75, n=4, num_groups=2)
NONE = Interval(None, None, None, n=0, reason="no reference has words")
UTTERANCE = Utterance(
    "u1",
    "a.wav",
    0.0,
    None,
    "mix",
    "s1",
    "One.",
    "two",
    (AlignedPart("substitute", ("one",), ("two",)),),
    ErrorCounts(0, 1),
)


def result(**more: object) -> TranscriptionResult:
    values = {"metrics": {"wer": WER}, "n": 4, "num_groups": 2, "normaliser": "basic", **more}
    return TranscriptionResult(words=ErrorCounts(2, 2), characters=ErrorCounts(8, 4), **values)  # type: ignore[arg-type]


def test_flat_names_baselines_and_the_worst() -> None:
    speakers = tuple(SpeakerScore(name, 2, ErrorCounts(), WER, WER) for name in "ab")
    slices = SliceTable("wer", (Slice("accent", "x", 30, 6, 0, False, {"wer": WER}, NONE),), higher_is_worse=True)
    found = result(baselines={"pretrained": {"wer": NONE}}, speakers=speakers, slices=slices).flat()
    assert found["wer_of_pretrained"]["reason"] == "no reference has words"
    assert "speaker `a`: the highest of 2" in found["wer_worst_speaker"]["reason"]
    assert "`accent` is `x`" in found["wer_worst_slice"]["reason"]
    assert set(result().flat()) == {"wer"}


def test_the_highest_rate_is_the_worst_slice() -> None:
    def row(value: float) -> Slice:
        return Slice("accent", str(value), 30, 6, 0, False, {"wer": Interval(value, None, None, 30)}, NONE)

    table = SliceTable("wer", (row(0.1), row(0.9), row(0.5)), higher_is_worse=True)
    assert [item.value for item in table.worst] == ["0.9", "0.5", "0.1"]


def test_plain_values_hold_everything(tmp_path: Path) -> None:
    found = result(worst=(UTTERANCE,))
    values = found.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["worst"][0]["parts"] == [{"kind": "substitute", "reference": ["one"], "hypothesis": ["two"]}]
    assert values["worst"][0]["wer"] == 1.0
    assert (values["task"], values["headline"], values["slices"]) == ("transcription", "wer", [])
    path = found.write_json(tmp_path / "metrics.json")
    assert json.loads(path.read_text())["wer"]["value"] == 0.5
    with pytest.raises(TransferError, match=r"metrics\.json"):
        found.write_json(path)
