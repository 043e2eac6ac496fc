"""Backbones of transformers: any encoder as pooled features, speech encoders as frames, Whisper as a whole."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from lightning_transfer.backbones.frames import (
    FrameTransformer,
    MeanFrameTransformer,
    SpeechEncoder,
    has_frames,
    without_random_masks,
)
from lightning_transfer.backbones.libraries import Built, explain_torchaudio, import_library
from lightning_transfer.backbones.pooled import PooledTransformer
from lightning_transfer.backbones.seq2seq import Seq2SeqTransformer
from lightning_transfer.errors import BackboneError, closest

__all__ = [
    "Form",
    "PooledTransformer",
    "build",
    "choose_pooling",
    "load_config",
    "make_config",
    "modality_of",
    "plain_config",
    "pooler_arguments",
    "speech_width",
    "trained_config",
    "wrap",
]

Form: TypeAlias = Literal["pooled", "frames", "seq2seq"]
"""What a backbone returns: a vector an item, features in time, or the logits of a decoder's tokens."""

_MODALITIES = {"pixel_values": "image", "input_ids": "text", "input_values": "audio", "input_features": "audio"}


def load_config(folder: Path) -> Any:  # noqa: ANN401 - transformers' PreTrainedConfig
    """Read ``config.json`` of a saved folder; code that comes with a model is never run.

    Raises:
        BackboneError: If it is damaged, or of a type that this transformers does not know.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise BackboneError(f"Cannot read `{folder / 'config.json'}`: {error.strerror}.") from error
    except ValueError as error:
        raise BackboneError(f"`{folder / 'config.json'}` is no valid JSON: {error}.") from error
    return make_config(str(values.get("model_type", "")), values, str(folder))


def make_config(model_type: str, values: Mapping[str, Any], origin: str) -> Any:  # noqa: ANN401 - as above
    """Make a configuration object from plain values; asks no hub and reads no file.

    Raises:
        BackboneError: If the type is unknown, or the model has two towers.
    """
    with explain_torchaudio():
        transformers = import_library("transformers")
        known = list(transformers.CONFIG_MAPPING.keys())
        if model_type not in known:
            code = " Models that bring their own code are not run." if "auto_map" in values else ""
            raise BackboneError(
                f"transformers {transformers.__version__} knows no model type `{model_type}` (from `{origin}`)."
                f"{closest(model_type, known)}{code}"
            )
        plain = {key: value for key, value in values.items() if key not in ("model_type", "auto_map")}
        config = transformers.AutoConfig.for_model(model_type, **plain)
    if hasattr(config, "vision_config") and hasattr(config, "text_config"):
        raise BackboneError(
            f"`{origin}` (`{model_type}`) has a vision and a text tower. Save the one you want with "
            f"`save_pretrained`, and pass that folder."
        )
    return config


def plain_config(config: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Return a configuration as plain values that rebuild it with no hub at hand."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    for key in ("_name_or_path", "transformers_version", "model_type", "auto_map"):
        values.pop(key, None)
    return values


def choose_pooling(config: Any, modality: str) -> str:  # noqa: ANN401 - as above
    """Choose the pooling where nothing states it: mean for text and audio; for images the class token, if any."""
    if modality != "image":
        return "mean"
    # The meta device makes no weights: this only asks which tokens the network has.
    with explain_torchaudio(), torch.device("meta"):
        model = import_library("transformers").AutoModel.from_config(config)
    return "cls" if any(name.endswith("cls_token") for name, _ in model.named_parameters()) else ""


def modality_of(config: Any) -> str:  # noqa: ANN401 - as above
    """Tell image, text and audio models apart by the name of their main input."""
    return _MODALITIES.get(str(_model_class(config).main_input_name), "text")


def build(model_type: str, values: Mapping[str, Any], pooling: str, form: Form = "pooled") -> Built:
    """Build a network with random weights from plain configuration values.

    The model's pooler is left out unless ``pooling`` is empty: it would be trained by nothing. Of an
    encoder-decoder the encoder is taken, but for the form ``seq2seq``.

    Raises:
        BackboneError: If the type is unknown, the values do not build it, or it does not have that form.
    """
    if not values:
        raise BackboneError(
            f"The card's `architecture_config` is empty, and `hf/{model_type}` cannot be built without it. "
            f"Put the values of the model's `config.json` there."
        )
    config = trained_config(make_config(model_type, values, f"hf/{model_type}"), form)
    with explain_torchaudio():
        transformers = import_library("transformers")
        try:
            if form == "seq2seq":
                model = transformers.AutoModelForSpeechSeq2Seq.from_config(config)
            else:
                model = transformers.AutoModel.from_config(config, **pooler_arguments(config, pooling))
        except (TypeError, ValueError, RuntimeError) as error:
            raise BackboneError(f"transformers cannot build `{model_type}` from its configuration: {error}") from error
    return wrap(model, config, pooling, form)


def trained_config(config: Any, form: Form) -> Any:  # noqa: ANN401 - as above
    """Check that a configuration has a form, and switch off, in place, what speech networks do while they train.

    Raises:
        BackboneError: If it is no speech network, or no Whisper where a decoder is asked for.
    """
    if form == "seq2seq" and config.model_type != "whisper":
        raise BackboneError(
            f"`hf/{config.model_type}` writes no text by itself: Whisper does. Use a Whisper model, or a CTC head over "
            "frames."
        )
    if form == "frames" and modality_of(config) != "audio":
        raise BackboneError(
            f"`hf/{config.model_type}` takes no sound, so it gives no features in time. Use wav2vec 2.0, HuBERT, "
            "WavLM, wav2vec2-bert or Whisper."
        )
    return without_random_masks(config) if modality_of(config) == "audio" else config


def wrap(model: nn.Module, config: Any, pooling: str, form: Form = "pooled") -> Built:  # noqa: ANN401 - as above
    """Take the encoder (or Whisper as a whole), in single precision, and put the form that is asked for around it."""
    if config.model_type == "whisper":
        # Sinusoids, fixed by its authors; transformers forgets it when it loads weights.
        model.get_encoder().embed_positions.requires_grad_(False)  # type: ignore[operator]
    if form == "seq2seq":
        return Built(Seq2SeqTransformer(model.float()), int(config.hidden_size))
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()  # type: ignore[operator]
    model = model.float()
    if not has_frames(model) and form == "pooled":
        module = PooledTransformer(model, pooling)
        return Built(module, _width(module, config))
    speech: SpeechEncoder = FrameTransformer(model) if form == "frames" else MeanFrameTransformer(model)
    mark = getattr(model, "masked_spec_embed", None)
    if isinstance(mark, nn.Parameter):
        # Used by masks alone: without them, or in a batch without one, it has no gradient, which DDP refuses.
        mark.requires_grad_(False)
    return Built(speech, speech_width(config))


def speech_width(config: Any) -> int:  # noqa: ANN401 - as above
    """Return the width of a speech encoder's frames: an adapter behind it may change it."""
    return int(config.output_hidden_size if getattr(config, "add_adapter", False) else config.hidden_size)


def pooler_arguments(config: Any, pooling: str) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Return the argument that leaves the pooler out, for models that have one."""
    takes = "add_pooling_layer" in inspect.signature(_model_class(config).__init__).parameters
    return {"add_pooling_layer": False} if takes and pooling else {}


def _model_class(config: Any) -> Any:  # noqa: ANN401 - as above
    with explain_torchaudio():
        mapping = import_library("transformers").MODEL_MAPPING
        if type(config) not in mapping:
            raise BackboneError(f"transformers has no encoder for the model type `{config.model_type}`.")
        found = mapping[type(config)]
    return found[0] if isinstance(found, tuple) else found


def _width(module: PooledTransformer, config: Any) -> int:  # noqa: ANN401 - as above
    """Return the width of the pooled features; a network with its own pooling is asked by one forward of zeros."""
    width = getattr(config, "hidden_size", None)
    if module.pooling and isinstance(width, int):
        return width
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    was_training = module.training
    module.eval()
    with torch.no_grad():
        features = module(torch.zeros(1, int(getattr(config, "num_channels", 3)), height, width))
    module.train(was_training)
    return int(features.shape[1])
