"""A text encoder of a few kilobytes with a tokenizer, saved as transformers saves it, and tickets of three queues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from lightning_transfer.data import BaseDataModule, TextPreprocessing
from lightning_transfer.types import BackboneCard, Record, Schema

QUEUES = ("card_lost", "late-parcel", "money/back")  # sorted, as the data sort them
WORDS = {
    "card_lost": ("card", "lost", "stolen", "block", "wallet"),
    "late-parcel": ("late", "parcel", "waiting", "delivery", "where"),
    "money/back": ("money", "back", "refund", "paid", "twice"),
}
_FILLERS = ("please", "hello", "my", "is", "thanks", "help")


def make_encoder(folder: Path, words: Iterable[str] | None = None, hidden: int = 16, seed: int = 0) -> Path:
    """Save a BERT of two blocks; its weights are large, so that words can be told apart without training.

    It knows ``words``, by default those of `make_tickets`.
    """
    words = words or (*_FILLERS, *(word for known in WORDS.values() for word in known))
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]
    tokenizer = Tokenizer(models.WordPiece({name: place for place, name in enumerate(names)}, unk_token=names[1]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    config = transformers.BertConfig(
        hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=len(names),
        max_position_embeddings=24, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
    return folder


def make_tickets(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return ``count`` texts of each queue, with their labels: two of its words among fillers."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for queue, words in WORDS.items():
        for _ in range(count):
            two = [words[place] for place in torch.randperm(len(words), generator=generator)[:2].tolist()]
            rest = [_FILLERS[place] for place in torch.randint(len(_FILLERS), (3,), generator=generator).tolist()]
            found.append((" ".join([rest[0], two[0], rest[1], two[1], rest[2]]), queue))
    return found


def schema_of(count: int = 4) -> Schema:
    return Schema(task="multiclass", classes=QUEUES, counts={"train": dict.fromkeys(QUEUES, count)})


class ToyTexts(BaseDataModule):
    """Tickets of three queues: ``count`` of each to train on, six of each for every other split."""

    def __init__(self, count: int = 4, batch_size: int = 12) -> None:
        super().__init__(batch_size=batch_size)
        self.count = count

    def read_records(self) -> list[Record]:
        sizes = {"train": self.count, "val": 6, "calibration": 6, "test": 6}
        return [
            Record(f"{split} {place}", text, label, split=split)
            for number, (split, count) in enumerate(sizes.items())
            for place, (text, label) in enumerate(make_tickets(count, number))
        ]

    def make_preprocessing(self, card: BackboneCard) -> TextPreprocessing:
        return TextPreprocessing.from_card(card)

    def load_input(self, record: Record) -> dict[str, torch.Tensor]:
        return self.preprocessing(record.input)

    def collate_inputs(self, inputs: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        return self.preprocessing.collate(inputs)
