"""Tests of joining pieces: a known text with known times is cut up with overlap, and must come back."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from lightning_transfer.evaluation.transcripts_join import join_transcripts
from lightning_transfer.speech import Transcript


def spoken(seed: int, count: int = 40) -> list[tuple[str, float, float]]:
    """Words of 0.2 to 0.5 s with short silences between; some follow each other twice."""
    rng = np.random.default_rng(seed)
    words, time = [], 0.1
    for place in range(count):
        length = float(rng.uniform(0.2, 0.5))
        words.append((f"w{place // 2 if rng.random() < 0.3 else place}", time, time + length))
        time += length + float(rng.uniform(0.05, 0.3))
    return words


def cut(words: list[tuple[str, float, float]], length: float, hop: float, timed: bool, jitter: float = 0.0) -> list:
    """Hear each piece: words that a border goes through become rubbish."""
    end = words[-1][2] + 0.1
    starts = [0.0]
    while starts[-1] + length < end:
        starts.append(starts[-1] + hop)
    rng = np.random.default_rng(0)
    pieces = []
    for number, start in enumerate(starts):
        stop = min(start + length, end)
        heard = []
        for word, low, high in words:
            if high <= start or low >= stop:
                continue
            whole = low >= start and high <= stop
            shift = float(rng.uniform(-jitter, jitter))
            low, high = max(low, start) + shift, min(high, stop) + shift
            heard.append((word if whole else "rubbish", low - start, high - start))
        text = " ".join(word for word, _, _ in heard)
        known = tuple(heard) if timed else ()
        pieces.append(Transcript(5, text, 0.9, stop - start, "", number, len(starts), start, known))
    return pieces


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("jitter", [0.0, 0.02])
def test_words_with_times_come_back_whole(seed: int, jitter: float) -> None:
    words = spoken(seed)
    [joined] = join_transcripts(cut(words, length=6.0, hop=4.0, timed=True, jitter=jitter))
    assert joined.text.split() == [word for word, _, _ in words]
    assert joined.index == 5
    assert joined.seconds == pytest.approx(words[-1][2] + 0.1)
    assert joined.confidence == pytest.approx(0.9)
    assert [begin for _, begin, _ in joined.words] == pytest.approx([low for _, low, _ in words], abs=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_words_without_times_are_matched(seed: int) -> None:
    words = [(f"w{place}", low, high) for place, (_, low, high) in enumerate(spoken(seed))]
    [joined] = join_transcripts(cut(words, length=6.0, hop=3.5, timed=False))
    assert joined.text.split() == [word for word, _, _ in words]
    assert joined.words == ()


def test_no_overlap_is_put_end_to_end() -> None:
    pieces = [Transcript(0, "a b", None, 1.0, "", 0, 2, 0.0), Transcript(0, "b c", None, 1.0, "", 1, 2, 1.0)]
    [joined] = join_transcripts(pieces)
    assert (joined.text, joined.confidence, joined.seconds) == ("a b b c", None, 2.0)


def test_nothing_in_common_loses_nothing() -> None:
    pieces = [Transcript(0, "a b", None, 2.0, "", 0, 2, 0.0), Transcript(0, "x y", None, 2.0, "", 1, 2, 1.0)]
    assert join_transcripts(pieces)[0].text == "a b x y"


def test_starts_may_come_from_the_data() -> None:
    pieces = [
        Transcript(0, "a b", 0.5, 2.0, "", 0, 2, words=(("a", 0.0, 0.5), ("b", 1.2, 1.8))),
        Transcript(0, "b c", 0.5, 2.0, "", 1, 2, words=(("b", 0.2, 0.8), ("c", 1.0, 1.5))),
    ]
    with pytest.raises(ValueError, match=r"record 0 begin at \[0.0, 0.0\] s"):
        join_transcripts(pieces)
    assert join_transcripts(pieces, {0: [0.0, 1.0]})[0].text == "a b c"


def test_whole_records_pass_in_order_once() -> None:
    one, two = Transcript(1, "one", 0.5, 1.0), Transcript(2, "two", 0.5, 1.0)
    assert join_transcripts([two, one, two]) == [one, two]


def test_a_record_that_lacks_a_piece_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    whole = Transcript(0, "a", 0.5, 1.0)
    with caplog.at_level(logging.WARNING):
        assert join_transcripts([whole, Transcript(1, "b", 0.5, 1.0, "", 0, 2)]) == [whole]
    assert "1 of 2 records are left out" in caplog.text


def test_problems_say_in_how_many_pieces() -> None:
    pieces = [Transcript(0, "", None, 1.0, "only blanks", number, 3, number * 0.5) for number in range(3)]
    assert join_transcripts(pieces)[0].problem == "only blanks"
    pieces[1] = Transcript(0, "word", 0.25, 1.0, "", 1, 3, 0.5)
    [joined] = join_transcripts(pieces)
    assert joined.problem == "only blanks in 2 of 3 pieces"
    assert joined.confidence == pytest.approx(0.25)
