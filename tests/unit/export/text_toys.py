"""A router small enough to export in seconds, and texts of every kind."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.data.texts_tokens import TextPreprocessing
from lightning_transfer.modules import ClassificationModule, TransferModule
from lightning_transfer.types import Calibration, Schema

QUEUES = ("billing", "delivery", "technical")
CALIBRATION = Calibration(temperature=0.5, rule="by hand", n=7)
WORDS = "my card invoice is wrong the parcel late lamp dark again not yet paid broken where when please help".split()
TEXTS = (
    "My card!",
    "the invoice is wrong, wrong again",
    "<p>Where is my <b>parcel</b>?</p>",
    "lamp dark " * 60,
    "[SEP] [CLS] is not the end",
    "zzz qqq",
    "please\r\nhelp\x00 \u200bme",
    "parcel late. " * 9,
)


def tokenizer() -> Tokenizer:
    """WordPiece, with padding and cutting of its own, as real ones bring them."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, ".", ",", "!", "?", "[", "]", "sep", "##s", "me", "cls"]
    made = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="[UNK]"))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.enable_truncation(8)
    made.enable_padding(length=8)
    return made


def backbone_folder(folder: Path, seed: int = 0) -> Path:
    """A BERT of two layers, as transformers saves it."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def router(
    backbone: Path, *, long_texts: str = "head_tail", max_length: int = 24, phones: bool = False, **options
) -> ClassificationModule:
    """With a head that tells texts apart."""
    torch.manual_seed(1)
    fields = {"task": "multiclass", "classes": QUEUES, **options.pop("schema", {})}
    module = ClassificationModule(str(backbone), **options)
    encode = TextPreprocessing.from_card(module.card, max_length, long_texts, TextCleaning(phones=phones))
    module.use_schema(Schema(**fields, preprocessing=encode.to_dict()))
    module.configure_model()
    module.calibration = CALIBRATION
    return module.eval()


def save(folder: Path, module: TransferModule, **payload) -> Path:
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    checkpoint["lightning_transfer"].update(payload)
    torch.save(checkpoint, folder / "model.ckpt")
    return folder
