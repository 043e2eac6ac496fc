"""Which rows of a pretrained head a new vocabulary begins with."""

import torch
from torch import nn

from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.modules.ctc_head import matching_tokens, start_head

CAPITALS = CTCVocabulary(("[PAD]", "<s>", "[UNK]", " ", "A", "B", "E"), "[PAD]", " ", "[UNK]")


def names(vocabulary: CTCVocabulary, pretrained: CTCVocabulary) -> dict[str, str]:
    found = matching_tokens(vocabulary, pretrained)
    return {vocabulary.tokens[row]: pretrained.tokens[other] for row, other in found.items()}


def test_the_same_vocabulary_matches_itself() -> None:
    assert matching_tokens(CAPITALS, CAPITALS) == {row: row for row in range(len(CAPITALS))}


def test_roles_match_whatever_they_are_called() -> None:
    new = CTCVocabulary(("<pad>", "|", "<unk>", "a", "x"), unknown="<unk>")
    assert names(new, CAPITALS) == {"<pad>": "[PAD]", "|": " ", "<unk>": "[UNK]", "a": "A"}
    assert "<unk>" not in names(new, CTCVocabulary(("<pad>", "|", "a")))


def test_a_letter_as_written_comes_before_its_other_case() -> None:
    new = CTCVocabulary(("<pad>", "|", "a", "A", "e"))
    assert names(new, CAPITALS) == {"<pad>": "[PAD]", "|": " ", "A": "A", "e": "E"}


def test_a_role_is_no_letter() -> None:
    """A pretrained delimiter that is a letter in the new alphabet does not lend it its row."""
    new = CTCVocabulary(("<pad>", "_", "|", "a"), word_delimiter="_")
    assert names(new, CTCVocabulary(("<pad>", "|", "a"))) == {"<pad>": "<pad>", "_": "|", "a": "a"}


def test_rows_are_copied_and_the_rest_is_left_as_it_was() -> None:
    new = CTCVocabulary(("<pad>", "|", "x", "b"))
    torch.manual_seed(0)
    head, pretrained = nn.Linear(4, 4), nn.Linear(4, 7)
    before = head.weight.clone()
    said = start_head(head, new, pretrained, CAPITALS)
    assert torch.equal(head.weight[[0, 1, 3]], pretrained.weight[[0, 3, 5]])
    assert torch.equal(head.bias[[0, 1, 3]], pretrained.bias[[0, 3, 5]])
    assert torch.equal(head.weight[2], before[2])
    assert said == (
        "The vocabulary differs from the checkpoint's: 3 of 4 tokens begin with the checkpoint's rows; under another "
        "name: <pad> from [PAD], | from  , b from B; new: x; of the checkpoint's are left out: <s>, [UNK], A, E."
    )


def test_a_pretrained_head_without_bias_begins_at_zero() -> None:
    head, pretrained = nn.Linear(4, 7), nn.Linear(4, 7, bias=False)
    said = start_head(head, CAPITALS, pretrained, CAPITALS)
    assert not head.bias.any()
    assert said == "The vocabulary is the checkpoint's: its head of 7 tokens is the start."
