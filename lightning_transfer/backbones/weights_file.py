"""Read weights files without running code from them, and fill a backbone strictly."""

from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_transfer.errors import BackboneError, listing

__all__ = ["SOURCE_HEAD", "LoadReport", "extract_head", "fill", "linear_of", "read_weights"]

SOURCE_HEAD = "source_head"
"""Name of the source task's head in our own weights files, beside the backbone's keys."""

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the weights, in the order we look for them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor of a weights file.

    Attributes:
        kept: Keys that went into the backbone, named as in the backbone.
        head: Keys of the old head, named as in the file: no part of the backbone. Modules that can use it read it anew.
        outside: Keys of the file that belong to no part of this backbone, dropped.
        prefix: What stood before the backbone's keys in the file, such as ``module.``.
    """

    kept: tuple[str, ...]
    head: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    prefix: str = ""

    def log(self, origin: str) -> None:
        """Say what was kept and what was dropped; tensors outside the backbone and its head are a warning."""
        wrapper = f" (under `{self.prefix}`)" if self.prefix else ""
        dropped = f"left out the old head: {listing(self.head)}" if self.head else "found no old head"
        _log.info("%s: kept %d tensors of the backbone%s; %s.", origin, len(self.kept), wrapper, dropped)
        if self.outside:
            _log.warning(
                "%s: dropped %d tensors that this backbone has no place for: %s.",
                origin,
                len(self.outside),
                listing(self.outside),
            )


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a torch file with ``weights_only=True``.

    The format is told by the content, not by the suffix. A ``state_dict`` inside a training checkpoint is found;
    what else the checkpoint holds is left aside.

    Args:
        path: The file.

    Raises:
        BackboneError: If the file is missing, damaged, holds no tensors, or would run code when read.
    """
    file = Path(path)
    if not file.is_file():
        raise BackboneError(f"No weights file at `{file}`. Check the path given as `weights`.")
    if file.stat().st_size == 0:
        raise BackboneError(f"The weights file `{file}` is empty. Copy or download it again.")
    loaded = _read_safetensors(file) if _is_safetensors(file) else _read_torch(file)
    state = _find_tensors(loaded, file)
    broken = [key for key, tensor in state.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]
    if broken:
        raise BackboneError(f"The weights file `{file}` holds NaN in {listing(broken)}. Use another checkpoint.")
    return state


def fill(
    module: nn.Module, state: Mapping[str, Tensor], *, origin: str, head: Sequence[str] = (), architecture: str = ""
) -> LoadReport:
    """Load weights into a backbone: every tensor it has must be there, in its shape.

    Wrapper prefixes (``module.``, ``_orig_mod.``, ``backbone.``) are found by themselves: the prefix is what stands
    before the backbone's own keys. Tensors of the old head are dropped, and the report says so.

    Args:
        module: The backbone, without head.
        state: The file's tensors.
        origin: The file or name that messages show.
        head: Dotted names of the old head modules, as the whole network has them.
        architecture: Shown in messages.

    Returns:
        What was kept and what was dropped.

    Raises:
        BackboneError: If tensors are missing, have other shapes, or are unknown to this architecture.

    Example:
        >>> whole = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
        >>> backbone = nn.Sequential(nn.Linear(2, 3), nn.Identity())
        >>> fill(backbone, whole.state_dict(), origin="example", head=["1"]).head
        ('1.weight', '1.bias')
    """
    own = module.state_dict()
    prefix = _find_prefix(state, own)
    inside = OrderedDict((key[len(prefix) :], tensor) for key, tensor in state.items() if key.startswith(prefix))
    # The versions of each part: some networks rename their older keys by them while they load.
    versions = getattr(state, "_metadata", None) if not prefix else None
    inside._metadata = versions or own._metadata  # type: ignore[attr-defined]
    shapes = [
        f"{key} is {tuple(inside[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in inside and inside[key].shape != tensor.shape
    ]
    if shapes:
        missing, unknown = [key for key in own if key not in inside], [key for key in inside if key not in own]
        raise BackboneError(_mismatch(origin, architecture, missing, shapes, _outside(unknown, head), len(own)))
    result = module.load_state_dict(inside, strict=False)
    twins = _tied(module)
    missing = [
        key
        for key in result.missing_keys
        if not key.endswith("num_batches_tracked") and not any(twin in inside for twin in twins.get(key, ()))
    ]
    # A tensor among the backbone's own that it has no place for means another network. What stands beside a
    # wrapper's prefix (a loss, a metric) does not: it is dropped, and named.
    unknown = _outside(result.unexpected_keys, head)
    if missing or unknown:
        raise BackboneError(_mismatch(origin, architecture, missing, shapes, unknown, len(own)))
    siblings = [key for key in state if not key.startswith(prefix)]
    outside = _outside(siblings, ("head", *head))
    return LoadReport(
        kept=tuple(key for key in own if key not in result.missing_keys),
        head=(*(prefix + key for key in result.unexpected_keys), *(key for key in siblings if key not in outside)),
        outside=tuple(outside),
        prefix=prefix,
    )


