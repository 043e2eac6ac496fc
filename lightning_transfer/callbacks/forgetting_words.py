"""Word error rates of a probe: what is said in it, what the module hears now, and how much worse that has become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import Subset

from lightning_transfer.callbacks.forgetting_batches import target_of
from lightning_transfer.data.transcripts import normaliser
from lightning_transfer.metrics.bootstrap import Interval, cluster_bootstrap
from lightning_transfer.metrics.word_errors import error_rate, word_errors

__all__ = ["SourceWords", "Spoken", "find_spoken", "hear", "word_error_rate", "word_loss"]

_TEXT_KEYS = ("text", "texts", "transcript", "transcripts", "sentence", "sentences")
_NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Spoken:
    """What is said in a probe's inputs.

    Attributes:
        references: Of each input, normalised; None where it is not known, or the input is a piece of a longer record.
        speakers: Of each input; None where unknown.
        normaliser: Name of what was done to the references, and is done to what is heard.
    """

    references: tuple[str | None, ...]
    speakers: tuple[str | None, ...]
    normaliser: str = "basic"

    def first(self, count: int) -> Spoken:
        """Return the same of the first inputs."""
        return Spoken(self.references[:count], self.speakers[:count], self.normaliser)


@dataclass(frozen=True)
class SourceWords:
    """The word error rate on a probe of general speech before training.

    Attributes:
        before: With its interval.
        key: Logged key of the loss against it.
    """

    before: Interval
    key: str

    def at(self, readings: Mapping[str, Interval] | None) -> dict[str, Interval]:
        """Return ``before``, ``after`` and ``change``; without value where there was no check.

        The interval stands at the change: both rates are of the same utterances, so their own ends say little of it.

        Example:
            >>> words = SourceWords(Interval(0.25, 0.125, 0.375, n=40), "forgetting_wer")
            >>> found = words.at({"forgetting_wer": Interval(0.5, 0.25, 0.75, n=40)})
            >>> print(found["before"], found["after"], found["change"], sep="; ")
            0.250 [0.125, 0.375]; 0.750 [n/a]; 0.500 [0.250, 0.750]
        """
        change = None if readings is None else readings.get(self.key)
        if change is None or change.value is None or self.before.value is None:
            why = "not measured with these weights" if change is None else change.reason
            missing = Interval(None, None, None, self.before.n, self.before.num_groups, why)
            return {"before": self.before, "after": missing, "change": missing}
        why = "its interval stands at the change, as both rates are of the same utterances"
        after = Interval(self.before.value + change.value, None, None, self.before.n, self.before.num_groups, why)
        return {"before": self.before, "after": after, "change": change}


def find_spoken(dataset: Any, batches: Sequence[Any], sizes: Sequence[int], module: Any) -> Spoken | None:  # noqa: ANN401
    """Return what is said in the inputs of some batches; None where nothing tells.

    Asked for it are, in this order: the records of a data set of ours, which know their speakers too; texts in the
    batches (under ``text`` or ``transcript``, or second in a tuple); ``module.reference_texts(target)``, which reads
    the batch's labels back.

    Args:
        dataset: That the batches were read from, as the loader holds it.
        batches: As the loader gave them.
        sizes: Inputs in each.
        module: Of the fit; its schema names the normaliser for scoring.
    """
    texts: list[str | None] = []
    speakers: list[str | None] = []
    for batch, size in zip(batches, sizes, strict=True):
        said = _of_records(dataset, batch) or _in_batch(batch, size)
        target = target_of(batch)
        if said is None and target is not None and callable(getattr(module, "reference_texts", None)):
            said = [(text, None) for text in module.reference_texts(target)]
        if said is None or len(said) != size:
            return None
        texts += [text for text, _ in said]
        speakers += [speaker for _, speaker in said]
    if all(text is None for text in texts):
        return None
    name = _normaliser_name(module)
    clean = normaliser(name)
    return Spoken(tuple(None if text is None else clean(text) for text in texts), tuple(speakers), name)


def hear(module: LightningModule, trainer: Trainer, batches: Sequence[Any], spoken: Spoken) -> Tensor:
    """Let the module transcribe batches in the trainer's precision; count the wrong words.

    Args:
        module: With ``transcribe(batch)``, which returns a `Transcript` or a text for each input.
        trainer: Of the fit.
        batches: As the loader gave them.
        spoken: What is said in them.

    Returns:
        Wrong words, and words that were said, of each input ``(N, 2)`` int64; zeros where the reference is unknown.

    Raises:
        MisconfigurationException: If the module cannot transcribe, or not each input.
    """
    transcribe = getattr(module, "transcribe", None)
    if not callable(transcribe):
        raise MisconfigurationException(
            f"The metric 'wer' needs `transcribe(batch) -> list[Transcript]`, and {type(module).__name__} has no such "
            "method. Add one that returns a text for each input of the batch, or leave 'wer' out of `metrics`."
        )
    precision = trainer.precision_plugin
    heard: list[str] = []
    for batch in batches:
        moved = module.transfer_batch_to_device(precision.convert_input(batch), module.device, 0)
        with precision.forward_context():
            heard += [item if isinstance(item, str) else str(item.text) for item in transcribe(moved)]
    if len(heard) != len(spoken.references):
        raise MisconfigurationException(
            f"`{type(module).__name__}.transcribe` returned {len(heard)} texts for {len(spoken.references)} inputs. It "
            "must return one for each, in their order."
        )
    clean, known = normaliser(spoken.normaliser), [text is not None for text in spoken.references]
    counts = torch.zeros(len(known), 2, dtype=torch.int64)
    pairs = [(said, clean(text)) for said, text in zip(spoken.references, heard, strict=True) if said is not None]
    found = word_errors([said for said, _ in pairs], [text for _, text in pairs])
    counts[torch.tensor(known, dtype=torch.bool)] = torch.tensor(
        [[item.errors, item.length] for item in found], dtype=torch.int64
    ).reshape(-1, 2)
    return counts


def word_error_rate(counts: Tensor, spoken: Spoken) -> Interval:
    """Return the word error rate of a probe, with an interval by bootstrap over speakers.

    With fewer than two known speakers the utterances are drawn.

    Args:
        counts: As `hear` returns them, ``(N, 2)``.
        spoken: What is said.
    """
    return _rate(counts[:, 0], counts[:, 1], spoken)


def word_loss(reference: Tensor, current: Tensor, spoken: Spoken) -> Interval:
    """Return the word error rate now minus that of the reference, paired, as `word_error_rate` does.

    Args:
        reference: Counts before training ``(N, 2)``.
        current: Counts of the same inputs now.
        spoken: What is said.

    Example:
        >>> spoken = Spoken(("one two", "three four"), ("ann", "bob"))
        >>> before, now = torch.tensor([[0, 2], [1, 2]]), torch.tensor([[1, 2], [2, 2]])
        >>> str(word_loss(before, now, spoken)), str(word_loss(before, before, spoken))
        ('0.500 [0.500, 0.500]', '0.000 [0.000, 0.000]')
    """
    return _rate(current[:, 0] - reference[:, 0], reference[:, 1], spoken)


def _rate(errors: Tensor, lengths: Tensor, spoken: Spoken) -> Interval:
    known = [place for place, text in enumerate(spoken.references) if text is not None]
    wrong, words = errors[known].numpy(), lengths[known].numpy()
    speakers = [spoken.speakers[place] for place in known]
    several = len({speaker for speaker in speakers if speaker is not None}) > 1
    return cluster_bootstrap(
        lambda weights: error_rate(wrong, words, weights),
        speakers if several else range(len(known)),
        n_resamples=_NUM_RESAMPLES,
        reason="no reference has a word",
    )


def _of_records(dataset: Any, batch: Any) -> list[tuple[str | None, str | None]] | None:  # noqa: ANN401
    """Return text and speaker of each record of a batch of ours; None for other data sets."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    records, index = getattr(dataset, "records", None), getattr(batch, "index", None)
    if not isinstance(records, Sequence) or not isinstance(index, Tensor):
        return None
    owners = getattr(dataset, "owners", range(len(records)))
    first: dict[int, Any] = {}
    for owner, record in zip(owners, records, strict=True):
        first.setdefault(owner, record)
    rows = index.tolist() if index.ndim == 1 else [row[0] for row in index.tolist()]
    pieces = [1] * len(rows) if index.ndim == 1 else [row[2] for row in index.tolist()]
    found = [(first[row].label, first[row].group) for row in rows]
    # What is said in a piece of a long record is not known.
    return [
        (text if isinstance(text, str) and count == 1 else None, speaker)
        for (text, speaker), count in zip(found, pieces, strict=True)
    ]


def _in_batch(batch: Any, size: int) -> list[tuple[str | None, str | None]] | None:  # noqa: ANN401
    """Return the texts that a batch holds; None where it holds none."""
    values: list[Any] = []
    if isinstance(batch, Mapping):
        values = [batch[key] for key in _TEXT_KEYS if key in batch]
    elif isinstance(batch, tuple | list):
        values = [getattr(batch, key, None) for key in _TEXT_KEYS] + list(batch[1:])
    for value in values:
        if isinstance(value, list | tuple) and len(value) == size and all(isinstance(item, str) for item in value):
            return [(item, None) for item in value]
    return None


def _normaliser_name(module: Any) -> str:  # noqa: ANN401 - any LightningModule
    """Return what the schema of a module of ours says that texts are compared by, else ``basic``."""
    preprocessing = getattr(getattr(module, "schema", None), "preprocessing", None) or {}
    return str(preprocessing.get("scoring_normaliser") or "basic")
