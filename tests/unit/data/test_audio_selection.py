"""Training alone leaves out what nothing can be learnt from, and counts it."""

import pytest

from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.audio_selection import leave_out_by_length, leave_out_by_text, leave_out_empty
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.types import Record

pytest.importorskip("transformers")
SPEC = AudioPreprocessing(
    {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": 16_000},
    vocabulary=CTCVocabulary.from_texts(["ab"]),
)


def _rows(*given: tuple[str, str, float]) -> list[Record]:
    return [
        Record(str(place), None, text, split, meta={"duration": seconds})
        for place, (split, text, seconds) in enumerate(given)
    ]


def test_lengths_count_in_training_alone() -> None:
    rows = _rows(
        ("train", "a", 0.05), ("val", "a", 0.05), ("train", "a", 1.0), ("train", "b", 31.0), ("test", "b", 31.0)
    )
    kept, found = leave_out_by_length(rows, 0.1, 30.0)
    assert [row.id for row in kept] == ["1", "2", "4"]
    assert [(item.code, item.count, item.severity) for item in found] == [
        ("too-long-for-training", 1, "warning"),
        ("too-short-for-training", 1, "warning"),
    ]
    assert found[0].examples == ("3 (31.00 s)",)
    assert "1 of 3 training recordings (33.3%) are longer than 30 s" in found[0].message


def test_few_of_many_are_a_note() -> None:
    rows = _rows(*[("train", "a", 1.0)] * 199, ("train", "a", 40.0))
    (finding,) = leave_out_by_length(rows, 0.1, 30.0)[1]
    assert finding.severity == "note"


def test_texts_without_enough_frames() -> None:
    # Equal neighbours need one frame more.
    rows = _rows(("train", "abababab", 0.2), ("train", "aaaab", 0.2), ("train", "a" * 5, 0.2), ("test", "a" * 50, 0.2))
    assert SPEC.frames(0.2) == 9
    crowded = Record("crowded", None, "ab" * 5, "train", meta={"duration": 0.2})
    kept, (finding,) = leave_out_by_text([*rows, crowded], SPEC)
    assert [row.label for row in kept] == ["abababab", "aaaab", "aaaaa", "a" * 50]
    assert finding.code == "too-long-for-its-frames"
    assert leave_out_by_text(rows, SPEC) == (rows, [])


def test_nothing_left_of_a_text() -> None:
    kept, (finding,) = leave_out_empty(_rows(("train", "...", 1.0), ("test", "...", 1.0), ("train", "a", 1.0)), SPEC)
    assert [row.id for row in kept] == ["1", "2"]
    assert finding.code == "nothing-to-learn"