def extract_head(state: Mapping[str, Tensor], module: nn.Module, names: Iterable[str]) -> nn.Linear | None:
    """Make a linear layer from the old head's tensors; a 1x1 convolution is one too.

    Args:
        state: The file's tensors, the head included.
        module: The backbone, without head; it tells what stands before the names in the file.
        names: Dotted names under which the head may stand; the first that is found counts.

    Returns:
        A frozen layer in eval mode, or None if the file holds no linear head under these names.

    Example:
        >>> whole = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 4))
        >>> extract_head(whole.state_dict(), whole[:1], ["1"])
        Linear(in_features=8, out_features=4, bias=True)
    """
    prefix = _find_prefix(state, module.state_dict())
    for name in [candidate for stated in names for candidate in (prefix + stated, stated)]:
        weight, bias = state.get(f"{name}.weight"), state.get(f"{name}.bias")
        if weight is None or weight.flatten(1).shape[1] != weight.shape[1]:
            continue
        return linear_of(weight.flatten(1), bias)
    return None


def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a frozen linear layer in eval mode from its tensors, ``(out, in)`` and ``(out,)``."""
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    head.weight = nn.Parameter(weight.detach().float().clone(), requires_grad=False)
    if bias is not None:
        head.bias = nn.Parameter(bias.detach().float().clone(), requires_grad=False)
    return head.eval()


def _is_safetensors(file: Path) -> bool:
    """Tell by the content: eight bytes of length, then a JSON object."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return file.suffix == ".safetensors" or (len(start) == 9 and start[8:9] == b"{" and start[:2] != b"PK")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(file))
    except (SafetensorError, ValueError, OSError) as error:
        raise BackboneError(
            f"The weights file `{file}` is no valid safetensors file: {error}. Copy or download it again."
        ) from error


def _read_torch(file: Path) -> object:
    with file.open("rb") as stream:
        start = stream.read(2)
    # A zip archive, or a pickle of protocol 2 or later, as torch has ever written them.
    if start != b"PK" and start[:1] != b"\x80":
        raise BackboneError(
            f"The weights file `{file}` is damaged, or neither a safetensors nor a torch file. "
            f"Copy or download it again."
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "unsupported" not in str(error).lower():
            raise BackboneError(f"The weights file `{file}` is damaged: {error}. Copy or download it again.") from error
        raise BackboneError(
            f"The weights file `{file}` holds more than tensors, and reading it could run code from it: "
            f"{_blocked(error)}. It was not read. Where you trust it, save its `state_dict` alone as safetensors "
            f"(`safetensors.torch.save_file`) and pass that file."
        ) from error
    except (RuntimeError, EOFError, OSError, BadZipFile, ValueError, KeyError, IndexError, AttributeError) as error:
        raise BackboneError(
            f"The weights file `{file}` is damaged or no torch file: {error}. Copy or download it again."
        ) from error


def _blocked(error: BaseException) -> str:
    """Name the foreign global that torch refused."""
    for line in str(error).splitlines():
        if "GLOBAL" in line or "global" in line:
            return line.strip().rstrip(".")
    return "it is a pickle of other objects"


def _find_tensors(loaded: object, file: Path) -> dict[str, Tensor]:
    """Find the state dict, at the top or in one of the usual containers."""
    current = loaded
    for _ in range(3):
        if not isinstance(current, Mapping):
            break
        tensors = OrderedDict((str(key), value) for key, value in current.items() if isinstance(value, Tensor))
        tensors._metadata = getattr(current, "_metadata", None)  # type: ignore[attr-defined]
        inner = next((key for key in _CONTAINERS if isinstance(current.get(key), Mapping)), None)
        if inner is None or (tensors and len(tensors) >= len(current) - 1):
            if tensors:
                return tensors
            break
        current = current[inner]
    found = f"a {type(loaded).__name__}"
    if isinstance(loaded, Mapping):
        found = f"the keys {listing(loaded)}"
    raise BackboneError(
        f"The weights file `{file}` holds no weights: found {found}. "
        f"Expected a state dict, at the top or under {listing(_CONTAINERS)}."
    )


def _find_prefix(state: Mapping[str, Tensor], own: Mapping[str, Any]) -> str:
    """Find what stands before the backbone's keys: the prefix under which most of them are found."""
    names = [key for key in own if not key.endswith("num_batches_tracked")]
    if not names:
        return ""
    candidates = {""}
    for probe in (names[0], names[-1]):
        candidates |= {key[: -len(probe)] for key in state if key.endswith(f".{probe}")}
    return max(sorted(candidates, key=len), key=lambda prefix: sum(prefix + key in state for key in names))


def _tied(module: nn.Module) -> dict[str, list[str]]:
    """Return, for each parameter with several names, the names that it has: a file may hold one of them."""
    names: dict[int, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(value), []).append(name)
    return {name: group for group in names.values() if len(group) > 1 for name in group}


def _outside(keys: Iterable[str], heads: Sequence[str]) -> list[str]:
    """List the keys that belong to none of the heads."""
    prefixes = tuple(f"{name}." for name in (*heads, SOURCE_HEAD) if name)
    return [key for key in keys if not key.startswith(prefixes)]


def _mismatch(
    origin: str, architecture: str, missing: list[str], shapes: list[str], unknown: list[str], total: int
) -> str:
    """Compose the message of weights that do not fit."""
    parts = []
    if missing:
        parts.append(f"missing {len(missing)} of {total} ({listing(missing)})")
    if shapes:
        parts.append(f"other shapes ({listing(shapes, limit=3)})")
    if unknown:
        parts.append(f"unknown {len(unknown)} ({listing(unknown)})")
    net = f"`{architecture}`" if architecture else "the backbone"
    return (
        f"The weights `{origin}` do not fit {net}: {'; '.join(parts)}. "
        f"Name the architecture that the weights were trained with."
    )
