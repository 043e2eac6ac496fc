"""The inputs that `ForgettingMonitor` measures on: read once, in a fixed order, and kept in CPU memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from lightning_transfer.callbacks.forgetting_batches import count_inputs, fingerprint, input_of, labels_of
from lightning_transfer.callbacks.forgetting_findings import Findings, find_findings
from lightning_transfer.callbacks.forgetting_random import SEED, fixed_rng
from lightning_transfer.callbacks.forgetting_words import Spoken, find_spoken
from lightning_transfer.errors import closest

__all__ = [
    "PROXIES",
    "WORDS",
    "Probe",
    "ProbeSource",
    "is_stream",
    "named_probes",
    "read_probe",
    "training_batches",
]

# Without `[Any]`: jsonargparse makes a bare Dataset of a `Dataset[Any]`, whatever `class_path` a config names.
ProbeSource: TypeAlias = str | Dataset | DataLoader | LightningDataModule  # type: ignore[type-arg]
"""What one probe may be given as."""

PROXIES = ("target", "noise")
"""Stand-ins for source data: what they show is drift, not forgetting."""

WORDS = (*PROXIES, "general")
"""What a probe may be named by: a stand-in, or the general set of the run's own data module."""

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Probe:
    """Inputs that are measured again and again.

    Attributes:
        name: As the user named it; empty for the only, unnamed probe.
        proxy: Whether it stands in for source data.
        batches: What the model reads, on the CPU.
        labels: Class of each input, ``(N,)``; None if unknown.
        fingerprint: Hash of the content, so that a resumed run can tell whether it reads the same inputs.
        spoken: What is said in each input; None unless it was asked for and is known.
        findings: What each input shows; None unless it was asked for and is known.
    """

    name: str
    proxy: bool
    batches: list[Any]
    labels: Tensor | None
    fingerprint: str
    spoken: Spoken | None = None
    findings: Findings | None = None

    @property
    def size(self) -> int:
        """Number of inputs."""
        return sum(count_inputs(input_of(batch)) for batch in self.batches)

    def first(self) -> Probe:
        """Return the first batch as a probe of its own, without labels."""
        few = replace(self, batches=self.batches[:1], labels=None, findings=None)
        return few if self.spoken is None else replace(few, spoken=self.spoken.first(few.size))

    def key(self, metric: str) -> str:
        """Return the name under which a metric of this probe is logged.

        Example:
            >>> Probe("", False, [], None, "").key("cka"), Probe("street", True, [], None, "").key("cka")
            ('forgetting_cka', 'drift_street_cka')
        """
        return "_".join(part for part in ("drift" if self.proxy else "forgetting", self.name, metric) if part)


def named_probes(probe: Any) -> dict[str, Any]:  # noqa: ANN401 - the kinds of probe share no type
    """Return name -> probe; one unnamed probe has the empty name.

    Raises:
        TypeError: If something is no probe.
        ValueError: If a word is not a known proxy, a name is not fit for a logged key, or there is no probe.

    Example:
        >>> named_probes("noise"), named_probes({"photos": "target"})
        ({'': 'noise'}, {'photos': 'target'})
    """
    probes = dict(probe) if isinstance(probe, Mapping) else {"": probe}
    if not probes:
        raise ValueError("Expected at least one probe in `probe`, got {}.")
    for name, item in probes.items():
        if isinstance(probe, Mapping) and not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"Expected probe names of letters, digits and `_`, for logged keys, got {name!r}.")
        if isinstance(item, str):
            if item not in WORDS:
                raise ValueError(f"Unknown probe {item!r}. Known words: {', '.join(WORDS)}.{closest(item, WORDS)}")
        elif not (_is_data_module(item) or isinstance(item, DataLoader | Dataset) or _is_sequence(item)):
            raise TypeError(
                f"Expected a Dataset, DataLoader, LightningDataModule, one of {', '.join(WORDS)}, or a dict of these "
                f"as `probe`, got {type(item).__name__}."
            )
    return probes


