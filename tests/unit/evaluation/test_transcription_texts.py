"""Tests of counts as arrays, against the counts of each text."""

from __future__ import annotations

import pytest

from lightning_transfer.evaluation.transcription_texts import ErrorArrays, compare_texts
from lightning_transfer.metrics import ErrorCounts, align

pytest.importorskip("jiwer")


def test_arrays_hold_the_counts_of_each_text() -> None:
    counts = [ErrorCounts(3, 1, 2, 0), ErrorCounts(0, 0, 4, 0), ErrorCounts(1, 0, 0, 5)]
    arrays = ErrorArrays.of(counts)
    assert [arrays.at(place) for place in range(3)] == counts
    assert arrays.errors.tolist() == [3, 4, 5]
    assert arrays.total == ErrorCounts(4, 1, 6, 5)
    assert ErrorArrays.of([]).total == ErrorCounts()


def test_texts_are_compared_in_words_and_characters() -> None:
    found = compare_texts(["one two", "three", ""], ["one too", "", "ghost"])
    assert found.words.errors.tolist() == [1, 1, 1]
    assert found.words.lengths.tolist() == [2, 1, 0]
    assert found.characters.errors.tolist() == [1, 5, 5]
    assert found.silent.tolist() == [False, True, False]
    assert found.parts[0] == align("one two", "one too")
    assert compare_texts(["a"], ["a"], parts=False).parts == ()
