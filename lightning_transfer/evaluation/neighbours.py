"""The training example that an item resembles most: kept beside the model, found by the cosine of its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_transfer.evaluation.runner import Outputs
from lightning_transfer.types import Neighbour, Record, Schema

__all__ = ["EXAMPLES_KEY", "TrainingExamples", "sample_examples"]

EXAMPLES_KEY = "training_examples"
"""Where a checkpoint keeps them, beside schema and calibration."""

# Similarities computed at once: 16 million floats are 64 MB.
_CHUNK = 2**24


@dataclass(frozen=True, eq=False)
class TrainingExamples:
    """Features of training records as the adapted model sees them, compact enough to travel in its checkpoint.

    Attributes:
        features: Of unit length, ``(N, F)`` float16: two bytes a feature, and distances still right to about 0.001.
        paths: File of each, or its id.
        labels: Class of each; several joined by ``|``, empty if unknown.
        rule: In words, which records of the training split these are.
    """

    features: Tensor
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    rule: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def from_outputs(cls, outputs: Outputs, records: Sequence[Record], schema: Schema) -> TrainingExamples:
        """Keep the features of the records that were run; those without a direction (not finite, or zero) are left out.

        Args:
            outputs: Of a part of the training split, in which ``index`` points at ``records``.
            records: The whole training split.
            schema: Names the classes.
        """
        features = outputs.features.float()
        length = features.norm(dim=1)
        usable = torch.isfinite(length) & (length > 0)
        kept = [records[place] for place in outputs.index[usable].tolist()]
        return cls(
            features=(features[usable] / length[usable, None]).half(),
            paths=tuple(str(record.input) if isinstance(record.input, Path) else record.id for record in kept),
            labels=tuple(_label(record, schema) for record in kept),
            rule=f"all {len(records)} training records"
            if len(outputs) == len(records)
            else f"{len(outputs)} of {len(records)} training records, drawn with seed 0, rare classes first",
        )

    def nearest(self, features: Tensor) -> list[Neighbour | None]:
        """Return the example of the highest cosine for each row of ``(M, F)``; the first of several.

        Returns:
            None where there is no example, or a row has no direction.

        Raises:
            ValueError: If the width is not that of the examples.

        Example:
            >>> examples = TrainingExamples(torch.eye(2).half(), ("a.png", "b.png"), ("good", "pit"))
            >>> examples.nearest(torch.tensor([[3.0, 4.0]]))
            [Neighbour(path='b.png', label='pit', distance=0.2)]
        """
        if len(self) and features.shape[1] != self.features.shape[1]:
            raise ValueError(
                f"Expected features of width {self.features.shape[1]}, got {features.shape[1]}. The training examples "
                "belong to another model."
            )
        rows = features.detach().float().cpu()
        length = rows.norm(dim=1)
        usable = (torch.isfinite(length) & (length > 0)).tolist()
        if not len(self):
            return [None] * len(rows)
        stored = self.features.float()
        result: list[Neighbour | None] = []
        size = max(1, _CHUNK // len(self))
        for start in range(0, len(rows), size):
            directions = rows[start : start + size] / length[start : start + size, None]
            values, places = torch.nan_to_num(directions @ stored.T, nan=-1.0).max(dim=1)
            result += [
                Neighbour(self.paths[place], self.labels[place], round(min(max(1.0 - value, 0.0), 2.0), 4))
                for value, place in zip(values.tolist(), places.tolist(), strict=True)
            ]
        return [item if good else None for item, good in zip(result, usable, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values and one tensor, fit for ``torch.load(weights_only=True)``."""
        return {
            "features": self.features,
            "paths": list(self.paths),
            "labels": list(self.labels),
            "rule": self.rule,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> TrainingExamples | None:
        """Return what a checkpoint of ours holds; None where it keeps no examples."""
        values = payload.get(EXAMPLES_KEY)
        if values is None:
            return None
        return cls(values["features"], tuple(values["paths"]), tuple(values["labels"]), values["rule"])


def sample_examples(records: Sequence[Record], limit: int) -> list[int]:
    """Return at most ``limit`` positions, in order: every class gets the same share, as far as it has so many.

    So the few examples of a rare defect are all kept, and the good parts are thinned out. The draw has a fixed seed.

    Example:
        >>> records = [Record(id=str(place), input=None, label="pit" if place < 2 else "good") for place in range(50)]
        >>> chosen = sample_examples(records, 10)
        >>> len(chosen), chosen[:2]
        (10, [0, 1])
    """
    if len(records) <= limit:
        return list(range(len(records)))
    classes: dict[Any, list[int]] = {}
    for place, record in enumerate(records):
        classes.setdefault(record.label, []).append(place)
    rng = np.random.default_rng(0)
    chosen: list[int] = []
    # Smallest first: what a rare class leaves of its share goes to the larger ones.
    for done, places in enumerate(sorted(classes.values(), key=len)):
        share = (limit - len(chosen)) // (len(classes) - done)
        chosen += rng.permutation(places)[:share].tolist()
    return sorted(chosen)


def _label(record: Record, schema: Schema) -> str:
    if isinstance(record.label, tuple):
        return "|".join(name for name, value in zip(schema.classes, record.label, strict=True) if value)
    return record.label or ""
