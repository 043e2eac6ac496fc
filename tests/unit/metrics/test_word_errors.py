"""Tests of word and character errors against a dynamic program written here, and cases done by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lightning_transfer.errors import TransferError
from lightning_transfer.metrics import (
    ErrorCounts,
    align,
    character_errors,
    error_rate,
    keyword_counts,
    word_errors,
)

pytest.importorskip("jiwer")


def edit_distance(said: list[str], heard: list[str]) -> int:
    """Wagner and Fischer's table, without a library."""
    row = list(range(len(heard) + 1))
    for i, left in enumerate(said, start=1):
        before, row[0] = row[0], i
        for j, right in enumerate(heard, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (left != right))
    return row[-1]


def random_pairs(seed: int, n: int = 200) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    words = ["a", "b", "cc", "d", "ee"]

    def text() -> str:
        return " ".join(rng.choice(words, size=int(rng.integers(0, 9))))

    return [text() for _ in range(n)], [text() for _ in range(n)]


@pytest.mark.parametrize("units", ["words", "characters"])
def test_errors_are_the_edit_distance(units: str) -> None:
    references, hypotheses = random_pairs(0)
    count, split = (word_errors, str.split) if units == "words" else (character_errors, list)
    for said, heard, counts in zip(references, hypotheses, count(references, hypotheses), strict=True):
        assert counts.errors == edit_distance(split(said), split(heard)), (said, heard)
        assert counts.length == len(split(said))
        assert counts.hits + counts.substitutions + counts.insertions == len(split(heard))


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("the cat sat", "the cat sat", ErrorCounts(3, 0, 0, 0)),
        ("the cat sat", "the bat", ErrorCounts(1, 1, 0, 1)),
        ("yes", "yes yes yes yes", ErrorCounts(1, 0, 3, 0)),
        ("one two", "", ErrorCounts(0, 0, 0, 2)),
        ("", "ghost words", ErrorCounts(0, 0, 2, 0)),
        ("", "", ErrorCounts()),
        ("  one \t two\n", "one two", ErrorCounts(2, 0, 0, 0)),
        ("One", "one", ErrorCounts(0, 1, 0, 0)),
    ],
)
def test_words_by_hand(said: str, heard: str, expected: ErrorCounts) -> None:
    assert word_errors([said], [heard]) == [expected]


def test_characters_by_hand() -> None:
    # A blank between words is a character: `ab c` has four, and one of them is missing in `abc`.
    assert character_errors(["ab c", "kitten", "", "ßü"], ["abc", "sitting", "x", "ßu"]) == [
        ErrorCounts(3, 0, 0, 1),
        ErrorCounts(4, 2, 1, 0),
        ErrorCounts(0, 0, 1, 0),
        ErrorCounts(1, 1, 0, 0),
    ]


def test_a_rate_above_one_stays_and_an_empty_reference_has_none() -> None:
    over, empty = word_errors(["yes", ""], ["no no no", "um"])
    assert over.rate == 3.0
    assert empty.rate is None
    assert empty.insertions == 1


def test_empty_sides_between_full_ones_do_not_shift_the_others() -> None:
    counts = word_errors(["a", "", "b c", "d", "e"], ["a", "x", "", "d", "f"])
    assert [item.errors for item in counts] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("units", ["words", "characters"])
def test_an_alignment_holds_both_sides_whole(units: str) -> None:
    references, hypotheses = random_pairs(1, n=60)
    for said, heard in zip(references, hypotheses, strict=True):
        parts = align(said, heard, units)
        split = str.split if units == "words" else list
        assert [unit for part in parts for unit in part.reference] == split(said)
        assert [unit for part in parts for unit in part.hypothesis] == split(heard)
        for part in parts:
            sizes = len(part.reference), len(part.hypothesis)
            assert {
                "equal": part.reference == part.hypothesis,
                "substitute": sizes[0] == sizes[1] > 0,
                "insert": sizes[0] == 0 < sizes[1],
                "delete": sizes[1] == 0 < sizes[0],
            }[part.kind]


def test_the_rate_of_a_corpus_weighs_by_length() -> None:
    errors, lengths = [1, 0, 4], [1, 10, 0]
    assert error_rate(errors, lengths).tolist() == [5 / 11]
    drawn = error_rate(errors, lengths, [[2, 1, 0], [0, 0, 3]])
    assert drawn[0] == 2 / 12
    assert np.isnan(drawn[1])


def test_keywords_are_counted_as_whole_words_and_phrases() -> None:
    counts = keyword_counts(
        ["ask acme plus now", "acme acme", "nothing", "pacme"],
        ["acme ask plus", "acme acme acme", "acme", "pacme"],
        ["acme", "acme plus", "zoom"],
    )
    assert counts["acme"].said.tolist() == [1, 2, 0, 0]
    assert counts["acme"].recognised.tolist() == [1, 2, 0, 0]
    assert counts["acme"].false_alarms.tolist() == [0, 1, 1, 0]
    assert counts["acme plus"].said.tolist() == [1, 0, 0, 0]
    assert counts["acme plus"].recognised.tolist() == [0, 0, 0, 0]
    assert counts["zoom"].said.sum() == 0


def test_wrong_arguments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="got 1 for 2"):
        word_errors(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="got 'letters'"):
        align("a", "b", "letters")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got ' '"):
        keyword_counts(["a"], ["a"], [" "])
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(TransferError, match=r"lightning-transfer\[speech\]"):
        word_errors(["a"], ["a"])


def test_the_function_is_not_hidden_by_the_file_of_its_name() -> None:
    import lightning_transfer.metrics.error_rate
    from lightning_transfer import metrics

    assert metrics.error_rate([1], [4], [[1.0]]).tolist() == [0.25]
    assert lightning_transfer.metrics.error_rate is metrics.error_rate
