"""Networks to cut: those of the image libraries by name, and small ones of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lightning_transfer.backbones import load_backbone
from lightning_transfer.backbones.frames import FrameTransformer, MeanFrameTransformer, without_random_masks
from lightning_transfer.backbones.pooled import PooledTransformer

_SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}


def image_backbone(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """Return a network in eval mode, and the size of its images; small where it takes any."""
    torch.manual_seed(0)
    backbone, card = load_backbone(name, weights="random")
    size = card.input_size if card.input_size and "vit" in name else (3, 64, 64)
    return backbone.eval(), size


def with_head(backbone: nn.Module) -> nn.Module:
    model = nn.Module()
    model.backbone, model.head = backbone, nn.Linear(16, 2)
    return model


def _text(kind: str, pooling: str, **config: Any) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}Config")(**{**_SMALL, "vocab_size": 50, **config})
    options = {"add_pooling_layer": False} if kind in ("Bert", "Roberta") else {}
    model = getattr(transformers, f"{kind}Model")(made, **options)
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])
    return PooledTransformer(model, pooling).eval(), {"input_ids": ids, "attention_mask": (ids > 0).long()}


def _wave(wrapper: Callable[[nn.Module], nn.Module]) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    import transformers

    torch.manual_seed(0)
    conv = {"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    conv |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    config = transformers.Wav2Vec2Config(**_SMALL, **conv, feat_extract_norm="layer", do_stable_layer_norm=True)
    mask = torch.ones(2, 2000, dtype=torch.long)
    mask[1, 1200:] = 0
    wave = {"input_values": torch.randn(2, 2000) * mask, "attention_mask": mask}
    return wrapper(transformers.Wav2Vec2Model(without_random_masks(config))).eval(), wave


def _whisper() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "num_mel_bins": 4}
    config = transformers.WhisperConfig(**sizes, max_source_positions=6, vocab_size=12, pad_token_id=1)
    mask = torch.tensor([[1] * 12, [1] * 6 + [0] * 6])
    sound = {"input_features": torch.randn(2, 4, 12), "attention_mask": mask}
    return MeanFrameTransformer(WhisperEncoder(config)).eval(), sound


SEQUENCES: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "bert": lambda: _text("Bert", "mean"),
    "roberta": lambda: _text("Roberta", "cls"),
    "mpnet": lambda: _text("MPNet", "mean"),
    "modernbert": lambda: _text(
        "ModernBert", "mean", pad_token_id=0, global_attn_every_n_layers=2, cls_token_id=1, sep_token_id=2
    ),
    "deberta": lambda: _text("DebertaV2", "mean", relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "albert": lambda: _text("Albert", "mean", embedding_size=8),
    "wav2vec2": lambda: _wave(MeanFrameTransformer),
    "wav2vec2-frames": lambda: _wave(FrameTransformer),
    "whisper": _whisper,
}
