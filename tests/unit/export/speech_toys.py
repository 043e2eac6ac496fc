"""Recognisers small enough to export in seconds, and recordings of several kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch

from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.modules import TransferModule
from lightning_transfer.modules.ctc import CTCModule
from lightning_transfer.types import BackboneCard, Schema

VOCABULARY = CTCVocabulary(("<pad>", "|", "[UNK]", *"abcdefgh'"), "<pad>", "|", "[UNK]")
RATE = 8000
_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
          "initializer_range": 0.3}  # fmt: skip
_BANK = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": RATE, "num_mel_bins": 20,
         "feature_size": 20, "padding_value": 1.0, "stride": 2}  # fmt: skip
_WAVE = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": RATE, "padding_value": 0.0,
         "do_normalize": True, "return_attention_mask": True}  # fmt: skip
_CONVOLUTIONS = {**_SIZES, "conv_dim": [8, 8, 8], "conv_stride": [5, 4, 4], "conv_kernel": [10, 8, 4],
                 "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}  # fmt: skip
_CONFORMER = {**_SIZES, "feature_projection_input_dim": 40, "conv_depthwise_kernel_size": 5,
              "left_max_position_embeddings": 8, "right_max_position_embeddings": 4}  # fmt: skip

KINDS = {
    "conformer": ("wav2vec2-bert", _CONFORMER, _BANK),
    "conformer, rotary": ("wav2vec2-bert", {**_CONFORMER, "position_embeddings_type": "rotary"}, _BANK),
    "conformer, relative": (
        "wav2vec2-bert", {**_CONFORMER, "position_embeddings_type": "relative", "max_source_positions": 400}, _BANK,
    ),
    "wav2vec2, group norm": ("wav2vec2", {**_CONVOLUTIONS, "feat_extract_norm": "group"}, _WAVE),
    "wav2vec2, layer norm": (
        "wav2vec2", {**_CONVOLUTIONS, "feat_extract_norm": "layer", "do_stable_layer_norm": True}, _WAVE,
    ),
    "hubert": ("hubert", {**_CONVOLUTIONS, "feat_extract_norm": "group"}, _WAVE),
    "wavlm": ("wavlm", {**_CONVOLUTIONS, "feat_extract_norm": "layer"}, _WAVE),
}  # fmt: skip
"""Name -> model type, configuration, feature extractor."""


def recogniser(kind: str = "conformer", *, chunk: float = 3.0, overlap: float = 0.5, **options) -> CTCModule:
    """With a head that writes something at random, and hears silence as blank."""
    model_type, config, extractor = KINDS[kind]
    torch.manual_seed(0)
    card = BackboneCard(
        name="toy", architecture=f"hf/{model_type}", modality="audio", pooling="mean", architecture_config=config,
        licence="Apache-2.0", num_features=16, processor={"feature_extractor": extractor},
    )  # fmt: skip
    module = CTCModule("toy", weights="random", card=card.to_dict(), **options)
    spec = AudioPreprocessing(extractor, vocabulary=VOCABULARY, chunk_seconds=chunk, overlap_seconds=overlap)
    module.use_schema(Schema("transcription", VOCABULARY.tokens, preprocessing=spec.to_dict()))
    module.configure_model()
    with torch.no_grad():
        for part in module.head.modules():
            if isinstance(part, torch.nn.Linear):
                part.weight.normal_()
    return module.eval()


def preprocessing(module: CTCModule) -> AudioPreprocessing:
    return AudioPreprocessing.from_dict(module.schema.preprocessing, module.card)


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Tones that come and go over noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = 200 + 150 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * time)
    wave = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * np.abs(np.sin(2 * np.pi * rng.uniform(1, 3) * time))
    return (0.4 * wave + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def write_sounds(folder: Path) -> list[Path]:
    """Files of several lengths, rates, channels and formats; the last two are longer than a piece."""
    made = []
    for number, (seconds, rate, name) in enumerate(
        ((1.0, RATE, "a.wav"), (0.05, RATE, "b.wav"), (1.7, 16000, "c.flac"), (0.6, 11025, "d.wav"),
         (2.9, 44100, "e.ogg"), (7.3, RATE, "f.wav"), (4.2, 22050, "g.mp3"))
    ):  # fmt: skip
        wave = sound(seconds, number, rate)
        if name == "d.wav":
            wave = np.stack([wave, 0.5 * wave[::-1]], axis=1)
        soundfile.write(folder / name, wave, rate)
        made.append(folder / name)
    return made


def save(folder: Path, module: TransferModule) -> Path:
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, folder / "model.ckpt")
    return folder
