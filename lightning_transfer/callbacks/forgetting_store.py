"""The reference of `ForgettingMonitor`: a file beside the checkpoints."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec  # type: ignore[import-untyped]
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load, save

from lightning_transfer.callbacks.forgetting_compare import Outputs
from lightning_transfer.callbacks.forgetting_probe import Probe
from lightning_transfer.errors import CheckpointError
from lightning_transfer.files import atomic

__all__ = [
    "ReferenceFile",
    "copy_file",
    "exists",
    "find_file",
    "join",
    "load_reference",
    "open_to_write",
    "pack_reference",
    "remove_file",
    "store_folders",
]

_PARENTS = 3
_MISSING = {
    "features": "without features. Resume with the metrics that it was trained with.",
    "logits": "without a source head. Resume with `head=None`.",
    "words": "without the metric 'wer'. Resume without it.",
}


class ReferenceFile:
    """The reference outputs as the bytes of a safetensors file, named by their hash.

    The name is all that a checkpoint remembers: the file is looked for beside the checkpoint, so that a run's folder
    can be moved, and two runs in one folder do not overwrite each other's.

    Args:
        content: Bytes of the file.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.name = f"forgetting_reference-{self.sha256[:12]}.safetensors"

    def write(self, folders: Sequence[str]) -> None:
        """Write the file into each folder that lacks it; a killed run leaves no half-written one."""
        for folder in folders:
            path = join(folder, self.name)
            if not exists(path):
                with open_to_write(path) as file:
                    file.write(self.content)


def pack_reference(outputs: Mapping[str, Outputs], probes: Sequence[Probe]) -> ReferenceFile:
    """Make the reference file of some probes' outputs.

    Args:
        outputs: Probe name -> its outputs.
        probes: The same probes; their fingerprints travel along.
    """
    tensors = {}
    for probe in probes:
        found = outputs[probe.name]
        for part in ("features", "logits", "words"):
            value = getattr(found, part)
            if value is not None:
                tensors[f"{probe.name}.{part}"] = value.contiguous()
        tensors[f"{probe.name}.fingerprint"] = torch.tensor(list(bytes.fromhex(probe.fingerprint)), dtype=torch.uint8)
    return ReferenceFile(save(tensors))


def load_reference(
    name: str, sha256: str, folders: Sequence[str], probes: Sequence[Probe], needed: Mapping[str, Collection[str]]
) -> tuple[ReferenceFile, dict[str, Outputs]]:
    """Read the reference that a checkpoint names.

    Args:
        name: File name, relative to the checkpoint.
        sha256: Hash of its content.
        folders: Where to look, in this order.
        probes: What will be measured now.
        needed: Probe name -> which of its outputs are needed: ``features``, ``logits``, ``words``.

    Raises:
        CheckpointError: If the file is missing or changed, or was measured on other probes. A new reference would
            count from the resumed weights and hide what was forgotten before.
    """
    path = find_file(folders, name)
    if path is None:
        raise CheckpointError(
            f"The reference of ForgettingMonitor, `{name}`, is missing; looked in {', '.join(folders)}. Put the file "
            "back beside the checkpoint, or resume without ForgettingMonitor: a new reference would hide what was "
            "forgotten before."
        )
    with fsspec.open(path, "rb") as file:
        stored = ReferenceFile(file.read())
    if stored.sha256 != sha256:
        raise CheckpointError(
            f"The reference of ForgettingMonitor, `{path}`, has changed: its SHA-256 begins with {stored.sha256[:12]}, "
            f"the checkpoint's with {sha256[:12]}. Put the original file back."
        )
    tensors, outputs = load(stored.content), {}
    for probe in probes:
        label = f"probe `{probe.name}`" if probe.name else "the probe"
        fingerprint = tensors.get(f"{probe.name}.fingerprint")
        if fingerprint is None:
            names = sorted(key.removesuffix(".fingerprint") for key in tensors if key.endswith(".fingerprint"))
            raise CheckpointError(
                f"The reference `{name}` knows no {label}; it holds {names}. Resume with those probes."
            )
        parts = {part: tensors.get(f"{probe.name}.{part}") for part in _MISSING}
        for part in needed.get(probe.name, ()):
            if parts[part] is None:
                raise CheckpointError(f"The reference `{name}` was measured {_MISSING[part]}")
        if bytes(fingerprint.tolist()).hex() != probe.fingerprint:
            raise CheckpointError(
                f"The inputs of {label} are not those that the reference `{name}` was measured on "
                f"(now {probe.fingerprint[:12]}). Resume with the same data, transforms and `n_probe`."
            )
        outputs[probe.name] = Outputs(**parts)
    return stored, outputs


def store_folders(trainer: Trainer, *, resumed: bool = False) -> list[str]:
    """Return where checkpoints go; for a resumed run first where the checkpoint came from, and the folders above it.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir="/runs")
        >>> store_folders(trainer)
        ['/runs']
    """
    given = [getattr(item, "dirpath", None) for item in trainer.checkpoint_callbacks]
    folders = [str(item) for item in given if item]
    if resumed:
        path = str(trainer.ckpt_path) if trainer.ckpt_path else ""
        parts = [path := path.rpartition("/")[0] or "." for _ in range(_PARENTS)] if path else []
        return list(dict.fromkeys([*parts, *folders, str(trainer.default_root_dir)]))
    return list(dict.fromkeys(folders)) or [str(trainer.default_root_dir)]


def join(folder: str, name: str) -> str:
    """Return the path of a file in a folder, or in an object store's."""
    return f"{folder.rstrip('/')}/{name}" if "://" in folder else os.path.join(folder, name)


def exists(path: str) -> bool:
    """Say whether there is such a file, also in an object store."""
    system, inside = fsspec.core.url_to_fs(path)
    return bool(system.exists(inside))


def find_file(folders: Sequence[str], name: str) -> str | None:
    """Return the path of a file in the first of some folders that holds it; None if none does."""
    return next((path for folder in folders if exists(path := join(folder, name))), None)


@contextmanager
def open_to_write(path: str) -> Iterator[Any]:
    """Open a file that appears whole or not at all; object stores show one only when it is closed."""
    if "://" in path:
        with fsspec.open(path, "wb") as file:
            yield file
        return
    with atomic(path) as part, part.open("wb") as file:
        yield file


def copy_file(source: str, target: str) -> None:
    """Copy a file, whole or not at all."""
    with fsspec.open(source, "rb") as file, open_to_write(target) as copy:
        shutil.copyfileobj(file, copy)


def remove_file(path: str) -> None:
    """Remove a file, also from an object store."""
    system, inside = fsspec.core.url_to_fs(path)
    system.rm(inside)
