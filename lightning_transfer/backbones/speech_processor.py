"""What turns sound into a speech model's input and its output into text, read from a saved folder as plain values."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lightning_transfer.backbones.cards import read_json
from lightning_transfer.backbones.weights_file import read_weights
from lightning_transfer.errors import BackboneError, listing

__all__ = ["ctc_vocabulary", "read_ctc_head", "speech_processor"]

_log = logging.getLogger(__name__)

_DEFAULT_EXTRACTORS = {"wav2vec2-bert": "SeamlessM4TFeatureExtractor", "whisper": "WhisperFeatureExtractor"}
_LARGE = ("mel_filters",)
"""Arrays that older files hold, and that follow from the other settings."""

_GENERATION_LEFT_OUT = ("transformers_version", "_from_model_config")

CTC_HEAD = "lm_head"
"""Name of the CTC head in every speech model of transformers, and in our own files of such models."""


def speech_processor(folder: Path, config: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers' PreTrainedConfig
    """Read the processor files of a speech model.

    Args:
        folder: As ``save_pretrained`` of model and processor wrote it.
        config: Of the model.

    Returns:
        ``feature_extractor``: its settings; ``vocabulary``: tokens in the order of the CTC head, blank, word delimiter,
        unknown; for Whisper instead ``generation``. What the folder lacks is left out; without the first it is said.

    Raises:
        BackboneError: If a file is damaged.
    """
    found: dict[str, Any] = {}
    extractor = read_json(folder / "preprocessor_config.json")
    extractor = extractor or dict(read_json(folder / "processor_config.json").get("feature_extractor") or {})
    if extractor:
        kind = _DEFAULT_EXTRACTORS.get(config.model_type, "Wav2Vec2FeatureExtractor")
        plain = {key: value for key, value in extractor.items() if key not in (*_LARGE, "processor_class")}
        found["feature_extractor"] = {"feature_extractor_type": kind, **plain}
    else:
        _log.warning(
            "`%s` has no `preprocessor_config.json`, which says how sound becomes input. Add it, or give a card.",
            folder,
        )
    if config.model_type == "whisper":
        if generation := read_json(folder / "generation_config.json"):
            found["generation"] = {key: value for key, value in generation.items() if key not in _GENERATION_LEFT_OUT}
    elif vocabulary := ctc_vocabulary(folder, config):
        found["vocabulary"] = vocabulary
    return found


def ctc_vocabulary(folder: Path, config: Any) -> dict[str, Any] | None:  # noqa: ANN401 - as above
    """Read the tokens of a CTC model in the order of its head's rows.

    The blank is the token of the configuration's ``pad_token_id``: the model was trained with that one.

    Returns:
        ``tokens``, ``blank``, ``word_delimiter``, ``unknown``; None where the folder has no vocabulary.

    Raises:
        BackboneError: If the file is damaged, or has neither blank nor word delimiter.
    """
    values: Mapping[str, Any] = read_json(folder / "vocab.json")
    if not values:
        return None
    settings = read_json(folder / "tokenizer_config.json")
    special = {**read_json(folder / "special_tokens_map.json"), **settings}
    if all(isinstance(item, Mapping) for item in values.values()):  # one vocabulary a language
        language = settings.get("target_lang") or "eng"
        if language not in values:
            raise BackboneError(
                f"`{folder / 'vocab.json'}` has no language `{language}`. It has {listing(values, 20)}. Write one as "
                "`target_lang` into `tokenizer_config.json`."
            )
        values = values[language]
    by_row = {int(row): str(token) for token, row in values.items()}
    added = {int(row): str(token) for token, row in read_json(folder / "added_tokens.json").items()}
    stated = settings.get("added_tokens_decoder") or {}
    added |= {int(row): str(item["content"]) for row, item in stated.items() if isinstance(item, Mapping)}
    by_row = {**added, **by_row}
    rows = int(config.vocab_size) if any("ForCTC" in name for name in config.architectures or []) else max(by_row) + 1
    beyond = [token for row, token in sorted(by_row.items()) if row >= rows]
    if beyond:
        _log.info("%s: the head has no row for the tokens %s.", folder, listing(beyond))
    tokens = [by_row.get(row, f"<unused{row}>") for row in range(rows)]
    blank = int(config.pad_token_id) if config.pad_token_id is not None else -1
    delimiter = _token(special.get("word_delimiter_token")) or "|"
    unknown = _token(special.get("unk_token"))
    if not 0 <= blank < rows or delimiter not in tokens:
        missing = "blank" if delimiter in tokens else "word delimiter"
        raise BackboneError(
            f"`{folder / 'vocab.json'}` has no {missing}: expected a token "
            f"for `pad_token_id` {config.pad_token_id} and `{delimiter}` among {listing(tokens, 40)}. Correct "
            "`tokenizer_config.json`, or take the file away to begin with a new vocabulary."
        )
    return {
        "tokens": tokens,
        "blank": tokens[blank],
        "word_delimiter": delimiter,
        "unknown": unknown if unknown in tokens else None,
    }


def read_ctc_head(folder: Path) -> dict[str, Tensor]:
    """Read weight and bias of a folder's CTC head, and nothing else of its weights; empty if it has none.

    Beside the model some folders hold adapters of single languages, each with a head of its own: those are not read.
    """
    names = (f"{CTC_HEAD}.weight", f"{CTC_HEAD}.bias")
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            found |= {name: opened.get_tensor(name) for name in names if name in opened.keys()}
    if not any(folder.glob("model*.safetensors")):
        for file in sorted(folder.glob("pytorch_model*.bin")):
            state = read_weights(file)
            found |= {name: state[name] for name in names if name in state}
    return {name.rpartition(".")[2]: torch.as_tensor(value).float() for name, value in found.items()}


def _token(value: Any) -> str | None:  # noqa: ANN401 - a token as text, or as a mapping with its content
    if isinstance(value, Mapping):
        value = value.get("content")
    return None if value is None else str(value)
