"""Greedy decoding and joining without torch, against the package's own and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.evaluation.transcripts_join import join_transcripts
from lightning_transfer.export.speech_decode import Heard, Word, greedy, join
from lightning_transfer.speech import Transcript

VOCABULARY = CTCVocabulary(("<s>", "<pad>", "|", "[UNK]", "a", "b", "'", "ch", "[SEP]"), "<pad>", "|", "[UNK]")
STEP = 0.02


@pytest.mark.parametrize("seed", range(20))
def test_texts_are_those_of_the_vocabulary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    best = np.repeat(rng.integers(0, len(VOCABULARY), 40), rng.integers(1, 4, 40))
    logits = rng.normal(size=(len(best), len(VOCABULARY)))
    logits[np.arange(len(best)), best] += 9
    heard = greedy(logits, VOCABULARY.to_dict(), STEP, len(best) * STEP)
    assert heard.text == VOCABULARY.decode(best.tolist())
    assert heard.seconds == len(best) * STEP
    ends = [place for word in heard.words for place in (word.begin, word.end)]
    assert ends == sorted(ends)


def test_times_and_confidence_by_hand() -> None:
    #       blank  a  a  blank  a  |  |  b  blank, sure with these probabilities
    best = [1, 4, 4, 1, 4, 2, 2, 5, 1]
    sure = [0.9, 0.5, 0.8, 0.9, 0.6, 0.7, 0.5, 0.9, 0.4]
    rest = len(VOCABULARY) - 1
    shares = np.array([[(1 - share) / rest] * (rest + 1) for share in sure])
    shares[np.arange(9), best] = sure
    heard = greedy(np.log(shares) + 3.0, VOCABULARY.to_dict(), STEP, 0.18)
    assert heard.text == "aa b"
    assert [(round(word.begin, 6), round(word.end, 6)) for word in heard.words] == [(0.02, 0.1), (0.14, 0.16)]
    assert heard.confidence == pytest.approx((0.8 * 0.6 * 0.7 * 0.9) ** 0.25)


def test_silence_and_nothing() -> None:
    silent = np.zeros((5, len(VOCABULARY)))
    silent[:, 1] = 1.0
    assert greedy(silent, VOCABULARY.to_dict(), STEP, 0.1) == Heard((), None, 0.1)
    assert greedy(silent[:0], VOCABULARY.to_dict(), STEP, 0.1) == Heard((), None, 0.1)
    assert join([Heard((), None, 3.0), Heard((), None, 3.0)], [0.0, 2.0]) == Heard((), None, 5.0)


def pieces(seed: int) -> tuple[list[Heard], list[float]]:
    """A recording in pieces of 6 s that share 2 s; at the edges words are lost or cut, and times differ a little."""
    rng = np.random.default_rng(seed)
    said, place = [], 0.0
    for number in range(40):
        begin = place + rng.uniform(0.0, 0.5)
        place = begin + rng.uniform(0.1, 0.9)
        said.append(Word(f"w{number}", begin, place))
    starts = [4.0 * number for number in range(math.ceil((place - 2) / 4))]
    found = []
    for start in starts:
        end = min(start + 6.0, place)
        words = []
        for word in said:
            begin, stop = max(word.begin, start), min(word.end, end)
            if stop - begin > 0.3 * (word.end - word.begin):
                cut = "" if (begin, stop) == (word.begin, word.end) else "-"
                shift = rng.uniform(-0.02, 0.02)
                words.append(
                    Word(word.text + cut, max(0.0, begin - start + shift), min(end - start, stop - start + shift))
                )
        found.append(Heard(tuple(words), float(rng.uniform(0.2, 1.0)), end - start))
    return found, starts


@pytest.mark.parametrize("seed", range(30))
def test_pieces_are_joined_as_by_the_package(seed: int) -> None:
    found, starts = pieces(seed)
    transcripts = [
        Transcript(0, piece.text, piece.confidence, piece.seconds, "", number, len(found), starts[number], piece.words)
        for number, piece in enumerate(found)
    ]
    [wanted] = join_transcripts(transcripts)
    joined = join(found, starts)
    assert joined.text == wanted.text
    assert joined.seconds == pytest.approx(wanted.seconds)
    assert joined.confidence == pytest.approx(wanted.confidence)
    assert joined.words == wanted.words


def test_each_word_comes_once_and_whole() -> None:
    whole = 0
    for seed in range(30):
        names = join(*pieces(seed)).text.split()
        whole += names == [f"w{number}" for number in range(40)]
    # Times that differ by 20 ms may move a short word to the other side of a cut.
    assert whole >= 27


def test_pieces_that_do_not_overlap() -> None:
    left, right = Heard((Word("one", 0.0, 1.0),), 0.5, 1.0), Heard((Word("two", 0.0, 0.5),), 1.0, 1.0)
    joined = join([left, right], [0.0, 1.0])
    assert joined.text == "one two"
    assert joined.words[1] == Word("two", 1.0, 1.5)
    assert joined.confidence == pytest.approx(math.sqrt(0.5))
