import random
import sys
from itertools import combinations

import pytest

from lightning_transfer.data.text_neighbours import (
    COMPARED_LETTERS,
    MIN_JACCARD,
    TextIndex,
    drop_copies,
    normalise_text,
)
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

WORDS = (
    "lamp dark since monday please send refund order box broken app camera light hub never again thanks wrong".split()
)


def jaccard(one: str, other: str) -> float:
    runs = [{text[at : at + 4] for at in range(max(1, len(text) - 3))} for text in map(normalise_text, (one, other))]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


@pytest.fixture
def texts() -> list[str]:
    dice = random.Random(0)
    found = [" ".join(dice.choices(WORDS, k=25)) for _ in range(40)]
    for text in found[:20]:
        words = text.split()
        for _ in range(dice.randint(1, 6)):
            words[dice.randrange(25)] = dice.choice(WORDS)
        found.append(" ".join(words))
    return [*found, found[3].upper() + "!!", "hi", "Hi.", "", "?!", "..."]


def test_the_kept_texts_are_those_of_all_comparisons(texts: list[str]) -> None:
    pytest.importorskip("datasketch")
    records = [Record(str(place), text, "a") for place, text in enumerate(texts)]
    copies = drop_copies(records)
    kept: list[int] = []
    for place, text in enumerate(texts):
        if not normalise_text(text) or all(jaccard(text, texts[other]) < MIN_JACCARD for other in kept):
            kept.append(place)
    assert [int(record.id) for record in copies.records] == kept
    assert 0 < len(copies.removed) < 30
    for record in copies.removed:
        original, similarity = copies.originals[record.id]
        assert similarity == pytest.approx(jaccard(record.input, texts[int(original)]))
        assert int(original) in kept


def test_an_index_finds_what_comparing_all_finds(texts: list[str]) -> None:
    pytest.importorskip("datasketch")
    plain = [normalise_text(text) for text in texts if normalise_text(text)]
    index, found = TextIndex(), set()
    for place, text, signature in index.sign(plain):
        found |= {(other, place, round(similarity, 9)) for other, similarity in index.query(text, signature)}
        index.add(place, text, signature)
    pairs = {(one, other): jaccard(plain[one], plain[other]) for one, other in combinations(range(len(plain)), 2)}
    assert found == {(*pair, round(value, 9)) for pair, value in pairs.items() if value >= MIN_JACCARD}


def test_which_copy_is_kept() -> None:
    rows = [
        Record("1", "my lamp", None),
        Record("2", "My lamp", "a", "train"),
        Record("3", "My lamp!", "b", "test"),
        Record("4", "your lamp", None),
        Record("5", "Your lamp", "a"),
    ]
    copies = drop_copies(rows, near=False)
    assert [record.id for record in copies.records] == ["3", "5"]
    assert copies.originals == {"1": ("3", 1.0), "2": ("3", 1.0), "4": ("5", 1.0)}
    note, warning = copies.findings()
    assert (note.code, note.count) == ("copies-removed", 3)
    assert "3 of 5 texts are removed: 3 copies and 0 nearly the same" in note.message
    assert (warning.code, warning.examples) == ("copies-with-other-label", ("2 `a` | 3 `b` (similarity 1.00)",))


def test_copies_of_a_text_that_is_nearly_another() -> None:
    pytest.importorskip("datasketch")
    first = "the lamp in the hall is dark since monday and the app does not find it"
    rows = [Record("1", first), Record("2", first + " now"), Record("3", first.upper() + " NOW!")]
    copies = drop_copies(rows)
    assert {name: original for name, (original, _) in copies.originals.items()} == {"2": "1", "3": "1"}


def test_nothing_to_remove() -> None:
    assert drop_copies([Record("1", "a"), Record("2", "b")], near=False).findings() == []


def test_long_texts_are_compared_up_to_a_limit() -> None:
    pytest.importorskip("datasketch")
    dice = random.Random(2)
    long = " ".join(dice.choices(WORDS, k=COMPARED_LETTERS // 3))
    copies = drop_copies([Record("1", long), Record("2", long + " and something else at the end")])
    assert copies.originals == {"2": ("1", 1.0)}


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(DataError, match="Run `pip install datasketch`"):
        drop_copies([Record("1", "a")])
