"""What a column tells of a label, against scikit-learn's AUROC of shares computed patient by patient."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lightning_transfer.data.audit_associations import association_findings, column_auroc
from lightning_transfer.types import Record


def slow(values, truth, groups) -> float:
    """Leave out one patient at a time, in plain loops."""
    scores = []
    for value, group in zip(values, groups, strict=True):
        others = [i for i, other in enumerate(groups) if other != group]
        prior = np.mean([truth[i] for i in others])
        same = [truth[i] for i in others if values[i] == value]
        scores.append(round((sum(same) + 0.5 * prior) / (len(same) + 0.5), 12))
    return roc_auc_score(truth, scores)


@pytest.mark.parametrize("seed", range(5))
def test_the_share_among_other_patients(seed: int) -> None:
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 25, 80).astype(str).tolist()
    values = [str(draw.integers(0, 4) if draw.random() < 0.5 else int(group) % 4) for group in groups]
    truth = draw.random(80) < [0.2 + 0.2 * int(value) for value in values]
    assert column_auroc(values, truth, groups) == pytest.approx(slow(values, truth.tolist(), groups))


def test_a_patient_does_not_vouch_for_itself() -> None:
    """A value of one patient tells that patient's label, and no other's."""
    groups = [str(i // 4) for i in range(80)]
    truth = [i // 4 % 2 == 0 for i in range(80)]
    assert column_auroc(groups, truth, groups) <= 0.5


def test_one_class_is_undefined() -> None:
    assert column_auroc(["a", "b"], [True, True], ["1", "2"]) is None


def rows(labels) -> list[Record]:
    return [Record(str(i), None, label, "train", str(i)) for i, label in enumerate(labels)]


def test_a_column_that_tells_is_named_with_the_shares() -> None:
    labels = ["ill", "well"] * 40
    sites = ["clinic" if label == "ill" or i % 8 == 1 else "school" for i, label in enumerate(labels)]
    [found] = association_findings(rows(labels), {"site": sites, "noise": ["x", "x", "y", "y"] * 20}, ["well", "ill"])
    assert found.code == "column-tells-label"
    assert "`site` alone tells 1 label" in found.message
    assert "80% of 50 in `clinic`, 0% of 30 in `school`" in found.message
    assert "ill: AUROC 0.75" in found.message


def test_each_finding_is_asked_on_its_own_and_unknown_ones_do_not_count() -> None:
    labels = [(1.0, float(i % 3 == 0)) if i % 2 else (0.0, None) for i in range(80)]
    views = ["PA" if i % 2 else "AP" for i in range(80)]
    [found] = association_findings(rows(labels), {"view": views}, ["edema", "mass"])
    assert [example.split(":")[0] for example in found.examples] == ["edema"]


def test_nothing_is_said_of_few_or_of_one_value() -> None:
    labels = ["a"] * 5 + ["b"] * 50
    assert association_findings(rows(labels), {"site": ["s"] * 5 + ["t"] * 50}, ["a", "b"]) == []
    assert association_findings(rows(["a", "b"] * 30), {"site": ["s"] * 60}, ["a", "b"]) == []