def read_probe(
    name: str,
    probe: Any,  # noqa: ANN401 - as in `named_probes`
    n_probe: int,
    trainer: Trainer,
    *,
    spoken: bool = False,
    findings: bool = False,
) -> Probe:
    """Read a probe's inputs without leaving a trace in any random state.

    A data set larger than ``n_probe`` gives evenly spaced items, because many are sorted by class. Random transforms
    are drawn from a fixed seed, and once: all checks see the same inputs.

    Args:
        name: For messages and logged keys.
        probe: What the user gave.
        n_probe: Inputs to read; a stream is read in whole batches.
        trainer: Its loaders give ``"target"`` and the shape of ``"noise"``, its data module ``"general"``.
        spoken: Whether to find out what is said in the inputs.
        findings: Whether to find out what the inputs show.

    Raises:
        MisconfigurationException: If the probe cannot be read from this trainer, or has fewer than 4 inputs.
    """
    # A data module of ours asks its trainer's module for the preprocessing.
    attach = _is_data_module(probe) and getattr(probe, "trainer", None) is None
    if attach:
        probe.trainer = trainer
    try:
        source = _source_of(probe, trainer)
        batches = _read(source, n_probe, trainer)
    finally:
        if attach:
            probe.trainer = None
    sizes = [count_inputs(input_of(batch)) for batch in batches]
    if sum(sizes) < 4:
        raise MisconfigurationException(
            f"The probe {name or 'data'!r} has {sum(sizes)} inputs; unbiased CKA and an interval need at least 4."
        )
    found = [labels_of(batch) for batch in batches]
    given = [item for item in found if item is not None]
    labels = torch.cat(given) if len(given) == len(found) else None
    said = None
    if spoken and isinstance(source, DataLoader | Dataset):
        said = find_spoken(getattr(source, "dataset", source), batches, sizes, trainer.lightning_module)
    shown = None
    if findings and isinstance(source, DataLoader | Dataset):
        shown = find_findings(getattr(source, "dataset", source), batches, trainer.lightning_module)
    known = batches if said is None else [batches, said.references, said.speakers, said.normaliser]
    proxy = isinstance(probe, str) and probe in PROXIES
    return Probe(name, proxy, batches, labels, fingerprint(known), said, shown)


def _source_of(probe: Any, trainer: Trainer) -> Any:  # noqa: ANN401
    """Return the loader, the data set or the stand-in that a probe is read from."""
    if isinstance(probe, str):
        return _general_loader(trainer) if probe == "general" else probe
    return _loader_of(probe, trainer) if _is_data_module(probe) else probe


def _read(probe: Any, n_probe: int, trainer: Trainer) -> list[Any]:  # noqa: ANN401
    """Read the batches from a fixed random state, and put back the states there were."""
    with fixed_rng(probe):
        if isinstance(probe, str) and probe == "target":
            return list(_from_dataset(*_training_data(trainer, prefer_validation=True), n_probe))
        if isinstance(probe, str):
            return list(_noise(trainer, n_probe))
        return list(_from_source(probe, n_probe))


def is_stream(trainer: Trainer) -> bool:
    """Say whether the training data come from a stream, of which nothing can be read without being missed."""
    loader = _first_loader(trainer.train_dataloader)
    return loader is None or isinstance(loader.dataset, IterableDataset)


def training_batches(trainer: Trainer, count: int) -> Iterator[Any]:
    """Read batches of ``count`` evenly spaced training inputs, or of a stream's first; the same ones in each call.

    The random states stand still meanwhile. Of several loaders the first is read.

    Args:
        trainer: Of the fit.
        count: Inputs to read, at most.
    """
    loader = _first_loader(trainer.train_dataloader)
    stream: Any = trainer.train_dataloader if loader is None else loader
    with fixed_rng(loader):
        if loader is None or is_stream(trainer):
            yield from _until(stream, count)
        else:
            yield from _from_dataset(loader.dataset, loader, count)


def _is_data_module(item: Any) -> bool:  # noqa: ANN401
    """Know data modules of `lightning` and of `pytorch_lightning` by what they do."""
    return hasattr(item, "train_dataloader") and hasattr(item, "prepare_data") and hasattr(item, "setup")


def _is_sequence(item: Any) -> bool:  # noqa: ANN401
    """Know data sets that inherit nothing, such as those of Hugging Face."""
    return hasattr(item, "__len__") and hasattr(item, "__getitem__") and not isinstance(item, Mapping | str | Tensor)


def _from_source(probe: Any, n_probe: int) -> Iterator[Any]:  # noqa: ANN401
    """Read batches of data that the user handed over."""
    if not isinstance(probe, DataLoader):
        if isinstance(probe, IterableDataset):
            probe = DataLoader(probe, batch_size=_BATCH_SIZE)
        else:
            return _from_dataset(probe, None, n_probe)
    if isinstance(probe.dataset, IterableDataset):
        return _until(probe, n_probe)
    plain = isinstance(probe.sampler, SequentialSampler | RandomSampler | DistributedSampler)
    if plain and (probe.batch_sampler is None or type(probe.batch_sampler) is BatchSampler):
        return _from_dataset(probe.dataset, probe, n_probe)
    if isinstance(probe.sampler, list) and all(isinstance(item, list) for item in probe.sampler):
        return _from_dataset(probe.dataset, probe, n_probe, indices=_some_of_each(probe.sampler, n_probe))
    # A sampler of the user's own chooses which items are meant.
    return _from_dataset(probe.dataset, probe, n_probe, indices=list(islice(_chosen(probe), n_probe)))


def _some_of_each(batches: list[list[Any]], n_probe: int) -> list[list[Any]]:
    """Return batches that were made by length, thinned evenly: all lengths are there, and no batch costs more."""
    size = sum(map(len, batches))
    wanted = {round(i) for i in np.linspace(0, size - 1, min(n_probe, size))} if size else set()
    places = iter(range(size))
    thinned = [[item for item in batch if next(places) in wanted] for batch in batches]
    return [batch for batch in thinned if batch]


