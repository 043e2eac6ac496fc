"""The likeliest text of known words from the logits of a CTC model, by torchaudio's beam search."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import DataError, listing
from lightning_transfer.modules.ctc_decode import Heard

__all__ = ["BeamSearch", "LexiconDecoder"]


@dataclass(frozen=True)
class BeamSearch:
    """Write words of a lexicon alone, and prefer, if there is one, what a language model of words expects.

    The search is torchaudio's (``torchaudio.models.decoder.ctc_decoder``, by Flashlight's decoder, Kahn et al. 2022,
    arXiv 2201.12465). It needs the extra ``beam``, and for a language model KenLM's package.

    A word that is not in the lexicon is never written: it is for closed tasks such as digits and commands, or for a
    lexicon that is large. What general speech loses cannot be judged with a small one.

    Attributes:
        lexicon: The words: a text file with one a line, or a list. Spelled by the vocabulary's tokens.
        language_model: n-grams of words, an ARPA file or KenLM's binary of one; None finds every word equally likely.
        beam_size: Texts that are followed at a time. torchaudio's default.
        beam_threshold: How much less likely than the best one a text may become before it is dropped, as a difference
            of natural logarithms. torchaudio's default.
        lm_weight: Factor of the language model's logarithms. torchaudio's default.
        word_score: Added for each word: above 0 more words are written.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> BeamSearch(lexicon=["yes", "no", "yes"]).words
        ('yes', 'no')
    """

    lexicon: str | list[str]
    language_model: str | None = None
    beam_size: int = 50
    beam_threshold: float = 50.0
    lm_weight: float = 2.0
    word_score: float = 0.0

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"Expected `decoding.beam_size` of at least 1, got {self.beam_size}. 50 is usual.")
        if self.beam_threshold <= 0:
            raise ValueError(f"Expected `decoding.beam_threshold` above 0, got {self.beam_threshold:g}. 50 is usual.")

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words, each once, in their order.

        Raises:
            DataError: If the file cannot be read, or there is none.
        """
        lines: Sequence[str] = self.lexicon if isinstance(self.lexicon, list) else _lines(self.lexicon)
        words = tuple(dict.fromkeys(word for line in lines if (word := line.strip())))
        if not words:
            raise DataError(f"The lexicon `{self.lexicon}` has no word. Give one a line.")
        spaced = [word for word in words if len(word.split()) > 1]
        if spaced:
            raise DataError(
                f"{len(spaced)} lines of the lexicon have several words: {listing((f'`{w}`' for w in spaced), 5)}. Give"
                " one word a line; words may follow each other in any order."
            )
        return words

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; the words themselves, so that a checkpoint needs no file of them."""
        return {
            "lexicon": list(self.words),
            "language_model": self.language_model,
            "beam_size": self.beam_size,
            "beam_threshold": self.beam_threshold,
            "lm_weight": self.lm_weight,
            "word_score": self.word_score,
        }

    @classmethod
    def of(cls, options: BeamSearch | Mapping[str, Any] | None) -> BeamSearch | None:
        """Return options given as such, as the plain values of a checkpoint, or not at all."""
        return cls(**options) if isinstance(options, Mapping) else options


class LexiconDecoder:
    """A beam search for one vocabulary.

    Args:
        options: What is searched for, and how.
        vocabulary: What the logits stand for.

    Raises:
        ImportError: If the extra ``beam``, or KenLM for a language model, is not installed.
        DataError: If a word has a character that is not in the vocabulary, or a file cannot be read.
    """

    def __init__(self, options: BeamSearch, vocabulary: CTCVocabulary) -> None:
        self.options, self.vocabulary = options, vocabulary
        spellings = {word: vocabulary.encode(word) for word in options.words}
        outside = [word for word in options.words if vocabulary.outside([word])]
        if outside:
            raise DataError(
                f"{len(outside)} words of the lexicon cannot be spelled: {listing((f'`{w}`' for w in outside), 5)}. The"
                f" vocabulary has {listing((f'`{token}`' for token in vocabulary.tokens), 40)}."
            )
        self._search = _build(options, vocabulary, spellings)

    def __call__(self, logits: Tensor, lengths: Tensor) -> list[Heard]:
        """Return the likeliest words of each row.

        Args:
            logits: ``(N, T, V)``, unnormalised.
            lengths: Frames of each row, ``(N,)``; what lies behind is padding.
        """
        scores = logits.detach().float().log_softmax(dim=-1).cpu().contiguous()
        return [self._decode(row[:count].contiguous()) for row, count in zip(scores, lengths.tolist(), strict=True)]

    def _decode(self, scores: Tensor) -> Heard:
        frames, blank = len(scores), self.vocabulary.blank_id
        blanks = int((scores.argmax(dim=-1) == blank).sum()) if frames else 0
        # Below torchaudio's hypothesis, which has not the frames in which words end.
        found = self._search.decoder.decode(scores.data_ptr(), *scores.shape) if frames else []
        if not found:
            return Heard("", None, (), frames, blanks)
        delimiter = self.vocabulary.tokens.index(self.vocabulary.word_delimiter)
        # The path has a frame before the first, and one behind the last.
        path, ends = found[0].tokens[1 : frames + 1], found[0].words[1:]
        logs: list[float] = []
        words: list[tuple[str, int, int]] = []
        heard: list[int] = []  # frames with letters of the word that is open
        for place, token in enumerate(path):
            if token not in (blank, delimiter):
                heard.append(place)
                logs.append(float(scores[place, token]))
            if ends[place] >= 0 and heard:
                words.append((self._search.word_dict.get_entry(ends[place]), heard[0], heard[-1] + 1))
                heard = []
        return Heard(
            text=" ".join(word for word, _, _ in words),
            confidence=math.exp(sum(logs) / len(logs)) if logs else None,
            words=tuple(words),
            frames=frames,
            blanks=blanks,
        )


def _build(options: BeamSearch, vocabulary: CTCVocabulary, spellings: Mapping[str, Sequence[int]]) -> Any:  # noqa: ANN401 - torchaudio's decoder
    """Return torchaudio's decoder; its lexicon is a file, which it reads once."""
    if importlib.util.find_spec("flashlight") is None:
        raise ImportError("`decoding.lexicon` needs Flashlight's decoder: pip install 'lightning-transfer[beam]'")
    model = options.language_model
    if model is not None and importlib.util.find_spec("kenlm") is None:
        raise ImportError("`decoding.language_model` needs KenLM: pip install kenlm (it is compiled: a C++ compiler)")
    if model is not None and not Path(model).is_file():
        raise DataError(f"There is no language model `{model}`. Give an ARPA file, or KenLM's binary of one.")
    from torchaudio.models.decoder import ctc_decoder

    tokens, delimiter = vocabulary.tokens, vocabulary.word_delimiter
    with tempfile.TemporaryDirectory() as folder:
        lexicon = Path(folder) / "lexicon.txt"
        with lexicon.open("w", encoding="utf-8") as stream:
            for word, spelling in spellings.items():
                letters = " ".join(tokens[number] for number in spelling)
                # With and without what stands between words: not every model writes it behind the last one.
                stream.write(f"{word}\t{letters} {delimiter}\n{word}\t{letters}\n")
        return ctc_decoder(
            lexicon=str(lexicon),
            tokens=list(tokens),
            lm=model,
            beam_size=options.beam_size,
            beam_threshold=options.beam_threshold,
            lm_weight=options.lm_weight if model is not None else 0.0,
            word_score=options.word_score,
            # The best path, not the sum over paths: only then the frames of its words are those of one path.
            log_add=False,
            blank_token=vocabulary.blank,
            sil_token=delimiter,
        )


def _lines(file: str) -> list[str]:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read the lexicon `{file}`: {error}. Give a text file with one word a line.") from error
