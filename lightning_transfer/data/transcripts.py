"""Texts of speech: normalisers by name, and the vocabulary of a CTC model."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.types import BackboneCard, Schema

__all__ = ["NORMALISERS", "CTCVocabulary", "Normaliser", "frames_needed", "normaliser", "read_keywords"]

Normaliser = Callable[[str], str]
"""A pure function of a text; the same text gives the same text, in training and years later."""

_APOSTROPHES = dict.fromkeys(map(ord, "\u2019\u02bc\u02b9\u00b4\u0060\u2018\uff07"), "'")
_LONE_APOSTROPHE = re.compile(r"(?<![^\W_])'|'(?![^\W_])")


class _Letters(dict[int, str]):
    """Keep letters, their marks, digits and apostrophes; everything else is a space. Filled as letters come."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        self[code] = letter if letter == "'" or unicodedata.category(letter)[0] in "LMN" else " "
        return self[code]


_LETTERS = _Letters()


def _basic(text: str) -> str:
    r"""Return a text in lower case, without punctuation but apostrophes inside words, with one space between words.

    Marks stay on their letters, so scripts that write vowels as marks keep them; digits stay digits.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold())
    return " ".join(_LONE_APOSTROPHE.sub(" ", text.translate(_LETTERS)).split())


def _whisper(text: str) -> str:
    """Return what Whisper's authors compare: English, contractions spelt out, numbers as digits, fillers gone."""
    found: str = _english()(text)
    return " ".join(found.split())


def _none(text: str) -> str:
    """Return the text with one space for each run of white space."""
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _english() -> Any:  # noqa: ANN401 - transformers' class
    """Return transformers' normaliser, without its table of British spellings, which no package brings."""
    try:
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
    except ImportError as error:
        raise DataError(
            "The normaliser `whisper` is that of transformers, which is not installed. Run"
            " `pip install lightning-transfer[speech]`, or choose `basic`."
        ) from error
    return EnglishTextNormalizer({})


NORMALISERS: Mapping[str, Normaliser] = {"basic": _basic, "whisper": _whisper, "none": _none}
"""Name -> normaliser. ``basic`` fits every language; ``whisper`` is English; ``none`` keeps what was written."""


def normaliser(name: str) -> Normaliser:
    """Return the normaliser of that name.

    Raises:
        ValueError: If there is none; names those that exist.

    Example:
        >>> normaliser("basic")("Don\u2019t PANIC -- it's 'only' 5\u00a0pm!")
        "don't panic it's only 5 pm"
        >>> normaliser("none")("  As it  stands. ")
        'As it stands.'
    """
    if name not in NORMALISERS:
        raise ValueError(f"Unknown normaliser `{name}`.{closest(name, NORMALISERS)} Known: {', '.join(NORMALISERS)}.")
    return NORMALISERS[name]


