"""Tests of what the normaliser changed, confusions and slices of errors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_transfer.evaluation.transcription_parts import (
    changed_words,
    find_word_confusions,
    slice_error_terms,
    worst_utterances,
)
from lightning_transfer.evaluation.transcription_texts import compare_texts
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Record
from tests.unit.evaluation.speech_toys import plain

pytest.importorskip("jiwer")


def test_changed_words_are_counted_on_each_side() -> None:
    found = changed_words(["Hello, World.", "Hello, there"], ["hello World."], plain)
    assert [(item.before, item.after, item.in_references, item.in_hypotheses) for item in found] == [
        ("Hello,", "hello", 2, 0),
        ("World.", "world", 1, 1),
    ]


def test_a_word_that_vanishes_is_a_change_and_an_unchanged_text_is_none() -> None:
    assert [(item.before, item.after) for item in changed_words(["yes ... no"], [], plain)] == [("...", "")]
    assert changed_words(["yes no"], ["", "no"], plain) == []


def test_words_that_change_together_are_one_change() -> None:
    def digits(text: str) -> str:
        return text.lower().replace("twenty five", "25")

    found = changed_words(["Call Twenty five now"], [], digits)
    assert [(item.before, item.after) for item in found] == [("Call Twenty five", "call 25")]
    found = changed_words(["call twenty five now"], [], digits)
    assert [(item.before, item.after) for item in found] == [("twenty five", "25")]


def test_confusions_are_pairs_with_examples() -> None:
    said, got = ["a b c", "a b", "b"], ["x y c", "x b", "y"]
    records = [Record(id=str(place), input="", label=text) for place, text in enumerate(said)]
    found = find_word_confusions(records, compare_texts(said, got))
    assert [(item.said, item.heard, item.n, item.examples) for item in found] == [
        ("a", "x", 2, ("0", "1")),
        ("b", "y", 2, ("0", "2")),
    ]


def test_slices_read_rates_from_sums() -> None:
    errors = compare_texts(["a b", "c", ""], ["a", "x y", "z"])
    terms = slice_error_terms(errors)
    rates = terms.read(np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1]]) @ terms.values)
    assert rates["wer"][:2].tolist() == [4 / 3, 1 / 2]
    assert rates["deletion_rate"][0] == 1 / 3
    assert np.isnan(rates["wer"][2])
    assert terms.among(terms.values, terms.classes_of(np.ones(3, dtype=bool)))[:2].tolist() == [0.5, 2.0]
    assert terms.names[0] == "wer"
    assert terms.higher_is_worse


def test_worst_of_equal_errors_is_the_shorter_one() -> None:
    said, got = ["a b c d", "a", "c", "a b c"], ["a b c x", "x", "c", "x y c"]
    records = [Record(id=str(place), input=f"{place}.wav", label=text) for place, text in enumerate(said)]
    transcripts = [Transcript(place, text, 0.5, 1.0) for place, text in enumerate(got)]
    found = worst_utterances(records, transcripts, compare_texts(said, got), 10)
    assert [item.id for item in found] == ["3", "1", "0"]
    assert (found[0].path, found[0].start, found[0].duration) == ("3.wav", 0.0, None)
