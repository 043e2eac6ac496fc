"""Backbones of transformers: any encoder as pooled features, from a saved folder, the hub, or a card alone."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_transfer.backbones.libraries import Built, explain_torchaudio, import_library
from lightning_transfer.errors import BackboneError, closest

__all__ = [
    "PooledTransformer",
    "build",
    "choose_pooling",
    "load_config",
    "make_config",
    "modality_of",
    "plain_config",
    "pooler_arguments",
    "wrap",
]

_MODALITIES = {"pixel_values": "image", "input_ids": "text", "input_values": "audio", "input_features": "audio"}


class PooledTransformer(nn.Module):
    """Wrap a transformers encoder so that it returns one feature vector for each item.

    Args:
        model: The encoder, as ``AutoModel`` builds it.
        pooling: ``mean`` over the tokens that the attention mask shows; ``cls`` for the first token; empty for the
            encoder's own pooled output.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> backbone = PooledTransformer(BertModel(config, add_pooling_layer=False), pooling="mean")
        >>> backbone({"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}).shape
        torch.Size([1, 8])
    """

    def __init__(self, model: nn.Module, pooling: str) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, inputs: Tensor | Mapping[str, Any] | None = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Encode and pool.

        Args:
            inputs: What the processor returns, or the main tensor alone (token ids, pixels, waveform). Without an
                attention mask every token counts, padding too. ``chunk_of`` ``(M,)`` says of which item each of M rows
                is a part: their features are averaged, by the number of their tokens.
            kwargs: The same by keyword.

        Returns:
            Features of shape ``(N, F)``.
        """
        if isinstance(inputs, Mapping):
            kwargs = {**inputs, **kwargs}
        elif inputs is not None:
            kwargs[str(self.model.main_input_name)] = inputs
        chunk_of = kwargs.pop("chunk_of", None)
        features = self._pool(self.model(**kwargs), kwargs.get("attention_mask"))
        return features if chunk_of is None else _join_chunks(features, chunk_of, kwargs["attention_mask"])

    def _pool(self, output: Any, mask: Tensor | None) -> Tensor:  # noqa: ANN401 - transformers' own output
        if self.pooling == "":
            pooled: Tensor = output.pooler_output
            return pooled.flatten(1)
        hidden: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        if mask is None:
            return hidden.mean(dim=1)
        weights = self._mask_of(hidden, mask).unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)

    def _mask_of(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Bring a mask over samples or frames to the encoder's own number of steps."""
        if mask.shape[1] == hidden.shape[1]:
            return mask
        shorten = getattr(self.model, "_get_feature_vector_attention_mask", None)
        if shorten is not None:
            return torch.as_tensor(shorten(hidden.shape[1], mask))
        return functional.interpolate(mask[:, None].float(), size=hidden.shape[1], mode="nearest")[:, 0]


def _join_chunks(features: Tensor, chunk_of: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the rows of each item, weighed by their tokens."""
    weights = mask.sum(dim=1, keepdim=True).to(features.dtype)
    count = int(chunk_of.max()) + 1
    total = features.new_zeros(count, features.shape[1]).index_add(0, chunk_of, features * weights)
    return total / features.new_zeros(count, 1).index_add(0, chunk_of, weights).clamp(min=1e-9)


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


def build(model_type: str, values: Mapping[str, Any], pooling: str) -> Built:
    """Build an encoder with random weights from plain configuration values.

    The model's pooler is left out unless ``pooling`` is empty: it would be trained by nothing. Of an
    encoder-decoder the encoder is taken.

    Raises:
        BackboneError: If the type is unknown, or the values do not build it.
    """
    if not values:
        raise BackboneError(
            f"The card's `architecture_config` is empty, and `hf/{model_type}` cannot be built without it. "
            f"Put the values of the model's `config.json` there."
        )
    config = make_config(model_type, values, f"hf/{model_type}")
    with explain_torchaudio():
        try:
            model = import_library("transformers").AutoModel.from_config(config, **pooler_arguments(config, pooling))
        except (TypeError, ValueError, RuntimeError) as error:
            raise BackboneError(f"transformers cannot build `{model_type}` from its configuration: {error}") from error
    return wrap(model, config, pooling)


def wrap(model: nn.Module, config: Any, pooling: str) -> Built:  # noqa: ANN401 - as above
    """Take the encoder, in single precision, and put the pooling around it."""
    if getattr(config, "is_encoder_decoder", False):
        model = model.get_encoder()  # type: ignore[operator]
    module = PooledTransformer(model.float(), pooling)
    return Built(module, _width(module, config))


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