@dataclass(frozen=True)
class CTCVocabulary:
    """What each logit of a CTC model stands for, and how a text becomes its numbers and back.

    A text is cut into the longest tokens that fit, as a rule single characters; spaces become the word delimiter. A
    character that is there in the other case alone is taken in that case: many vocabularies have capitals only. Others
    are outside: they become ``unknown`` where there is such a token, and are left out of the numbers where there is
    none. `outside` counts them, so nobody need lose them in silence. Special tokens (``<s>``) stand for no letters: a
    text that spells one is read as letters.

    Attributes:
        tokens: In the order of the logits.
        blank: The token that CTC puts between others.
        word_delimiter: The token that stands for the space between words.
        unknown: The token for what is outside; None: there is none.

    Raises:
        DataError: If tokens repeat, or one of the three named ones is missing.

    Example:
        >>> vocabulary = CTCVocabulary.from_texts(["hello you"])
        >>> vocabulary.tokens
        ('<pad>', '|', 'e', 'h', 'l', 'o', 'u', 'y')
        >>> vocabulary.encode("he y")
        [3, 2, 1, 7]
        >>> vocabulary.decode([3, 3, 0, 2, 4, 0, 4, 4, 5])
        'hello'
        >>> dict(vocabulary.outside(["hey \u00fc you"]))
        {'\u00fc': 1}
    """

    tokens: tuple[str, ...]
    blank: str = "<pad>"
    word_delimiter: str = "|"
    unknown: str | None = None

    def __post_init__(self) -> None:
        repeated = [token for token, count in Counter(self.tokens).items() if count > 1]
        if repeated:
            raise DataError(
                f"The vocabulary has {listing(f'`{token}`' for token in repeated)} more than once. Each token stands"
                " for one logit."
            )
        named = {"blank": self.blank, "word_delimiter": self.word_delimiter, "unknown": self.unknown}
        for role, token in named.items():
            if token is not None and token not in self.tokens:
                raise DataError(
                    f"The vocabulary lacks its `{role}`, `{token}`.{closest(token, self.tokens)} It has"
                    f" {len(self.tokens)} tokens: {listing((f'`{item}`' for item in self.tokens), 12)}."
                )

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> CTCVocabulary:
        """Build a new vocabulary of the characters of texts: blank, word delimiter, characters in their order.

        Args:
            texts: Normalised; of the training split alone, else the model is told what the others hold.

        Raises:
            DataError: If the texts hold no character.
        """
        blank, delimiter = "<pad>", "|"
        letters = sorted({letter for text in texts for letter in text if not letter.isspace()} - {delimiter})
        if not letters:
            raise DataError("No training text holds a character, so there is no alphabet. Check the transcripts.")
        return cls((blank, delimiter, *letters), blank, delimiter)

    @classmethod
    def from_card(cls, card: BackboneCard) -> CTCVocabulary | None:
        """Return the vocabulary that a pretrained CTC model was trained with, None where the card has none."""
        values = card.processor.get("vocabulary")
        return None if not values else cls.from_dict(values)

    @classmethod
    def from_schema(cls, schema: Schema) -> CTCVocabulary | None:
        """Return the vocabulary of a module's logits, None where the model has a tokenizer of its own."""
        values = schema.preprocessing.get("vocabulary")
        return None if not values else cls.from_dict({**values, "tokens": schema.classes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CTCVocabulary:
        """Rebuild from `to_dict`."""
        return cls(
            tuple(values["tokens"]),
            str(values.get("blank", "<pad>")),
            str(values.get("word_delimiter", "|")),
            values.get("unknown"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values.

        Example:
            >>> vocabulary = CTCVocabulary.from_texts(["ab"])
            >>> CTCVocabulary.from_dict(vocabulary.to_dict()) == vocabulary
            True
        """
        return {
            "tokens": list(self.tokens),
            "blank": self.blank,
            "word_delimiter": self.word_delimiter,
            "unknown": self.unknown,
        }

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def blank_id(self) -> int:
        """Number of the blank."""
        return self.tokens.index(self.blank)

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a normalised text, without blanks."""
        filler = [] if self.unknown is None else [self.tokens.index(self.unknown)]
        found: list[int] = []
        for piece in self._pieces(text):
            number = self._numbers.get(piece)
            found += filler if number is None else [number]
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the best token of each frame: repeats become one, blanks and special tokens go."""
        tokens = [self.tokens[number] for number, _ in groupby(ids)]
        letters = [" " if token == self.word_delimiter else token for token in tokens if not self._special(token)]
        return " ".join("".join(letters).split())

    def outside(self, texts: Iterable[str]) -> Counter[str]:
        """Count the characters of normalised texts that no token stands for."""
        found: Counter[str] = Counter()
        for text in texts:
            found.update(piece for piece in self._pieces(text) if piece not in self._numbers)
        return found

    def _pieces(self, text: str) -> list[str]:
        """Cut a text into the longest tokens, or characters that are none; spaces are ``" "``."""
        return self._pattern.findall(" ".join(text.split()))

    def _special(self, token: str) -> bool:
        """Whether a token stands for no letters: the blank, the unknown, or in the form ``<s>`` or ``[PAD]``."""
        if token in (self.blank, self.unknown):
            return True
        return len(token) > 2 and (token[0], token[-1]) in (("<", ">"), ("[", "]"))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """What can stand in a text -> its number, in the other case too where that is nobody else's."""
        own = {
            token: number
            for number, token in enumerate(self.tokens)
            if not self._special(token) and token != self.word_delimiter
        }
        other: dict[str, int] = {}
        for token, number in own.items():
            for variant in (token.lower(), token.upper()):
                other.setdefault(variant, number)
        return {**other, **own, " ": self.tokens.index(self.word_delimiter)}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longer = sorted((piece for piece in self._numbers if len(piece) > 1), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, longer), "."]), re.DOTALL)


def read_keywords(source: str | Path | Sequence[str] | None) -> list[str]:
    """Return words and phrases that matter: those of a list, or of a text file with one a line.

    Empty lines are left out, and those that begin with ``#``.

    Raises:
        DataError: If there is no such file, or it is no text.

    Example:
        >>> read_keywords(["acme", "order number"]), read_keywords(None)
        (['acme', 'order number'], [])
    """
    if source is None or not isinstance(source, str | Path):
        return list(source or ())
    path = Path(source).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(
            f"Cannot read the keywords of `{path}`: {reason}. Give a text file with one a line, or a list:"
            " `--data.keywords '[acme, order number]'`."
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def frames_needed(ids: Sequence[int]) -> int:
    """Return how many frames CTC needs at least for a label: one a token, and a blank between equal neighbours.

    With fewer, no path leads through the label, and its loss is infinite.

    Example:
        >>> frames_needed([3, 2, 4, 4, 5])
        6
    """
    return len(ids) + sum(one == other for one, other in pairwise(ids))
