"""General sentences: letters, words and numbers are what the vocabulary and the voice can say."""

import re

import numpy as np
import pytest

from recipes.speech.numbers import cardinal, ordinal, spoken_digits
from recipes.speech.sentences import general_sentence, lexicon


def test_the_lexicon_is_large_and_spelled_in_the_vocabulary() -> None:
    words = lexicon().everything
    assert len(words) == len(set(words)) > 4000
    assert not [word for word in words if not re.fullmatch(r"[a-z]+('[a-z]+)?", word)]
    assert {"zero", "fourteen", "ninety", "thousand", "twelfth"} < set(words)


@pytest.mark.parametrize(
    ("slot", "forms"),
    [
        ("nouns", "children cities boxes churches leaves keys potatoes heroes"),
        ("ved", "stopped carried baked played went thought dropped"),
        ("ving", "stopping carrying baking playing going tying agreeing being sitting opening"),
        ("vs", "stops carries watches plays goes has is does"),
    ],
)
def test_words_are_inflected_as_they_are_spelled(slot: str, forms: str) -> None:
    assert set(forms.split()) <= set(lexicon().slots[slot])


def test_verb_forms_stand_at_the_same_place() -> None:
    slots = lexicon().slots
    assert len(slots["verb"]) == len(slots["vs"]) == len(slots["ved"]) == len(slots["ving"])
    place = slots["verb"].index("run")
    assert (slots["vs"][place], slots["ved"][place], slots["ving"][place]) == ("runs", "ran", "running")


def test_the_generator_decides_alone() -> None:
    one, same, other = (np.random.default_rng(seed) for seed in (0, 0, 1))
    first = [general_sentence(one) for _ in range(20)]
    assert first == [general_sentence(same) for _ in range(20)]
    assert first != [general_sentence(other) for _ in range(20)]


def test_sentences_are_of_known_words_and_no_slot_stays_open() -> None:
    generator, known = np.random.default_rng(2), set(lexicon().everything)
    drawn = [general_sentence(generator, max_words=9) for _ in range(800)]
    found = {word for text in drawn for word in text.split()}
    # Words of the templates themselves; they are few.
    assert len(found - known) < 15
    assert all(re.fullmatch(r"[a-z']+", word) for word in found)
    lengths = [len(text.split()) for text in drawn]
    assert max(lengths) <= 9
    assert lengths.count(1) > 100
    assert {general_sentence(generator, max_words=1).count(" ") for _ in range(50)} == {0}


def test_numbers_are_those_that_are_written() -> None:
    """Each is read back by a reader of its own."""
    values = {cardinal(value): value for value in range(20)} | {cardinal(value): value for value in range(20, 100, 10)}

    def read(text: str) -> int:
        front, thousand, rest = text.rpartition(" thousand")
        total = read(front) * 1000 if thousand else 0
        if not rest.strip():
            return total
        part = 0
        for word in rest.replace(" and ", " ").split():
            part = part * 100 if word == "hundred" else part + values[word]
        return total + part

    for value in [*range(1200), 9999, 10_000, 12_040, 100_001, 999_999]:
        assert read(cardinal(value)) == value
    assert [ordinal(value) for value in (3, 8, 20, 21, 30)] == [
        "third",
        "eighth",
        "twentieth",
        "twenty first",
        "thirtieth",
    ]
    assert spoken_digits("90") == "nine zero"
    with pytest.raises(ValueError, match="got 1000000"):
        cardinal(1_000_000)
