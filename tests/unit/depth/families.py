"""The model families of the golden tables, built from configurations on the meta device: no weights, no memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lightning_transfer.depth import DepthMap, resolve_depth


def _timm(name: str, **kwargs: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, **{"num_classes": 10, **kwargs})

    return build


def _torchvision(name: str, **kwargs: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None, num_classes=10, **kwargs)

    return build


def _transformers(kind: str, config: str, **kwargs: object) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        return getattr(transformers, kind)(getattr(transformers, config)(**kwargs))

    return build


TEXT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
DEBERTA = {
    **TEXT,
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "conv_kernel_size": 3,
}
DISTILBERT = {"vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32}
ALBERT = {**TEXT, "embedding_size": 8}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32}
WAV2VEC2 = {
    **TEXT,
    "conv_dim": (8, 8, 8),
    "conv_stride": (2, 2, 2),
    "conv_kernel": (3, 3, 3),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
WAV2VEC2_BERT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "feature_projection_input_dim": 8,
}
WHISPER = {
    "vocab_size": 60,
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 16,
    "max_target_positions": 16,
    "pad_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}

TIMM = {
    "timm_resnet50": _timm("resnet50"),
    "timm_convnext_tiny": _timm("convnext_tiny"),
    "timm_vit_base_patch16_224": _timm("vit_base_patch16_224"),
    "timm_swin_tiny_patch4_window7_224": _timm("swin_tiny_patch4_window7_224"),
    "timm_efficientnet_b0": _timm("efficientnet_b0"),
    "timm_mobilenetv3_large_100": _timm("mobilenetv3_large_100"),
    "timm_vgg16": _timm("vgg16"),
    "timm_inception_v3": _timm("inception_v3"),
}
TORCHVISION = {
    "torchvision_resnet18": _torchvision("resnet18"),
    "torchvision_mobilenet_v2": _torchvision("mobilenet_v2"),
    "torchvision_squeezenet1_0": _torchvision("squeezenet1_0"),
    "torchvision_vgg16": _torchvision("vgg16"),
}
TRANSFORMERS = {
    "bert": _transformers("BertModel", "BertConfig", **TEXT),
    "bert_sequence_classification": _transformers("BertForSequenceClassification", "BertConfig", **TEXT),
    "bert_masked_lm": _transformers("BertForMaskedLM", "BertConfig", **TEXT),
    "roberta": _transformers("RobertaModel", "RobertaConfig", **TEXT),
    "roberta_sequence_classification": _transformers("RobertaForSequenceClassification", "RobertaConfig", **TEXT),
    "deberta_v2": _transformers("DebertaV2Model", "DebertaV2Config", **DEBERTA),
    "deberta_v2_sequence_classification": _transformers(
        "DebertaV2ForSequenceClassification", "DebertaV2Config", **DEBERTA
    ),
    "distilbert": _transformers("DistilBertModel", "DistilBertConfig", **DISTILBERT),
    "distilbert_sequence_classification": _transformers(
        "DistilBertForSequenceClassification", "DistilBertConfig", **DISTILBERT
    ),
    "albert": _transformers("AlbertModel", "AlbertConfig", **ALBERT),
    "albert_sequence_classification": _transformers("AlbertForSequenceClassification", "AlbertConfig", **ALBERT),
    "gpt2": _transformers("GPT2Model", "GPT2Config", **GPT2),
    "gpt2_sequence_classification": _transformers("GPT2ForSequenceClassification", "GPT2Config", **GPT2),
    "gpt2_lm": _transformers("GPT2LMHeadModel", "GPT2Config", **GPT2),
    "t5": _transformers("T5Model", "T5Config", **T5),
    "t5_conditional_generation": _transformers("T5ForConditionalGeneration", "T5Config", **T5),
    "t5_sequence_classification": _transformers("T5ForSequenceClassification", "T5Config", **T5),
    "t5_encoder": _transformers("T5EncoderModel", "T5Config", **T5),
    "vit": _transformers("ViTModel", "ViTConfig", **VIT),
    "vit_image_classification": _transformers("ViTForImageClassification", "ViTConfig", **VIT),
    "wav2vec2": _transformers("Wav2Vec2Model", "Wav2Vec2Config", **WAV2VEC2),
    "wav2vec2_ctc": _transformers("Wav2Vec2ForCTC", "Wav2Vec2Config", **WAV2VEC2),
    "wav2vec2_sequence_classification": _transformers(
        "Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", use_weighted_layer_sum=True, **WAV2VEC2
    ),
    "hubert_ctc": _transformers("HubertForCTC", "HubertConfig", **WAV2VEC2),
    "wavlm_ctc": _transformers("WavLMForCTC", "WavLMConfig", **WAV2VEC2),
    "wav2vec2_bert": _transformers("Wav2Vec2BertModel", "Wav2Vec2BertConfig", **WAV2VEC2_BERT),
    "wav2vec2_bert_ctc": _transformers("Wav2Vec2BertForCTC", "Wav2Vec2BertConfig", **WAV2VEC2_BERT),
    "wav2vec2_bert_adapter_ctc": _transformers(
        "Wav2Vec2BertForCTC", "Wav2Vec2BertConfig", **WAV2VEC2_BERT, add_adapter=True, num_adapter_layers=2
    ),
    "whisper": _transformers("WhisperModel", "WhisperConfig", **WHISPER),
    "whisper_conditional_generation": _transformers("WhisperForConditionalGeneration", "WhisperConfig", **WHISPER),
    "whisper_audio_classification": _transformers("WhisperForAudioClassification", "WhisperConfig", **WHISPER),
}


class PlainProject(nn.Module):
    """What a user's own project looks like: an attribute of blocks, a norm after them, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed = nn.Linear(4, 8)
        self.model.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.Dropout(0.1)) for _ in range(3)
        )
        self.model.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, 2)
        self.loss = nn.CrossEntropyLoss()


USER = {"plain_user_module": PlainProject}
FAMILIES: dict[str, Callable[[], nn.Module]] = {**TIMM, **TORCHVISION, **TRANSFORMERS, **USER}


def build(name: str) -> nn.Module:
    """Build one family; each parameter has a shape and no values."""
    with torch.device("meta"):
        return FAMILIES[name]()


GOLDEN = Path(__file__).parent / "golden"


def table(depth_map: DepthMap) -> str:
    """Show a map so that a reader can check it: depth, name, number of parameters, first parameter."""
    lines = [f"evidence: {depth_map.evidence}"]
    for title, layers in (("groups", depth_map.groups), ("layers", depth_map.layers), ("head", (depth_map.head,))):
        lines.append(title)
        lines.extend(
            f"{layer.depth:>3} {layer.name:<34} {len(layer.parameters):>3} {next(iter(layer.parameters), '-')}"
            for layer in layers
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    # After a deliberate change; then read the difference line by line.
    for family in FAMILIES:
        (GOLDEN / f"{family}.txt").write_text(table(resolve_depth(build(family))), encoding="utf-8")
