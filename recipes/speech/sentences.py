"""General English sentences, drawn from word lists and templates: what the embedded model learnt to hear.

Four kinds: single words, numbers as they are spoken, words in no order (so that a recogniser listens instead of
guessing by grammar), and sentences from templates. All are lower case, spelled out, without punctuation but
apostrophes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.speech.numbers import cardinal, ordinal, spoken_digits

__all__ = ["Lexicon", "general_sentence", "lexicon"]

WORDS = Path(__file__).parent / "sample" / "general"


DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
MONTHS = "january february march april may june july august september october november december".split()


@dataclass(frozen=True)
class Lexicon:
    """Words by the place that they take in a sentence.

    Attributes:
        slots: For each slot of the templates, what fills it.
        everything: All of them, each once, with the function words.
    """

    slots: dict[str, tuple[str, ...]]
    everything: tuple[str, ...]


@functools.cache
def lexicon() -> Lexicon:
    """Read the word lists and inflect them.

    Example:
        >>> words = lexicon()
        >>> len(words.everything) > 4000, "children" in words.everything, "stopped" in words.slots["ved"]
        (True, True, True)
    """
    nouns = _read("nouns")
    pairs = [(word.rstrip("*"), _past(word)) for word in _read("verbs")]
    pairs += [(base, past) for base, past in (entry.split("/") for entry in _read("irregular"))]
    doubled = {word.rstrip("*") for word in _read("verbs") if word.endswith("*")} | set(_DOUBLED)
    slots = {
        "noun": nouns,
        "nouns": tuple(_plural(word) for word in nouns),
        "verb": tuple(base for base, _ in pairs),
        "vs": tuple(_third_person(base) for base, _ in pairs),
        "ved": tuple(past for _, past in pairs),
        "ving": tuple(_ing(base, base in doubled) for base, _ in pairs),
        "adj": _read("adjectives"),
        "adv": _read("adverbs"),
        "name": _read("names"),
        "place": _read("places"),
        "day": tuple(DAYS),
        "month": tuple(MONTHS),
    }
    numbers = {word for value in range(100) for word in cardinal(value).split()} | {"hundred", "thousand", "o'clock"}
    numbers |= {ordinal(value) for value in range(1, 21)}
    everything = {word for words in slots.values() for word in words} | set(_function_words()) | numbers
    return Lexicon(slots, tuple(sorted(everything)))


def general_sentence(generator: np.random.Generator, max_words: int = 12) -> str:
    """Draw one utterance.

    Args:
        generator: The same state draws the same sentence.
        max_words: Longer ones are drawn anew; 1 gives single words.
    """
    while True:
        kind = generator.random()
        if kind < 0.22 or max_words == 1:
            found = _one_word(generator)
        elif kind < 0.36:
            found = _some_number(generator)
        elif kind < 0.60:
            count = int(generator.integers(2, 8))
            found = " ".join(_word(generator) for _ in range(count))
        else:
            found = _from_template(generator)
        if len(found.split()) <= max_words:
            return found


def _one_word(generator: np.random.Generator) -> str:
    # Digits are a fifth of the single words: they are what people say alone.
    return spoken_digits(str(generator.integers(10))) if generator.random() < 0.2 else _word(generator)


def _word(generator: np.random.Generator) -> str:
    if generator.random() < 0.2:
        words = _function_words()
        return words[generator.integers(len(words))]
    everything = lexicon().everything
    return everything[generator.integers(len(everything))]


def _some_number(generator: np.random.Generator) -> str:
    kind = generator.random()
    if kind < 0.45:
        return _digits(generator, int(generator.integers(1, 9)))
    if kind < 0.7:
        return cardinal(int(generator.integers(100)))
    if kind < 0.9:
        return cardinal(int(generator.integers(100, 10_000)))
    return ordinal(int(generator.integers(1, 32)))


def _digits(generator: np.random.Generator, count: int) -> str:
    return spoken_digits("".join(str(digit) for digit in generator.integers(10, size=count)))


def _hour(generator: np.random.Generator) -> str:
    hour = cardinal(int(generator.integers(1, 13)))
    kinds = (f"{hour} o'clock", f"half past {hour}", f"quarter to {hour}", f"{hour} fifteen", f"{hour} forty five")
    return kinds[generator.integers(len(kinds))]


def _from_template(generator: np.random.Generator) -> str:
    slots = lexicon().slots

    def fill(match: re.Match[str]) -> str:
        slot = match[1]
        if slot == "number":
            return cardinal(int(generator.integers(2, 100)))
        if slot == "ordinal":
            return ordinal(int(generator.integers(1, 32)))
        if slot == "digits":
            return _digits(generator, 4)
        if slot == "hour":
            return _hour(generator)
        return slots[slot][generator.integers(len(slots[slot]))]

    templates = _templates()
    return re.sub(r"\{(\w+)\}", fill, templates[generator.integers(len(templates))])


# Irregular verbs whose last consonant doubles before -ing.
_DOUBLED = "begin cut dig forget get hit let put run shut sit swim win".split()
_PLURALS = dict(
    pair.split("/")
    for pair in """man/men woman/women child/children foot/feet tooth/teeth mouse/mice fish/fish sheep/sheep goose/geese
    knife/knives leaf/leaves half/halves shelf/shelves wolf/wolves thief/thieves potato/potatoes tomato/tomatoes
    hero/heroes scarf/scarves volcano/volcanoes tornado/tornadoes goggles/goggles news/news stomach/stomachs""".split()
)


@functools.cache
def _read(name: str) -> tuple[str, ...]:
    # Sorted: a word's place in its file must not matter. A word twice in a file is one word.
    return tuple(sorted(set((WORDS / f"{name}.txt").read_text(encoding="utf-8").lower().split())))


@functools.cache
def _function_words() -> tuple[str, ...]:
    return tuple((WORDS / "function_words.txt").read_text(encoding="utf-8").split())


@functools.cache
def _templates() -> tuple[str, ...]:
    return tuple((WORDS / "templates.txt").read_text(encoding="utf-8").splitlines())


def _sibilant(word: str) -> bool:
    return word.endswith(("s", "x", "z", "ch", "sh"))


def _consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2] not in "aeiou"


def _plural(noun: str) -> str:
    return _PLURALS.get(noun) or _third_person(noun)


def _third_person(base: str) -> str:
    if base in ("have", "be", "do", "go"):
        return {"have": "has", "be": "is", "do": "does", "go": "goes"}[base]
    if _consonant_y(base):
        return base[:-1] + "ies"
    return base + ("es" if _sibilant(base) else "s")


def _past(marked: str) -> str:
    base = marked.rstrip("*")
    if marked.endswith("*"):
        return base + base[-1] + "ed"
    if _consonant_y(base):
        return base[:-1] + "ied"
    return base + ("d" if base.endswith("e") else "ed")


def _ing(base: str, doubled: bool) -> str:
    if doubled:
        return base + base[-1] + "ing"
    if base.endswith("ie"):
        return base[:-2] + "ying"
    if base.endswith("e") and not base.endswith(("ee", "be", "oe")):
        return base[:-1] + "ing"
    return base + "ing"
