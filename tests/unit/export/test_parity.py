from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_transfer.evaluation import predictions
from lightning_transfer.export import exported_facts
from lightning_transfer.export.parity import (
    TOLERANCE,
    Parity,
    ParityError,
    Reference,
    check_parity,
    compare,
    exported_logits,
    worst,
)
from lightning_transfer.types import BackboneCard, Calibration
from tests.unit.export.export_toys import CALIBRATION, CLASSES, POINTS, schema

CARD = BackboneCard("toy", "toy")
LOGITS = torch.tensor([[3.0, 0.0, 1.0], [0.0, 8.0, -1.0], [0.0, 0.0, 5.0]])
IDS = ("a", "b", "c")


def reference(logits=LOGITS, calibration=CALIBRATION, of=None):
    of = of or schema()
    found = predictions(logits, IDS, of, calibration)
    return Reference(IDS, logits.numpy(), tuple(found)), exported_facts(CARD, of, calibration)


def test_the_same_logits_are_the_same():
    said, facts = reference()
    parity = compare(said, LOGITS.numpy(), facts)
    assert (parity.n, parity.max_difference, parity.changed, parity.largest_logit) == (3, 0.0, (), 8.0)
    assert parity.max_probability_difference < 1e-12
    assert parity.tolerance == pytest.approx(8 * TOLERANCE)
    check_parity("model.onnx", parity)
    assert parity.to_dict()["same_decisions"] == 3


def test_rounding_passes():
    said, facts = reference()
    check_parity("model.onnx", compare(said, LOGITS.numpy() * (1 + 1e-5), facts))


def test_a_difference_of_logits_is_refused_though_no_decision_changes():
    said, facts = reference()
    parity = compare(said, LOGITS.numpy() + 0.01, facts)
    assert parity.max_difference == pytest.approx(0.01, abs=1e-6)
    assert not parity.changed
    with pytest.raises(ParityError, match=r"`model.onnx` .* on 3 samples.*logits differ by up to 0.01 \(allowed"):
        check_parity("model.onnx", parity)


def test_a_difference_of_probabilities_is_refused_where_large_logits_hide_it():
    said, facts = reference(LOGITS * torch.tensor([[1.0], [1000.0], [1.0]]))
    moved = said.logits.copy()
    moved[0] += np.array([0.05, 0.0, 0.0], dtype=np.float32)
    parity = compare(said, moved, facts)
    assert parity.max_difference < parity.tolerance
    with pytest.raises(ParityError, match="probabilities differ by up to"):
        check_parity("model.onnx", parity)


def test_a_decision_that_differs_is_refused_and_named_however_near_the_threshold():
    said, facts = reference()
    score = said.predictions[0].score
    parity = compare(said, LOGITS.numpy(), {**facts, "threshold": score + 1e-12})
    assert parity.changed == ("a",)
    with pytest.raises(ParityError, match="1 decisions differ: a"):
        check_parity("model.onnx", parity)


@pytest.mark.parametrize("fact", ["temperature", "classes", "negative_class"])
def test_a_wrong_fact_is_found(fact):
    said, facts = reference()
    wrong = {"temperature": 0.7, "classes": list(CLASSES[::-1]), "negative_class": "pit"}[fact]
    with pytest.raises(ParityError):
        check_parity("model.onnx", compare(said, LOGITS.numpy(), {**facts, fact: wrong}))


def test_nan_is_refused():
    said, facts = reference()
    broken = LOGITS.numpy().copy()
    broken[1, 1] = np.nan
    with pytest.raises(ParityError, match=r"logits differ by up to nan.*probabilities .* nan.*1 decisions differ: b"):
        check_parity("model.onnx", compare(said, broken, facts))
    said, facts = reference(torch.from_numpy(broken))
    with pytest.raises(ParityError, match="own logits of 1 samples are not finite, first of `b`"):
        compare(said, broken, facts)


def test_several_labels_are_compared_as_one_text():
    of = schema(task="multilabel", negative_class=None)
    said, facts = reference(of=of, calibration=Calibration(temperature=2.0))
    assert not compare(said, LOGITS.numpy(), facts).changed
    assert compare(said, -LOGITS.numpy(), facts).changed == IDS


def total(images):
    return images.sum(axis=(1, 2, 3))[:, None]


def test_samples_are_run_together_up_to_a_batch_and_come_back_apart():
    seen = []

    def run(images):
        seen.append(len(images))
        return total(images)

    samples = [np.full((1, 1, 2, 2), float(place)) for place in range(70)]
    facts = {"preprocessing": {"tiling": None}}
    rows = list(exported_logits({"a": run, "b": lambda images: -total(images)}, iter(samples), facts))
    assert [float(row["a"][0]) for row in rows] == [4.0 * place for place in range(70)]
    assert [float(row["b"][0]) for row in rows] == [-4.0 * place for place in range(70)]
    assert seen == [32, 32, 6]


def test_tiles_of_one_sample_are_joined_though_they_fill_several_batches():
    of = schema(preprocessing={**schema().preprocessing, "tiling": {"size": [8, 8], "overlap": 2, "top_k": 1}})
    facts = exported_facts(CARD, of, replace(CALIBRATION, points=POINTS))
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=(count, 3, 1, 1)).astype(np.float32) for count in (40, 3, 1)]
    sizes = []

    def run(images):
        sizes.append(len(images))
        return images[:, :, 0, 0]

    rows = list(exported_logits({"onnx": run}, samples, facts))
    assert max(sizes) <= 32
    for row, sample in zip(rows, samples, strict=True):
        logits = sample[:, :, 0, 0].astype(np.float64)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        worst = shares[shares[:, 1].argmin()]  # the tile that is least `free`
        np.testing.assert_allclose(np.exp(row["onnx"]), worst, rtol=1e-5)


def test_the_worst_of_several_comparisons_keeps_every_difference():
    first, second = Parity(9, 1e-6, 5.0, 3e-7, ("a", "b")), Parity(9, 4e-6, 5.0, 1e-7, ("b", "c"))
    assert worst([first, second]) == Parity(9, 4e-6, 5.0, 3e-7, ("a", "b", "c"))
    broken = worst([first, Parity(9, float("nan"), 5.0, 1e-7, ()), first])
    with pytest.raises(ParityError, match="logits differ by up to nan"):
        check_parity("model.onnx", broken)


def test_the_line_of_the_terminal():
    assert Parity(200, 2e-6, 5.0, 3e-7, ("a",)).text("model.onnx", 1.5) == (
        "model.onnx: 1.5 MB; logits differ by at most 2.0e-06 (allowed 5.0e-04), probabilities by 3.0e-07 (allowed "
        "1e-04); 199 of 200 decisions are the checkpoint's"
    )
