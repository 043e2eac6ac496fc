"""Findings on recordings: each where it applies, and only there."""

from dataclasses import replace

import pytest

from lightning_transfer.data.audio_facts import AudioFacts
from lightning_transfer.data.audio_files import AudioFile
from lightning_transfer.data.audit_audio import audio_findings
from lightning_transfer.findings import Finding
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Record

FILE = AudioFile(32_000, 16_000, 1, "PCM_16", "WAV")
FACTS = AudioFacts(FILE, 2.0, peak=0.5, level=0.1, clipped=0.0, digest="")


def _rows(count: int = 12) -> tuple[list[Record], list[AudioFacts]]:
    splits = ("train", "train", "val", "test")
    records = [
        Record(f"r{i}", AudioSegment(f"{i}.wav"), f"text {i}", splits[i % 4], f"s{i % 4}", {"duration": 2.0})
        for i in range(count)
    ]
    return records, [replace(FACTS, digest=str(i)) for i in range(count)]


def _found(records, facts, claimed=None, rate: int = 16_000) -> dict[str, Finding]:
    return {finding.code: finding for finding in audio_findings(records, facts, claimed or {}, rate)}


def test_sound_recordings_have_notes_only() -> None:
    found = _found(*_rows())
    assert set(found) == {"audio-lengths", "speakers"}
    assert (
        "12 recordings, 24.0 s in all: train 6 (12.0 s), val 3 (6.0 s), test 3 (6.0 s)"
        in found["audio-lengths"].message
    )
    assert "4 speakers (train 2, val 1, test 1); the most frequent has 25%" in found["speakers"].message
    assert "so few voices in `val` and `test`" in found["speakers"].advice
    assert audio_findings([], [], {}, 16_000) == []


@pytest.mark.parametrize(
    ("code", "changes", "severity"),
    [
        ("clipped-audio", {"clipped": 0.01}, "warning"),
        ("silent-audio", {"peak": 0.0005}, "warning"),
        ("low-bit-depth", {"file": replace(FILE, encoding="PCM_U8")}, "note"),
        ("narrow-band", {"file": replace(FILE, rate=8000)}, "note"),
        ("mixed-down", {"file": replace(FILE, channels=2)}, "note"),
        ("long-audio", {"seconds": 3600.0}, "note"),
    ],
)
def test_each_is_found(code: str, changes, severity: str) -> None:
    records, facts = _rows()
    facts[5] = replace(facts[5], **changes)
    finding = _found(records, facts)[code]
    assert (finding.severity, finding.count, finding.examples) == (severity, 1, ("r5",))
    assert "1 of 12 recordings" in finding.message


def test_a_chosen_channel_is_not_mixed() -> None:
    records, facts = _rows()
    records[5] = replace(records[5], input=AudioSegment("5.wav", channel=1))
    facts[5] = replace(facts[5], file=replace(FILE, channels=2))
    assert "mixed-down" not in _found(records, facts)


def test_wrong_durations_are_listed_worst_first_and_rounding_is_none() -> None:
    records, facts = _rows()
    finding = _found(records, facts, {"r1": 2.05, "r2": 2.11, "r3": 3.0, "r4": 9.0, "r99": 1.0})["wrong-duration"]
    assert finding.examples == ("r4 (stated 9.00 s, is 2.00 s)", "r3 (stated 3.00 s, is 2.00 s)")


def test_a_kind_that_training_lacks_is_a_warning() -> None:
    records, facts = _rows()
    facts[3] = replace(facts[3], file=replace(FILE, encoding="ULAW", rate=8000))
    finding = _found(records, facts)["mixed-audio"]
    assert finding.severity == "warning"
    assert "2 kinds (16000 Hz PCM_16 11, 8000 Hz ULAW 1). `train` has none of 8000 Hz ULAW." in finding.message
    facts[0] = replace(facts[0], file=replace(FILE, encoding="ULAW", rate=8000))
    assert _found(records, facts)["mixed-audio"].severity == "note"


def test_copies_of_sound_are_found_and_silence_is_no_copy() -> None:
    records, facts = _rows()
    facts[0] = replace(facts[0], digest="3")
    found = _found(records, facts)
    assert found["duplicates-across-splits"].examples == ("train r0 | test r3 (same sound)",)
    assert found["duplicate-labels"].count == 1
    facts = [replace(fact, digest="same", peak=0.0) for fact in facts]
    assert "duplicates" not in _found(records, facts)


def test_without_speakers_nothing_is_said_of_them() -> None:
    records, facts = _rows()
    assert "speakers" not in _found([replace(record, group=None) for record in records], facts)
