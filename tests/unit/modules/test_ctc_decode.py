"""Greedy decoding against the vocabulary's own reading, by hand, and against torchaudio's collapse."""

import math

import pytest
import torch

from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.modules.ctc_decode import greedy_decode

VOCABULARY = CTCVocabulary(("<pad>", "<unk>", "|", "a", "b", "ch"), unknown="<unk>")


def logits_of(best: list[int], sure: float = 0.9) -> torch.Tensor:
    """Logits whose best token is given, with that probability in every frame."""
    rest = (1 - sure) / (len(VOCABULARY) - 1)
    chances = torch.full((1, len(best), len(VOCABULARY)), rest)
    chances[0, torch.arange(len(best)), torch.tensor(best)] = sure
    return chances.log()


def test_random_paths_read_as_the_vocabulary_reads_them() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 30, len(VOCABULARY), generator=generator)
    lengths = torch.randint(0, 31, (64,), generator=generator)
    for row, heard in enumerate(greedy_decode(logits, lengths, VOCABULARY)):
        path = logits[row, : lengths[row]].argmax(-1).tolist()
        assert heard.text == VOCABULARY.decode(path)
        assert " ".join(word for word, _, _ in heard.words) == heard.text
        assert heard.frames == int(lengths[row])
        assert heard.blanks == path.count(0)
        ends = [0, *(frame for _, first, last in heard.words for frame in (first, last))]
        assert ends == sorted(ends)


def test_words_begin_with_their_first_letter_and_end_with_their_last() -> None:
    #       0  1  2  3  4  5  6  7  8  9 10 11
    path = [0, 3, 3, 0, 3, 2, 2, 0, 5, 4, 4, 0]
    (heard,) = greedy_decode(logits_of(path), torch.tensor([12]), VOCABULARY)
    assert heard.text == "aa chb"
    assert heard.words == (("aa", 1, 5), ("chb", 8, 11))
    assert heard.blanks == 4


def test_confidence_is_the_geometric_mean_of_each_tokens_surest_frame() -> None:
    logits = logits_of([3, 3, 0, 4], 0.5)
    logits[0, 1] = logits_of([3], 0.8)[0, 0]
    (heard,) = greedy_decode(logits, torch.tensor([4]), VOCABULARY)
    assert heard.confidence == pytest.approx(math.sqrt(0.8 * 0.5))


def test_an_unknown_sound_is_no_text_and_does_not_end_a_word() -> None:
    (heard,) = greedy_decode(logits_of([3, 1, 4]), torch.tensor([3]), VOCABULARY)
    assert heard.text == "ab"
    assert heard.confidence == pytest.approx(0.9)


@pytest.mark.parametrize(("path", "length"), [([0, 0, 0], 3), ([2, 2, 0], 3), ([3, 3, 3], 0)])
def test_nothing_heard_has_no_words(path: list[int], length: int) -> None:
    (heard,) = greedy_decode(logits_of(path), torch.tensor([length]), VOCABULARY)
    assert (heard.text, heard.words, heard.frames) == ("", (), length)
    assert heard.confidence is None or path[0] == 2


def test_padding_is_not_read() -> None:
    (heard,) = greedy_decode(logits_of([3, 0, 4, 4]), torch.tensor([2]), VOCABULARY)
    assert (heard.text, heard.frames) == ("a", 2)


def test_half_precision_is_read_in_single() -> None:
    logits = logits_of([3, 4], 0.9)
    (half,) = greedy_decode(logits.bfloat16(), torch.tensor([2]), VOCABULARY)
    assert half.text == "ab"
    assert half.confidence == pytest.approx(0.9, abs=0.01)
