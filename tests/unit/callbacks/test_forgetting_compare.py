"""What the comparison says, and which metrics a probe can show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_transfer.callbacks.forgetting_compare import Outputs, compare, usable_metrics
from lightning_transfer.callbacks.forgetting_probe import Probe
from lightning_transfer.metrics.cka import unbiased_cka

# ---- comparison ------------------------------------------------------------------------------------------------------


def outputs(seed, n=50, noise=0.0):
    generator = torch.Generator().manual_seed(seed)
    features, logits = torch.randn(n, 6, generator=generator), torch.randn(n, 4, generator=generator)
    more = torch.Generator().manual_seed(seed + 1)
    return Outputs(
        features + noise * torch.randn(n, 6, generator=more), logits + noise * torch.randn(n, 4, generator=more)
    )


ALL = ("agreement", "kl", "cosine", "cka", "accuracy", "knn", "l2")


def test_equal_outputs_read_exactly_zero():
    labels = torch.arange(50) % 4
    for reading in compare(outputs(0), outputs(0), labels, ALL).values():
        assert (reading.value, reading.low, reading.high) == (0.0, 0.0, 0.0)


def test_paired_interval_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    reference, current = outputs(0), outputs(0, noise=1.0)
    labels = torch.arange(50) % 4
    readings = compare(reference, current, labels, ("accuracy", "cka"))
    right = [(item.logits.argmax(1) == labels).double().numpy() for item in (reference, current)]
    low, high = stats.norm.interval(0.95, loc=np.mean(right[0] - right[1]), scale=stats.sem(right[0] - right[1]))
    assert readings["accuracy"].low == pytest.approx(low, rel=1e-3)
    assert readings["accuracy"].high == pytest.approx(high, rel=1e-3)
    cka = 1 - unbiased_cka(reference.features, current.features).item()
    assert readings["cka"].value == pytest.approx(cka)
    assert readings["cka"].low < cka < readings["cka"].high


def test_every_metric_is_positive_when_worse():
    labels = outputs(0).logits.argmax(1)
    separable = Outputs(nn.functional.one_hot(labels).float() * 5 + outputs(0).features[:, :4] * 0.1, outputs(0).logits)
    worse = Outputs(outputs(9).features[:, :4], outputs(9).logits)
    readings = compare(separable, worse, labels, ALL)
    assert all(reading.low > 0 for reading in readings.values()), readings


@pytest.mark.parametrize(
    ("current", "reason"),
    [(Outputs(torch.full((50, 6), torch.nan)), "not finite"), (Outputs(torch.ones(50, 6)), "do not vary")],
)
def test_undefined_is_not_a_number(current, reason):
    reading = compare(outputs(0), current, None, ("cka",))["cka"]
    assert reading.value is None
    assert reason in reading.reason


def test_metric_without_its_data():
    with pytest.raises(ValueError, match="'accuracy'"):
        compare(outputs(0), outputs(0), None, ("accuracy",))


# ---- which metrics ---------------------------------------------------------------------------------------------------


def probe(name, proxy=False, labels=None):
    return Probe(name, proxy, [], labels, "")


LABELS = torch.arange(4)


def test_usable_metrics():
    probes = [probe("a", labels=LABELS), probe("b"), probe("c", proxy=True, labels=LABELS)]
    assert usable_metrics(probes, ALL, True) == {
        "a": ALL,
        "b": ("agreement", "kl", "cosine", "cka", "l2"),
        "c": ("agreement", "kl", "cosine", "cka", "knn", "l2"),
    }
    assert usable_metrics(probes, ("kl", "cka"), False) == {"a": ("cka",), "b": ("cka",), "c": ("cka",)}


@pytest.mark.parametrize(
    ("probes", "metrics", "has_head", "message"),
    [
        ([probe("")], ("cka", "knn"), True, "'knn' needs a probe of source data with labels"),
        ([probe("x", proxy=True, labels=LABELS)], ("accuracy",), True, "'accuracy' needs"),
        ([probe("")], ("agreement", "kl"), False, r"nothing is left of `metrics=\('agreement', 'kl'\)`"),
    ],
)
def test_metrics_that_nothing_offers(probes, metrics, has_head, message):
    with pytest.raises(MisconfigurationException, match=message):
        usable_metrics(probes, metrics, has_head)
