"""Load any backbone by its name, with the card that says how to use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_transfer.backbones import timm_models, torchvision_models, transformers_folder
from lightning_transfer.backbones.architectures import build, describe, finish, is_source_head, split
from lightning_transfer.backbones.cards import card_values, join, read_card
from lightning_transfer.backbones.in_channels import first_convolution, native_channels, with_channels
from lightning_transfer.backbones.libraries import Built
from lightning_transfer.backbones.pooled import WrappedTransformer
from lightning_transfer.backbones.seq2seq import Seq2SeqTransformer
from lightning_transfer.backbones.sources import RANDOM, Source, locate
from lightning_transfer.backbones.speech_processor import CTC_HEAD
from lightning_transfer.backbones.transformers_models import Form
from lightning_transfer.backbones.weights_file import SOURCE_HEAD, extract_head, fill, read_weights
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import BackboneCard

__all__ = ["load_backbone", "load_seq2seq", "load_source_head"]

_OF_WEIGHTS = ("licence", "pretraining")
"""Fields that describe the weights, not the network; they do not pass on to other weights."""

_NO_WEIGHTS = {"source": RANDOM, "pretraining": "none", "licence": "unknown"}


def load_backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    card: BackboneCard | str | Path | None = None,
    frames: bool = False,
    in_channels: int | None = None,
) -> tuple[nn.Module, BackboneCard]:
    """Load a pretrained backbone that maps inputs to pooled features, and its card.

    The module keeps its library's attribute names, without the old head. It comes in train mode, all open. Weights
    are read as safetensors or with ``weights_only=True``, and must fit tensor for tensor; what is dropped is logged.

    Args:
        name: ``timm/MODEL``, ``torchvision/MODEL``, ``hf/ORGANISATION/MODEL``, ``embedded/NAME``, ``offline/NAME``,
            or the path of a weights file with a card beside it, of a folder with both, or of a folder that transformers
            saved.
        weights: None takes the pretrained weights that belong to the name. A path takes a file or folder instead;
            a ``card.yaml`` beside it counts. ``random`` reads no weights; with a `BackboneCard` it rebuilds the
            network from the card alone, and asks no hub, no cache and no file.
        card: What it states wins over all other sources: a `BackboneCard`, or the path of a YAML file.
        frames: Of a speech model, return features in time, not their mean.
        in_channels: Channels of the pictures, where they are others than in pretraining; the first convolution is
            adapted, see `adapted_weight`. None takes what the card says.

    Returns:
        The module, with output of shape ``(N, card.num_features)``, or `Frames` with features
        ``(N, T, card.num_features)`` and lengths ``(N,)``; and its card.

    Raises:
        BackboneError: If the name, the weights or the card cannot be found, fetched, read or fitted together.

    Example:
        >>> import torch
        >>> backbone, card = load_backbone("torchvision/squeezenet1_1", weights="random")
        >>> backbone(torch.zeros(2, 3, 64, 64)).shape[1] == card.num_features
        True
    """
    built, found, _ = _load(name, weights, card, form="frames" if frames else "pooled")
    wanted = in_channels if in_channels is not None else _stated_channels(found)
    if wanted is not None:
        built, found = with_channels(built, found, wanted)
    return built.module, found


def _stated_channels(card: BackboneCard) -> int | None:
    """Return the channels of a card that are others than those of its architecture; None where they are the same."""
    native = native_channels(card)
    return card.input_size[0] if native is not None and card.input_size and card.input_size[0] != native else None


def load_seq2seq(
    name: str, *, weights: str | Path | None = None, card: BackboneCard | str | Path | None = None
) -> tuple[Seq2SeqTransformer, BackboneCard]:
    """Load Whisper as a whole, encoder and decoder, and its card. Arguments as for `load_backbone`.

    Raises:
        BackboneError: If it is no Whisper model, or cannot be found, fetched, read or fitted together.
    """
    built, found, _ = _load(name, weights, card, form="seq2seq")
    if not isinstance(built.module, Seq2SeqTransformer):
        raise TypeError(f"Expected `{name}` to be built as Seq2SeqTransformer, got {type(built.module).__name__}.")
    return built.module, found


def load_source_head(
    name: str, *, weights: str | Path | None = None, card: BackboneCard | str | Path | None = None
) -> nn.Linear:
    """Load the head of the source task: it maps the backbone's features to the logits of the pretraining.

    Of a CTC model it maps each frame, so it belongs to a backbone that was loaded with ``frames=True``. The reference
    of a ``ForgettingMonitor`` needs it. Arguments as for `load_backbone`.

    Returns:
        A frozen layer in eval mode.

    Raises:
        BackboneError: If the weights have no head, or one that is no linear map of the pooled features.
    """
    if weights == RANDOM:
        raise BackboneError(f"Random weights of `{name}` have no source head. Pass the weights it was trained with.")
    source = locate(name, weights)
    if source.file is None and (source.folder is not None or source.kind == "hf"):
        folder, found = _folder_card(source, card_values(card))
        return transformers_folder.source_head(folder, found)
    built, found, state = _load(name, weights, card, say=False)  # what the backbone keeps is said when it is loaded
    if found.modality == "audio":
        return _ctc_head(built, found, state)
    names = (SOURCE_HEAD, *built.heads[:1])
    head = extract_head(state, built.module, names[:1])
    if head is None:
        head = extract_head(state, built.module, names[1:])
        if head is not None and not is_source_head(head, built, found, state):
            head = None
    if head is None or head.in_features != found.num_features:
        raise BackboneError(
            f"The weights of `{name}` have no source head that is a linear map of the {found.num_features} pooled "
            f"features (looked for {', '.join(f'`{item}`' for item in names)}). "
            f"Measure forgetting by representation, without `head`."
        )
    return head


def _ctc_head(built: Built, card: BackboneCard, state: dict[str, Tensor]) -> nn.Linear:
    """Find the CTC head among the tensors of a file."""
    module = built.module.model if isinstance(built.module, WrappedTransformer) else built.module
    head = extract_head(state, module, (CTC_HEAD, SOURCE_HEAD))
    if head is None or head.in_features != card.num_features:
        raise BackboneError(
            f"The weights of `{card.name}` have no CTC head over its {card.num_features} features (looked for "
            f"`{CTC_HEAD}`, `{SOURCE_HEAD}`). Begin with a new head."
        )
    return head


def _load(
    name: str,
    weights: str | Path | None,
    card: BackboneCard | str | Path | None,
    *,
    say: bool = True,
    form: Form = "pooled",
) -> tuple[Built, BackboneCard, dict[str, Tensor]]:
    """Load a backbone; the state is what was read, the old head included, and empty for transformers' folders."""
    stated = card_values(card)
    if weights == RANDOM and "architecture" in stated:
        built, found = _from_card(name, card, stated, form)
        return built, found, {}
    source = locate(name, weights)
    if source.folder is not None or (source.kind == "hf" and source.model):
        return _load_transformers(source, weights, stated, form)
    found = _card(source, weights, stated)
    built, found = finish(build(found, form), found)
    if weights == RANDOM:
        return built, found, {}
    library, model = split(found.architecture)
    if source.file is not None:
        state = read_weights(source.file)
        state = torchvision_models.convert(model, state) if library == "torchvision" else state
    elif library == "timm":
        state = timm_models.pretrained_state(model, found.architecture_config, name)
        if "licence" not in stated and found.licence == "unknown":
            found = replace(found, licence=timm_models.licence_of(model) or "unknown")
    else:
        state = torchvision_models.pretrained_state(source.model, name)
    origin = str(source.file or name)
    _fill(built, found, state, origin, say=say)
    return built, found, state


