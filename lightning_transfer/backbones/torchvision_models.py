"""Backbones of torchvision: its own networks and attribute names, only the last classifier layer taken out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.libraries import Built, explain_failures, import_library
from lightning_transfer.errors import BackboneError, closest, listing
from lightning_transfer.types import BackboneCard

__all__ = ["build", "build_whole", "convert", "describe", "pretrained_state"]

_HEADS = ("fc", "classifier", "heads", "head")
"""Attributes under which torchvision's classification networks keep their classifier."""

_AUXILIARY = {"inception_v3": ("AuxLogits",), "googlenet": ("aux1", "aux2")}
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.[a-z_]+)$")


def describe(model: str, config: Mapping[str, Any]) -> BackboneCard:
    """Make the card of a torchvision model from the description of its weights; nothing is fetched.

    Args:
        model: ``resnet18`` or, with the name of its weights, ``resnet18.IMAGENET1K_V1``.
        config: Further arguments of the model's builder.

    Raises:
        BackboneError: If the model or the weights do not exist, with the closest match.

    Example:
        >>> describe("mobilenet_v2", {}).input_size
        (3, 224, 224)
    """
    base, weights = _weights(model)
    preset = weights.transforms()
    size = int(preset.crop_size[0])
    licence = str(weights.meta.get("license", "unknown"))
    return BackboneCard(
        name=f"torchvision/{model}",
        architecture=f"torchvision/{base}",
        source="torchvision",
        # SWAG's licence file is CC BY-NC 4.0; torchvision states none for its other weights.
        licence="CC-BY-NC-4.0" if "SWAG" in licence else licence,
        input_size=(3, size, size),
        mean=tuple(float(item) for item in preset.mean),
        std=tuple(float(item) for item in preset.std),
        interpolation=str(preset.interpolation.value),
        pretraining=f"ImageNet-1k ({weights.name})",
        architecture_config={**_implied(base, weights), **config},
    )


def build(model: str, config: Mapping[str, Any]) -> Built:
    """Build the network with random weights, its last classifier layer replaced by an identity.

    Names stay as torchvision has them. Auxiliary heads of inception_v3 and googlenet are left out.

    Raises:
        BackboneError: If the model is unknown or refuses the configuration.
    """
    base = _base(model)
    module = build_whole(model, config, int(config.get("num_classes", 1000)))
    name = _find_head(module)
    head = module.get_submodule(name)
    width = head.in_channels if isinstance(head, nn.Conv2d) else head.in_features
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, nn.Identity())
    return Built(module, int(width), (name, *_AUXILIARY.get(base, ())))  # type: ignore[arg-type]


def build_whole(model: str, config: Mapping[str, Any], num_classes: int) -> nn.Module:
    """Build the network with random weights and with its classifier, but for auxiliary heads."""
    base = _base(model)
    arguments = {**config, "num_classes": num_classes}
    if base in _AUXILIARY:
        arguments = {"init_weights": True, **arguments, "aux_logits": False}
    try:
        module: nn.Module = import_library("torchvision.models").get_model(base, weights=None, **arguments)
    except (TypeError, RuntimeError, ValueError) as error:
        raise BackboneError(
            f"torchvision cannot build `{base}` with `architecture_config: {dict(config)}`: {error}"
        ) from error
    return module


def pretrained_state(model: str, name: str) -> dict[str, Tensor]:
    """Fetch torchvision's pretrained weights, from torch's cache or the network, the classifier included.

    Raises:
        BackboneError: If they cannot be had.
    """
    _, weights = _weights(model)
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    with explain_failures(name, cache):
        # torch.hub reads with pickle unless told not to.
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=True, check_hash=True, weights_only=True, map_location="cpu"
        )
    return convert(model, state)


def convert(model: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of old DenseNet files (``norm.1``), as torchvision itself does."""
    if not model.startswith("densenet"):
        return state
    return {_DENSENET.sub(r"\1\2", key): tensor for key, tensor in state.items()}


def _base(model: str) -> str:
    """Check the model's name, and cut off the name of its weights."""
    models = import_library("torchvision.models")
    base = model.partition(".")[0]
    known = models.list_models(module=models)
    if base not in known:
        raise BackboneError(
            f"torchvision has no classification model `{base}`.{closest(base, known)} "
            f"It has: {listing(known, limit=12)}."
        )
    return base


def _weights(model: str) -> tuple[str, Any]:
    """Look up the model and the description of its weights."""
    base = _base(model)
    tag = model.partition(".")[2]
    known = import_library("torchvision.models").get_model_weights(base)
    names = [item.name for item in known]
    if tag and tag not in known.__members__:
        raise BackboneError(
            f"torchvision has no weights `{tag}` of `{base}`.{closest(tag, names)} It has: {', '.join(names)}."
        )
    return base, known[tag] if tag else known.DEFAULT


def _implied(base: str, weights: Any) -> dict[str, Any]:  # noqa: ANN401 - torchvision's WeightsEnum
    """Return what torchvision passes to the builder by itself when it loads these weights."""
    if base in _AUXILIARY:
        return {"transform_input": True}
    if base.startswith("vit_"):
        return {"image_size": int(weights.meta["min_size"][0])}
    return {}


def _find_head(module: nn.Module) -> str:
    """Find the last linear layer or convolution of the classifier."""
    for attribute in _HEADS:
        classifier = getattr(module, attribute, None)
        if classifier is None:
            continue
        layers = [name for name, layer in classifier.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        if layers:
            return f"{attribute}.{layers[-1]}".rstrip(".")
    raise BackboneError(f"Found no classifier in `{type(module).__name__}`. Looked for {', '.join(_HEADS)}.")