def _chosen(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the indices that the user's sampler names."""
    if loader.batch_sampler is not None and type(loader.batch_sampler) is not BatchSampler:
        for indices in loader.batch_sampler:
            yield from indices
    else:
        yield from loader.sampler


def _from_dataset(
    dataset: Any,  # noqa: ANN401
    loader: DataLoader[Any] | None,
    n_probe: int,
    indices: list[Any] | None = None,
) -> Iterator[Any]:
    """Read evenly spaced items, collated as the loader does, in this process."""
    if indices is None:
        size = len(dataset)
        indices = sorted({round(i) for i in np.linspace(0, size - 1, min(n_probe, size))}) if size else []
    batch_size = (loader.batch_size if loader is not None else None) or _BATCH_SIZE
    # Without a batch sampler the loader does not batch, and its collate function takes single items.
    collate = loader.collate_fn if loader is not None and loader.batch_sampler is not None else None
    # A generator of its own: a loader draws its workers' base seed even without workers.
    own = torch.Generator().manual_seed(SEED)
    return iter(DataLoader(Subset(dataset, indices), batch_size=batch_size, collate_fn=collate, generator=own))


def _until(loader: Iterable[Any], n_probe: int) -> Iterator[Any]:
    """Read whole batches of a stream until there are enough inputs."""
    seen = 0
    for batch in loader:
        yield batch
        seen += count_inputs(input_of(batch))
        if seen >= n_probe:
            return


def _loader_of(data: Any, trainer: Trainer) -> Any:  # noqa: ANN401
    """Set a data module up, unless the trainer already did, and return its held-out loader."""
    if data is not getattr(trainer, "datamodule", None):
        if trainer.local_rank == 0:
            data.prepare_data()
        trainer.strategy.barrier("forgetting_probe")
        data.setup("fit")
    for name in ("val_dataloader", "train_dataloader"):
        method = getattr(data, name)
        # Not the user's own: Lightning's raises when it is called. Its two packages raise different classes.
        if method.__module__.endswith("core.hooks"):
            continue
        found = _first_loader(method())
        if found is not None:
            return found
    raise MisconfigurationException(
        f"{type(data).__name__} gave no DataLoader for validation or training. Pass a Dataset as `probe`."
    )


def _general_loader(trainer: Trainer) -> DataLoader[Any]:
    """Return the loader of the general set of the run's own data module."""
    data = getattr(trainer, "datamodule", None)
    make = getattr(data, "general_dataloader", None)
    found = _first_loader(make()) if callable(make) else None
    if found is None:
        what = f"`{type(data).__name__}` names none" if callable(make) else f"`{type(data).__name__}` has none"
        raise MisconfigurationException(
            f'The probe "general" is the general set of the run\'s data module, and {what}. In recipes/speech set '
            "`data.general_file`; elsewhere give the data module a `general_dataloader()`, or pass a Dataset."
        )
    return found


def _first_loader(loaders: Any) -> DataLoader[Any] | None:  # noqa: ANN401
    """Find the first DataLoader in nested lists and dicts."""
    if isinstance(loaders, DataLoader):
        return loaders
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        return next((found for item in loaders if (found := _first_loader(item)) is not None), None)
    return None


def _training_data(trainer: Trainer, *, prefer_validation: bool) -> tuple[Any, DataLoader[Any]]:
    """Return a data set of this run and its loader; validation data come without augmentation."""
    train, val = _first_loader(trainer.train_dataloader), _first_loader(trainer.val_dataloaders)
    loader = (val or train) if prefer_validation else train
    if loader is None or isinstance(loader.dataset, IterableDataset):
        raise MisconfigurationException(
            'The probes "target" and "noise" read the trainer\'s own data and need a DataLoader over a data set with '
            f"a length, got {type(trainer.train_dataloader if loader is None else loader.dataset).__name__}. Pass a "
            "Dataset as `probe`."
        )
    return loader.dataset, loader


def _noise(trainer: Trainer, n_probe: int) -> Iterator[Tensor]:
    """Draw noise of the training input's shape: standard normal, or all levels of an 8-bit image."""
    dataset, loader = _training_data(trainer, prefer_validation=False)
    example = input_of(next(_from_dataset(dataset, loader, 1)))
    if not isinstance(example, Tensor) or not (example.is_floating_point() or example.dtype == torch.uint8):
        kind = str(example.dtype) if isinstance(example, Tensor) else type(example).__name__
        raise MisconfigurationException(
            f'The probe "noise" needs inputs that are tensors of floats or bytes, got {kind}. Use "target".'
        )
    generator = torch.Generator().manual_seed(SEED)
    for start in range(0, n_probe, _BATCH_SIZE):
        shape = (min(_BATCH_SIZE, n_probe - start), *example.shape[1:])
        if example.dtype == torch.uint8:
            yield torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        else:
            yield torch.randn(shape, generator=generator).to(example.dtype)
