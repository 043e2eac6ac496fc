"""Build a network from its card alone, whatever library it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_transfer.backbones import timm_models, torchvision_models, transformers_models
from lightning_transfer.backbones.cards import complete
from lightning_transfer.backbones.libraries import Built
from lightning_transfer.backbones.padding import uses_same_padding, with_same_padding
from lightning_transfer.backbones.sources import LIBRARIES
from lightning_transfer.backbones.transformers_models import Form
from lightning_transfer.backbones.weights_file import fill
from lightning_transfer.errors import BackboneError, closest
from lightning_transfer.types import BackboneCard

__all__ = ["build", "describe", "finish", "is_source_head", "split"]


def split(architecture: str) -> tuple[str, str]:
    """Split ``library/model`` and check the library.

    Example:
        >>> split("torchvision/mobilenet_v2")
        ('torchvision', 'mobilenet_v2')
    """
    library, _, model = architecture.partition("/")
    if library not in LIBRARIES or not model:
        raise BackboneError(
            f"Unknown architecture `{architecture}`.{closest(library, LIBRARIES)} "
            f"Expected `library/model` with one of the libraries {', '.join(LIBRARIES)}."
        )
    return library, model


def describe(architecture: str, config: dict[str, object]) -> BackboneCard:
    """Make the card that a library's own knowledge gives; reads no weights and asks no hub."""
    library, model = split(architecture)
    if library == "timm":
        return timm_models.describe(model, config)
    if library == "torchvision":
        return torchvision_models.describe(model, config)
    made = transformers_models.make_config(model, config, architecture)
    modality = transformers_models.modality_of(made)
    return BackboneCard(
        name=architecture,
        architecture=architecture,
        source="hf",
        modality=modality,  # type: ignore[arg-type]
        pooling=transformers_models.choose_pooling(made, modality),
        architecture_config=transformers_models.plain_config(made),
    )


def build(card: BackboneCard, form: Form = "pooled") -> Built:
    """Build the network with random weights and no head, as its card says.

    Raises:
        BackboneError: If a form is asked for that only speech models of transformers have.
    """
    library, model = split(card.architecture)
    if form != "pooled" and library != "hf":
        what = "gives no features in time" if form == "frames" else "writes no text"
        raise BackboneError(
            f"`{card.name}` (`{card.architecture}`) takes no sound and {what}. Use a speech model of transformers: "
            "`hf/ORGANISATION/MODEL`, a folder that transformers saved, or an embedded speech model."
        )
    if library == "timm":
        return timm_models.build(model, card.architecture_config)
    if library == "torchvision":
        return torchvision_models.build(model, card.architecture_config)
    return transformers_models.build(model, card.architecture_config, card.pooling, form)


def finish(built: Built, card: BackboneCard) -> tuple[Built, BackboneCard]:
    """Give the network its padding, and the card the network's true counts."""
    module = with_same_padding(built.module) if card.padding == "tf_same" else built.module
    if uses_same_padding(module):
        card = replace(card, padding="tf_same")
    return built._replace(module=module.train()), complete(card, module, built.num_features)


def is_source_head(head: nn.Linear, built: Built, card: BackboneCard, state: Mapping[str, Tensor]) -> bool:
    """Tell by one forward whether the head over the features gives the whole network's logits.

    Some networks do more between their pooled features and their logits: SqueezeNet classifies before it pools,
    distilled networks average two heads. Their classifier alone would be a wrong reference.
    """
    library, model = split(card.architecture)
    if library == "hf" or card.input_size is None:
        return False
    builder = timm_models if library == "timm" else torchvision_models
    whole = builder.build_whole(model, card.architecture_config, head.out_features)
    whole = with_same_padding(whole) if card.padding == "tf_same" else whole
    fill(whole, state, origin=card.name, head=built.heads[1:], architecture=card.architecture)
    image = torch.rand(1, *card.input_size, generator=torch.Generator().manual_seed(0))
    was_training = built.module.training
    with torch.no_grad():
        expected = whole.eval()(image)
        logits = head(built.module.eval()(image))
    built.module.train(was_training)
    if logits.shape != expected.shape:
        return False
    return torch.allclose(logits, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