def _fill(built: Built, card: BackboneCard, state: dict[str, Tensor], origin: str, *, say: bool = True) -> None:
    """Load a file's tensors, and log what was kept and dropped, if it is to be said."""
    module, heads, wanted, first = built.module, built.heads, _stated_channels(card), first_convolution(built.module)
    if wanted is not None and first is not None and f"{first[0]}.weight" in state:
        # The file may be of a network that was adapted before.
        if state[f"{first[0]}.weight"].shape[1] == wanted:
            with_channels(built, card, wanted)
    if isinstance(module, WrappedTransformer):
        # Files of transformers know nothing of our wrapper, and may hold a pooler that this pooling does not use.
        module, heads = module.model, ("pooler", CTC_HEAD)
    filled = fill(module, state, origin=origin, head=heads, architecture=card.architecture)
    if say:
        filled.log(origin)


def _from_card(
    name: str, card: BackboneCard | str | Path | None, stated: dict[str, Any], form: Form
) -> tuple[Built, BackboneCard]:
    """Rebuild a network from a card, with no hub, cache or file at hand."""
    if isinstance(card, BackboneCard):
        # The card of an adapted network counts its parameters after that.
        built, wanted = build(card, form), _stated_channels(card)
        if wanted is not None:
            built, _ = with_channels(built, card, wanted)
        return finish(built, card)
    base = describe(stated["architecture"], stated.get("architecture_config", {}))
    found = join(base, stated, {"name": name}, _NO_WEIGHTS)
    return finish(build(found, form), found)


