"""Tickets as points: four queues in their own directions, and foreign ones in another, with a linear model of them."""

from __future__ import annotations

import numpy as np
import torch

from lightning_transfer.evaluation import Outputs, TrainingExamples
from lightning_transfer.types import Record, Schema

SCHEMA = Schema(task="multiclass", classes=("billing", "technical", "delivery", "returns"))
_WIDTH = 16
_QUEUES = np.eye(4, _WIDTH) * 4
_NOISE = np.where(np.arange(_WIDTH) < 4, 1.6, 0.5)  # in the queues' own directions, where it leads to errors


def tickets(n, seed):
    """Outputs of tickets in scope, which the model mostly gets right, surely where it is right."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 4, n)
    features = _QUEUES[target] + rng.normal(size=(n, _WIDTH)) * _NOISE
    return _outputs(features, target)


def strangers(n, seed):
    """Outputs of out-of-scope tickets: a little like a queue, and all else unlike any ticket that is known."""
    rng = np.random.default_rng(seed)
    features = 0.6 * _QUEUES[rng.integers(0, 4, n)] + rng.normal(size=(n, _WIDTH)) * _NOISE
    features[:, 8:] += 1.5
    return _outputs(features, None)


def training_examples(n=200, seed=99):
    found = tickets(n, seed)
    records = [Record(f"r{place}", "text", SCHEMA.classes[label]) for place, label in enumerate(found.target.tolist())]
    return TrainingExamples.from_outputs(found, records, SCHEMA)


def records_of(outputs, group=None, prefix="t"):
    labels = [None] * len(outputs) if outputs.target is None else outputs.target.tolist()
    return [
        Record(
            f"{prefix}{place}",
            "text",
            "out_of_scope" if label is None else SCHEMA.classes[label],
            group=None if group is None else f"c{place // group}",
        )
        for place, label in enumerate(labels)
    ]


def _outputs(features, target):
    logits = features @ _QUEUES.T / 4
    target = None if target is None else torch.as_tensor(target)
    return Outputs(
        torch.as_tensor(logits, dtype=torch.float32),
        torch.as_tensor(features, dtype=torch.float32),
        target,
        torch.arange(len(features)),
    )
