"""Backbones of timm: pooled features, the classifier removed, the card from timm's pretrained configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.cards import front_matter
from lightning_transfer.backbones.libraries import Built, explain_failures, import_library
from lightning_transfer.errors import BackboneError, closest, listing
from lightning_transfer.types import BackboneCard

__all__ = ["build", "build_whole", "describe", "licence_of", "pretrained_state"]


def describe(model: str, config: Mapping[str, Any]) -> BackboneCard:
    """Make the card of a timm model from what timm knows of it; reads no weights and asks no hub.

    Args:
        model: ``resnet18`` or, with the tag of its weights, ``resnet18.a1_in1k``.
        config: Further arguments of ``timm.create_model``.

    Raises:
        BackboneError: If the model or the tag does not exist, with the closest match.

    Example:
        >>> describe("resnet18.a1_in1k", {}).interpolation
        'bicubic'
    """
    settings = _settings(model)
    tagged = "." not in model and settings.tag and settings.has_weights
    architecture = f"{model}.{settings.tag}" if tagged else model
    channels, height, width = (int(item) for item in settings.input_size)
    if "in_chans" in config:
        channels = int(config["in_chans"])
    if "img_size" in config:
        height, width = _pair(config["img_size"])
    # With other channels than in pretraining there is no constant to normalise by: the user's card must say it.
    known = len(settings.mean) == channels
    return BackboneCard(
        name=f"timm/{model}",
        architecture=f"timm/{architecture}",
        source="timm",
        licence=settings.license or "unknown",
        input_size=(channels, height, width),
        mean=tuple(float(item) for item in settings.mean) if known else None,
        std=tuple(float(item) for item in settings.std) if known else None,
        interpolation=settings.interpolation,
        pretraining=settings.description or (settings.tag or "unknown"),
        architecture_config=dict(config),
    )


def build(model: str, config: Mapping[str, Any]) -> Built:
    """Build the network with random weights and no classifier.

    Raises:
        BackboneError: If the model is unknown or refuses the configuration.
    """
    stated = _settings(model).classifier or ()
    names = [stated] if isinstance(stated, str) else list(stated)
    try:
        module = _create(model, config, num_classes=0)
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise BackboneError(
            f"timm cannot build `{model}` with `architecture_config: {dict(config)}`: {error}"
        ) from error
    width = getattr(module, "head_hidden_size", None) or module.num_features
    # Some heads hold more than their classifier (a norm), and timm takes all of it out.
    own = {name.partition(".")[0] for name, _ in module.named_parameters()}
    names += [top for top in dict.fromkeys(name.partition(".")[0] for name in names) if top not in own]
    return Built(module, int(width), tuple(dict.fromkeys(names)))  # type: ignore[arg-type]


def build_whole(model: str, config: Mapping[str, Any], num_classes: int) -> nn.Module:
    """Build the network with random weights and with its classifier."""
    return _create(model, config, num_classes)


def _create(model: str, config: Mapping[str, Any], num_classes: int) -> nn.Module:
    """Build a network; ``stem_pool: false`` takes the pooling after its stem out, for images of some 64 pixels."""
    arguments = dict(config)
    stem_pool = arguments.pop("stem_pool", True)
    module: nn.Module = import_library("timm").create_model(
        model, pretrained=False, **{**arguments, "num_classes": num_classes}
    )
    if not stem_pool:
        if not hasattr(module, "maxpool"):
            raise ValueError(f"`stem_pool: false` needs a network with a `maxpool` after its stem; `{model}` has none")
        module.maxpool = nn.Identity()
    return module


def pretrained_state(model: str, config: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """Fetch timm's pretrained weights, from its cache or its hub, the classifier included.

    Raises:
        BackboneError: If timm has no weights for this model, or they cannot be had.
    """
    timm = import_library("timm")
    settings = _settings(model)
    if not settings.has_weights:
        raise BackboneError(
            f"timm has no pretrained weights for `{model}`. {_tags_text(model)}"
            f"Pass `--model.weights PATH`, or `--model.weights random` to start from nothing."
        )
    with explain_failures(name, _cache(model)):
        overlay = {}
        if settings.hf_hub_id and not settings.hf_hub_filename and not settings.custom_load:
            # timm asks the network even for what it has, and without one it tries for most of a minute.
            overlay = {"file": str(_fetch(settings.hf_hub_id))}
        whole: nn.Module = timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay=overlay, **{**config, "num_classes": None}
        )
    return dict(whole.state_dict())


def licence_of(model: str) -> str | None:
    """Read the licence from the hub's model card, where it came into the cache with the weights."""
    identifier = _settings(model).hf_hub_id
    if not identifier:
        return None
    readme = import_library("huggingface_hub").try_to_load_from_cache(identifier, "README.md")
    return str(front_matter(Path(readme)).get("license") or "") or None if isinstance(readme, str) else None


def _fetch(repository: str) -> Path:
    """Bring a weights file into the hub's cache; safetensors before torch files."""
    hub = import_library("huggingface_hub")
    for file in ("model.safetensors", "pytorch_model.bin"):
        path = Path(hub.snapshot_download(repository, allow_patterns=[file, "README.md"])) / file
        if path.is_file():
            return path
    raise FileNotFoundError(f"Found neither `model.safetensors` nor `pytorch_model.bin` of `{repository}`.")


def _settings(model: str) -> Any:  # noqa: ANN401 - timm's PretrainedCfg
    """Look up timm's own configuration of a model and its weights."""
    timm = import_library("timm")
    base, _, tag = model.partition(".")
    if not timm.is_model(base):
        known = timm.list_models()
        raise BackboneError(
            f"timm has no model `{base}`.{closest(base, known)} It has {len(known)} models; "
            f"`timm.list_models('*{base[:4]}*')` finds more."
        )
    if tag and tag not in _tags(base):
        raise BackboneError(f"timm has no weights `{tag}` of `{base}`.{closest(tag, _tags(base))} {_tags_text(base)}")
    settings = timm.get_pretrained_cfg(model)
    return settings if settings is not None else timm.models.PretrainedCfg()


def _tags(base: str) -> list[str]:
    """List the weights of a model, by their tags."""
    names = import_library("timm").list_pretrained(f"{base}.*")
    return [name.partition(".")[2] for name in names]


def _tags_text(model: str) -> str:
    tags = _tags(model.partition(".")[0])
    return f"Its weights are: {listing(tags, limit=12)}. " if tags else ""


def _cache(model: str) -> str:
    """Name the folder where timm looks before it asks the network."""
    identifier = _settings(model).hf_hub_id
    if not identifier:
        return f"{torch.hub.get_dir()}/checkpoints"
    folder = import_library("huggingface_hub.constants").HF_HUB_CACHE
    return f"{folder}/models--{identifier.replace('/', '--')}"


def _pair(size: Any) -> tuple[int, int]:  # noqa: ANN401 - as YAML gives it
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)
