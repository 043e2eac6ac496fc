"""Token ids are those of the tokenizers library; what is cut is what the rule says; padding is the card's."""

import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lightning_transfer.data import MAX_CHUNKS, TextCleaning, TextPreprocessing
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard

WORDS = [f"w{number}" for number in range(100)]


def made_tokenizer() -> Tokenizer:
    vocabulary = {"[PAD]": 7, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, **{word: 10 + n for n, word in enumerate(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def card(**changes) -> BackboneCard:
    tokenizer = made_tokenizer()
    # As all-MiniLM-L6-v2 does: its file cuts and pads to a length of its own.
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    values = {
        "name": "toy",
        "architecture": "hf/bert",
        "modality": "text",
        "architecture_config": {"vocab_size": 110, "max_position_embeddings": 64, "pad_token_id": 7},
        "processor": {"tokenizer_json": tokenizer.to_str()},
    }
    return BackboneCard(**{**values, **changes})


def encode(text: str, max_length: int = 10, long_texts: str = "head_tail") -> list:
    return TextPreprocessing.from_card(card(), max_length, long_texts)(text)["input_ids"].tolist()


def ids(*numbers: int) -> list[int]:
    return [2, *(10 + number for number in numbers), 3]


def test_a_short_text_is_what_the_library_says() -> None:
    assert encode("w1 w2 w3") == made_tokenizer().encode("w1 w2 w3").ids


@pytest.mark.parametrize(
    ("rule", "kept"), [("head", [*range(8)]), ("head_tail", [0, 1, *range(14, 20)]), ("chunks", None)]
)
def test_long_texts_are_cut_by_the_rule(rule: str, kept: list[int] | None) -> None:
    found = encode(" ".join(WORDS[:20]), 10, rule)
    if kept is not None:
        assert found == ids(*kept)
    else:
        assert found == [ids(*range(8)), ids(*range(8, 16)), [*ids(*range(16, 20)), 7, 7, 7, 7]]


def test_of_very_long_texts_the_first_and_the_last_chunks_are_read() -> None:
    found = encode(" ".join(WORDS), 10, "chunks")
    assert len(found) == MAX_CHUNKS
    assert found[3] == ids(*range(24, 32))
    assert found[4] == ids(*range(72, 80))
    assert found[-1][:5] == [2, 106, 107, 108, 109]


def test_special_words_in_a_text_are_letters() -> None:
    assert encode("w1 [SEP] w2") == [2, 11, 1, 1, 1, 12, 3]


@pytest.mark.parametrize("rule", ["head_tail", "chunks"])
def test_an_empty_text_is_the_special_tokens_alone(rule: str) -> None:
    assert encode("", 10, rule) in ([2, 3], [[2, 3]])


def test_a_batch_is_padded_with_the_cards_token() -> None:
    preprocessing = TextPreprocessing.from_card(card(), 10)
    batch = preprocessing.collate([preprocessing("w1 w2 w3"), preprocessing("w4")])
    assert batch["input_ids"].tolist() == [[2, 11, 12, 13, 3], [2, 14, 3, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_chunks_say_of_which_text_they_are() -> None:
    preprocessing = TextPreprocessing.from_card(card(), 4, "chunks")
    batch = preprocessing.collate([preprocessing("w1 w2 w3"), preprocessing("w4"), preprocessing("w5 w6 w7 w8")])
    assert batch["chunk_of"].tolist() == [0, 0, 1, 2, 2]
    assert batch["input_ids"].tolist()[1] == [2, 13, 3, 7]
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 3, 3, 4, 4]


def test_lengths_count_before_anything_is_cut() -> None:
    preprocessing = TextPreprocessing.from_card(card(), 5)
    assert preprocessing.lengths(["w1", " ".join(WORDS), ""]) == [3, 102, 2]


def test_the_length_is_that_of_the_sentence_encoder_else_of_the_network() -> None:
    processor = card().processor
    assert TextPreprocessing.from_card(card()).max_length == 64
    stated = card(
        processor={**processor, "sentence": {"max_seq_length": 32}, "tokenizer": {"model_max_length": 10**30}}
    )
    assert TextPreprocessing.from_card(stated).max_length == 32
    roberta = card(
        architecture="hf/roberta",
        architecture_config={"vocab_size": 110, "max_position_embeddings": 514, "pad_token_id": 1},
    )
    assert TextPreprocessing.from_card(roberta).max_length == 512


def test_it_comes_back_from_plain_values() -> None:
    first = TextPreprocessing.from_card(card(), 12, "head", TextCleaning(phones=False))
    values = json.loads(json.dumps(first.to_dict()))
    assert "tokenizer_json" not in values
    assert TextPreprocessing.from_dict(values, card()) == first


def test_another_tokenizer_is_refused() -> None:
    values = TextPreprocessing.from_card(card()).to_dict()
    other = made_tokenizer()
    other.add_tokens(["new"])
    changed = card(processor={"tokenizer_json": other.to_str()}, architecture_config={"max_position_embeddings": 64})
    with pytest.raises(DataError, match=r"The tokenizer of `toy` is .* trained with"):
        TextPreprocessing.from_dict(values, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "image"}, "`toy` reads image, and these data are texts"),
        ({"processor": {}}, "`toy` comes without a tokenizer"),
        ({"processor": {"tokenizer_json": "{"}}, "tokenizer of `toy` cannot be read"),
        ({"architecture_config": {"vocab_size": 50}}, "has the id 109, and its weights know 50 tokens"),
    ],
)
def test_a_backbone_that_cannot_read_texts_is_an_error(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TextPreprocessing.from_card(card(**changes))


@pytest.mark.parametrize("length", [2, 65])
def test_a_length_out_of_range_is_an_error(length: int) -> None:
    with pytest.raises(DataError, match=f"above 2 .* at most 64 .* got {length}"):
        TextPreprocessing.from_card(card(), length)


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(DataError, match="`long_texts` head, head_tail or chunks, got `tail`"):
        TextPreprocessing.from_card(card(), long_texts="tail")


def test_cleaning_is_that_of_the_tables() -> None:
    preprocessing = replace(TextPreprocessing.from_card(card()), cleaning=TextCleaning(phones=False))
    assert preprocessing.clean("<p>w1</p><p>LG Ann</p>") == "w1"
    assert torch.equal(preprocessing(preprocessing.clean("<p>w1</p>"))["input_ids"], torch.tensor(ids(1)))
