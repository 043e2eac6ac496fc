"""Batches of all forms that projects have."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lightning_transfer.callbacks.forgetting_batches import count_inputs, fingerprint, input_of, labels_of


class Batch(NamedTuple):
    input: Tensor
    target: Tensor | None
    index: Tensor


X, Y = torch.ones(2, 3), torch.tensor([4, 5])


@pytest.mark.parametrize(
    ("batch", "labels"),
    [
        ((X, Y), [4, 5]),
        ([X, Y], [4, 5]),
        (Batch(X, Y, torch.arange(2)), [4, 5]),
        (Batch(X, None, torch.arange(2)), None),
        ({"image": X, "label": Y}, [4, 5]),
        (X, None),
        ((X,), None),
        ((X, X), None),  # multi-label or regression
        ((X, Y.float()), None),
        ((X, torch.tensor([1, -100])), None),
        ((X, torch.tensor([1, 2, 3])), None),
    ],
)
def test_labels(batch, labels):
    found = labels_of(batch)
    assert (found.tolist() if found is not None else None) == labels


def test_inputs():
    assert input_of((X, Y)) is X
    assert input_of(Batch(X, Y, Y)) is X
    assert input_of(X) is X
    assert input_of(({"input_ids": X, "labels": Y}, Y)) == {"input_ids": X}


def test_counts():
    assert count_inputs(X) == 2
    assert count_inputs({"text": ["a"], "values": X}) == 2


def test_fingerprint_sees_values_order_and_type():
    items = [torch.arange(8.0), torch.arange(8.0).flip(0), torch.arange(8), {"x": torch.arange(8)}, ["a"], ["b"]]
    assert len({fingerprint([item]) for item in items}) == 6
    assert fingerprint([items[0]]) == fingerprint([torch.arange(8.0)])
