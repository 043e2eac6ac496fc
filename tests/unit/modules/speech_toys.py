"""Tones that spell letters, as batches and as a tiny network's input."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.types import Batch, Schema

LETTERS = "abcd"
TEXTS = ("ab", "cad", "bad cab", "dab", "abba", "cc d")
RATE = 16000
SETTINGS = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": RATE, "stride": 2}
SETTINGS |= {"feature_size": 20, "num_mel_bins": 20, "padding_value": 0.0, "return_attention_mask": True}
VOCABULARY = CTCVocabulary.from_texts(TEXTS)
PREPROCESSING: dict[str, Any] = {"vocabulary": VOCABULARY.to_dict(), "scoring_normaliser": "basic"}
SCHEMA = Schema(task="transcription", classes=VOCABULARY.tokens, preprocessing=PREPROCESSING)

BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BERT |= {"feature_projection_input_dim": 40, "conv_depthwise_kernel_size": 5, "vocab_size": len(VOCABULARY)}
# Few steps on few utterances: nothing that makes one run luckier than the next.
BERT |= {f"{part}_dropout": 0.0 for part in ("feat_proj", "hidden", "attention", "activation", "conformer_conv")}
CARD: dict[str, Any] = {
    "name": "toy",
    "architecture": "hf/wav2vec2-bert",
    "modality": "audio",
    "pooling": "mean",
    "architecture_config": BERT,
    "processor": {"feature_extractor": SETTINGS, "vocabulary": VOCABULARY.to_dict()},
}


def tones(text: str, seed: int = 0) -> np.ndarray[Any, Any]:
    """Sing a text: 0.12 s of a tone for each letter, a pause between letters, silence for a space."""
    generator = np.random.default_rng(seed)
    length, pause = int(0.12 * RATE), int(0.04 * RATE)
    parts = []
    for letter in text:
        pitch = 0.0 if letter == " " else 400.0 * 2 ** LETTERS.index(letter)
        parts += [np.sin(2 * np.pi * pitch * np.arange(length) / RATE), np.zeros(pause)]
    wave = np.concatenate(parts)
    return (wave + 0.01 * generator.standard_normal(len(wave))).astype(np.float32)


@lru_cache(maxsize=1)
def _extractor() -> Any:
    from transformers import SeamlessM4TFeatureExtractor

    return SeamlessM4TFeatureExtractor(**{k: v for k, v in SETTINGS.items() if k != "feature_extractor_type"})


def mel_batch(texts: Sequence[str] = TEXTS, *, labelled: bool = True, first: int = 0) -> Batch:
    """Make a batch of mel features, padded, with targets."""
    waves = [tones(text, seed) for seed, text in enumerate(texts)]
    found = _extractor()(waves, sampling_rate=RATE, return_tensors="pt", padding=True)
    inputs = {"input_features": found["input_features"], "attention_mask": found["attention_mask"].long()}
    return Batch(inputs, targets(texts) if labelled else None, torch.arange(first, first + len(texts)))


def targets(texts: Sequence[str], vocabulary: CTCVocabulary = VOCABULARY) -> Tensor:
    rows = [torch.tensor(vocabulary.encode(text)) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def loader(batches: Sequence[Batch]) -> DataLoader[Any]:
    # A generator of its own: otherwise each pass draws a number from the global state.
    return DataLoader(list(batches), batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]


def quiet_trainer(**options: Any) -> Any:
    import lightning.pytorch as pl

    values: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    values |= {"enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return pl.Trainer(**{**values, **options})