def _card(source: Source, weights: str | Path | None, stated: dict[str, Any]) -> BackboneCard:
    """Join what the library, the cards beside the files, and the user's card say; the last wins."""
    of_network = read_card(source.network_card) if source.network_card else {}
    of_network = {key: value for key, value in of_network.items() if key not in _OF_WEIGHTS}
    of_weights = read_card(source.weights_card) if source.weights_card else {}
    merged = {**of_network, **of_weights, **stated}
    architecture = _architecture(source, merged)
    base = describe(architecture, dict(merged.get("architecture_config", {})))
    overlay = {key: value for key, value in merged.items() if key not in ("architecture", "architecture_config")}
    last: dict[str, Any] = {"name": source.name, "source": source.kind}
    if not source.model:
        # The library would add the name of its own weights, which these are not.
        last["architecture"] = architecture
    if weights == RANDOM:
        last |= _NO_WEIGHTS
    elif source.file is not None:
        # The library's own licence says nothing of a file that somebody brings.
        base = replace(base, licence="unknown", pretraining="unknown")
        last["source"] = "embedded" if source.kind == "embedded" else "local"
    return join(base, overlay, last)


def _architecture(source: Source, stated: dict[str, Any]) -> str:
    """Find the architecture, and refuse a card of another one."""
    by_card = stated.get("architecture")
    if not source.model:
        if by_card is None:
            raise BackboneError(
                f"Nothing says which network the weights `{source.file or source.name}` belong to. Put a `card.yaml` "
                f"with `architecture: library/model` beside them, or name the network and pass the file as `weights`."
            )
        return str(by_card)
    by_name = f"{source.kind}/{source.model}"
    if by_card is not None and str(by_card).partition(".")[0] != by_name.partition(".")[0]:
        card = source.weights_card or source.network_card or "given"
        raise BackboneError(
            f"The backbone is `{by_name}`, but the card `{card}` belongs to `{by_card}`. "
            f"Use `{by_card}`, or other weights."
        )
    return by_name


def _folder_card(source: Source, stated: dict[str, Any], *, weights: bool = True) -> tuple[Path, BackboneCard]:
    """Find the folder of a transformers model and make its card."""
    kind = "local" if source.folder else "hf"
    folder = source.folder or transformers_folder.fetch(source.model, source.name, weights=weights)
    of_weights = read_card(source.weights_card) if source.weights_card else {}
    merged = {**of_weights, **stated}
    base = transformers_folder.describe(folder, source.name, kind, merged.get("pooling"))
    if merged.get("architecture", base.architecture) != base.architecture:
        raise BackboneError(
            f"The backbone `{source.name}` is `{base.architecture}`, but its card says `{merged['architecture']}`. "
            f"Correct or leave out `architecture`."
        )
    if not merged.get("architecture_config"):
        merged.pop("architecture_config", None)
    return folder, join(base, merged, {"name": source.name, "source": kind})


def _load_transformers(
    source: Source, weights: str | Path | None, stated: dict[str, Any], form: Form
) -> tuple[Built, BackboneCard, dict[str, Tensor]]:
    """Load a folder that transformers saved, or fill its network from another file."""
    own_weights = weights != RANDOM and source.file is None
    folder, card = _folder_card(source, stated, weights=own_weights)
    if own_weights:
        built, card = finish(transformers_folder.load(folder, card, form), card)
        return built, card, {}
    if weights == RANDOM:
        card = join(card, _NO_WEIGHTS)
        built, card = finish(build(card, form), card)
        return built, card, {}
    unknown = {} if source.weights_card else {key: "unknown" for key in _OF_WEIGHTS if key not in stated}
    card = join(card, unknown, {"source": "local"})
    built, card = finish(build(card, form), card)
    state = read_weights(Path(str(source.file)))
    _fill(built, card, state, str(source.file))
    return built, card, state
