from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from lightning_transfer.evaluation.hierarchy import find_levels, level_probabilities
from lightning_transfer.evaluation.judges import judge
from lightning_transfer.types import Calibration, Schema

CLASSES = ("billing/card/declined", "billing/card/lost", "billing/invoice", "delivery/late", "returns")


def test_a_level_is_the_first_parts_of_each_name() -> None:
    first, second = find_levels(CLASSES)
    assert (first.depth, second.depth) == (1, 2)
    assert first.classes == ("billing", "delivery", "returns")
    assert first.leaf_to_class == (0, 0, 0, 1, 2)
    assert second.classes == ("billing/card", "billing/invoice", "delivery/late", "returns")
    assert second.leaf_to_class == (0, 0, 1, 2, 3)


@pytest.mark.parametrize("classes", [(), ("a", "b"), ("a/x", "a/y")])
def test_names_without_levels_and_a_level_of_one_class_have_none(classes: tuple[str, ...]) -> None:
    assert find_levels(classes) == ()


def test_a_queue_that_is_a_class_itself_joins_its_own_sub_queues() -> None:
    [level] = find_levels(["returns", "technical", "technical/app"])
    assert level.leaf_to_class == (0, 1, 1)


def test_probabilities_of_a_level_are_sums_of_leaves() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(5), size=40)
    for level in find_levels(CLASSES):
        found = level_probabilities(probs, level)
        assert found.sum(axis=1) == pytest.approx(1)
        for place, name in enumerate(level.classes):
            leaves = [leaf == name or leaf.startswith(f"{name}/") for leaf in CLASSES]
            assert found[:, place] == pytest.approx(probs[:, leaves].sum(axis=1))


def test_the_metrics_of_each_level_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    logits, target = rng.normal(size=(300, 5)), rng.integers(0, 5, 300)
    schema, temperature = Schema("multiclass", CLASSES), 0.6
    values = judge(logits, target, schema, Calibration(temperature)).statistic(np.ones((1, 300)))
    probs = np.exp(logits / temperature)
    probs /= probs.sum(axis=1, keepdims=True)
    parents = 0
    for depth in (1, 2):
        names = ["/".join(name.split("/")[:depth]) for name in CLASSES]
        above = sorted(set(names))
        sums = np.stack([probs[:, [leaf == name for leaf in names]].sum(axis=1) for name in above], axis=1)
        preds, truth = sums.argmax(axis=1), [above.index(names[leaf]) for leaf in target]
        assert values[f"accuracy_level_{depth}"][0] == pytest.approx(accuracy_score(truth, preds))
        assert values[f"macro_f1_level_{depth}"][0] == pytest.approx(f1_score(truth, preds, average="macro"))
        parents += sum(above[place] != names[leaf] for place, leaf in zip(preds, logits.argmax(axis=1), strict=True))
    # The sum decides, not the parent of the most probable leaf: on these logits the two differ.
    assert parents > 10
    assert "accuracy_level_3" not in values
    flat = judge(logits, target, Schema("multiclass", tuple("abcde")), Calibration())
    assert not [name for name in flat.statistic(np.ones((1, 300))) if "level" in name]
