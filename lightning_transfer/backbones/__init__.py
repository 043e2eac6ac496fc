"""Pretrained backbones from timm, torchvision, transformers, files and the wheel itself, each with its card."""

from __future__ import annotations

from lightning_transfer.backbones.cards import read_card
from lightning_transfer.backbones.frames import Frames, FrameTransformer
from lightning_transfer.backbones.licences import licence_notice
from lightning_transfer.backbones.load import load_backbone, load_seq2seq, load_source_head
from lightning_transfer.backbones.lora import LoraOptions, add_lora, merged
from lightning_transfer.backbones.seq2seq import Seq2SeqTransformer
from lightning_transfer.backbones.sources import LIBRARIES, list_embedded

__all__ = [
    "LIBRARIES",
    "FrameTransformer",
    "Frames",
    "LoraOptions",
    "Seq2SeqTransformer",
    "add_lora",
    "licence_notice",
    "list_embedded",
    "load_backbone",
    "load_seq2seq",
    "load_source_head",
    "merged",
    "read_card",
]
