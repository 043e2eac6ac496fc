"""Tiny speech models with their processor files, saved as real checkpoints are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", "a", "b", "c", "d", "'")

_TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
_TINY |= {"vocab_size": len(TOKENS), "pad_token_id": 0}
# Three samples make one frame for the first 20: (n - 10) // 5 + 1, then (n - 3) // 2 + 1.
_WAVEFORM = {**_TINY, "conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2}
_WAVEFORM |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2_group": ("Wav2Vec2", {**_WAVEFORM, "feat_extract_norm": "group"}),
    "wav2vec2_layer": ("Wav2Vec2", {**_WAVEFORM, "feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "hubert": ("Hubert", {**_WAVEFORM, "feat_extract_norm": "group"}),
    "wavlm": ("WavLM", {**_WAVEFORM, "feat_extract_norm": "layer"}),
    "wav2vec2_bert": ("Wav2Vec2Bert", {**_TINY, "feature_projection_input_dim": 8, "conv_depthwise_kernel_size": 5}),
}
"""Class name and configuration; the blank is row 0."""

WHISPER = {
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_mel_bins": 8,
    "max_source_positions": 50,
    "max_target_positions": 24,
}
# In transformers' order: its tokenizer counts languages from the start token on.
_SPECIAL = ("<|startoftranscript|>", "<|en|>", "<|zh|>", "<|de|>", "<|translate|>", "<|transcribe|>")
_SPECIAL += ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def ctc_model(family: str, *, head: bool = True, seed: int = 0, **config: Any) -> torch.nn.Module:
    """Build a tiny model with random weights, in eval mode."""
    import transformers

    name, values = FAMILIES[family]
    made = getattr(transformers, f"{name}Config")(**{**values, **config})
    torch.manual_seed(seed)
    model: torch.nn.Module = getattr(transformers, f"{name}{'ForCTC' if head else 'Model'}")(made)
    return model.eval()


def save_ctc(
    folder: Path, family: str, *, head: bool = True, tokens: tuple[str, ...] = TOKENS, **config: Any
) -> torch.nn.Module:
    """Save a tiny model with feature extractor and tokenizer, and return it in eval mode."""
    import transformers

    model = ctc_model(family, head=head, **config)
    model.save_pretrained(folder)  # type: ignore[operator]
    file = folder / "vocab.json"
    file.write_text(json.dumps({token: row for row, token in enumerate(tokens)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(file))
    if family == "wav2vec2_bert":
        extractor = transformers.SeamlessM4TFeatureExtractor(feature_size=4, num_mel_bins=4)
        transformers.Wav2Vec2BertProcessor(extractor, tokenizer).save_pretrained(folder)
    else:
        masked = FAMILIES[family][1]["feat_extract_norm"] == "layer"
        extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masked)
        transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return model


def sound(family: str, lengths: list[int], seed: int = 0) -> dict[str, torch.Tensor]:
    """Make a padded batch of noise as the model takes it."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    if family == "whisper":
        features = torch.randn(len(lengths), 8, longest, generator=generator)
        return {"input_features": features * mask[:, None], "attention_mask": mask}
    if family == "wav2vec2_bert":
        features = torch.randn(len(lengths), longest, 8, generator=generator)
        return {"input_features": features * mask[:, :, None], "attention_mask": mask}
    waveform = torch.randn(len(lengths), longest, generator=generator)
    return {"input_values": waveform * mask, "attention_mask": mask}


def whisper_tokenizer(texts: list[str]) -> Any:
    """Train a tiny byte-level tokenizer with Whisper's special tokens."""
    import transformers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    values = json.loads(made.to_str())["model"]
    merges = [tuple(item) for item in values["merges"]]
    return transformers.WhisperTokenizer(vocab=values["vocab"], merges=merges, additional_special_tokens=list(_SPECIAL))


def save_whisper(folder: Path, texts: list[str], *, multilingual: bool = True, **config: Any) -> torch.nn.Module:
    """Save a tiny Whisper with a window of one second, processor and generation settings; return it in eval mode."""
    import transformers

    tokenizer = whisper_tokenizer(texts)
    ids = dict(zip(_SPECIAL, tokenizer.convert_tokens_to_ids(list(_SPECIAL)), strict=True))
    end = tokenizer.eos_token_id
    made = transformers.WhisperConfig(
        **{**WHISPER, **config},
        vocab_size=len(tokenizer),
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=ids["<|startoftranscript|>"],
    )
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(made).eval()
    settings: dict[str, Any] = {
        "is_multilingual": multilingual,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "suppress_tokens": [ids["<|startoflm|>"], ids["<|startofprev|>"]],
        "begin_suppress_tokens": [end],
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "max_length": 24,
    }
    if multilingual:
        settings["lang_to_id"] = {name: ids[name] for name in ("<|en|>", "<|zh|>", "<|de|>")}
        settings["task_to_id"] = {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")}
    model.generation_config = transformers.GenerationConfig(**settings)
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return model
