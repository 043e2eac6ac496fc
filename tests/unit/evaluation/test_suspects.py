"""Oracles: the same ranking written out literally in Python, closed forms, and planted errors."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from lightning_transfer.evaluation import Suspect, find_suspects, rank_groups, suspects

ABC = ("a", "b", "c")


def clusters(n=300, classes=3, seed=0, spread=0.6, width=8):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    centres = np.random.default_rng(99).normal(size=(classes, width)) * 2
    # Of very different scales, as pretrained networks have them.
    return (centres[labels] + spread * rng.normal(size=(n, width))) * 10.0 ** np.arange(-2, width - 2), labels


def flipped(labels, rows, classes, seed=0):
    wrong = labels.copy()
    wrong[rows] = (wrong[rows] + np.random.default_rng(seed).integers(1, classes, len(rows))) % classes
    return wrong


def literally(features, labels, classes, groups, k):
    """Confident learning with loops and dictionaries, record by record."""
    n = len(labels)
    groups = [("own", i) if groups is None or groups[i] is None else groups[i] for i in range(n)]
    judged = [
        i for i in range(n) if labels[i] >= 0 and len({groups[j] for j in range(n) if labels[j] == labels[i]}) > 1
    ]
    columns = np.float64(np.float32(features))[judged].T
    scaled = []
    for column in columns:
        mean, deviation = column.mean(), math.sqrt(((column - column.mean()) ** 2).mean())
        scaled.append([(value - mean) / deviation if deviation else 0.0 for value in column])
    points = dict(zip(judged, np.array(scaled).T, strict=True))
    votes = {}
    for i in judged:
        cosines = {}
        for j in judged:
            if groups[j] != groups[i]:
                cosines[j] = float(points[i] @ points[j] / np.linalg.norm(points[i]) / np.linalg.norm(points[j]))
        nearest = sorted(cosines, key=lambda j: -cosines[j])[:k]
        best = cosines[nearest[0]]
        share = Counter()
        for j in nearest:
            share[labels[j]] += math.exp((cosines[j] - best) / 0.1)
        total = sum(share.values())
        votes[i] = {c: share[c] / total for c in range(len(classes))}
    threshold = {}
    for c in range(len(classes)):
        own = [votes[i][c] for i in judged if labels[i] == c]
        threshold[c] = sum(own) / len(own) if own else math.inf
    rows = []
    for i in judged:
        others = {c: p for c, p in votes[i].items() if c != labels[i]}
        margin = votes[i][labels[i]] - max(others.values())
        confident = [c for c in votes[i] if votes[i][c] >= threshold[c] - 1e-9 and votes[i][c] > 0]
        top = max(confident, key=lambda c: votes[i][c]) if confident else labels[i]
        likely = top != labels[i]
        guess = top if likely else max(others, key=lambda c: others[c])
        rows.append((not likely, margin, i, classes[guess]))
    return sorted(rows)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ranking_is_the_literal_one(grouped, seed):
    features, labels = clusters(120, seed=seed, spread=2.0)
    labels[:7] = -1
    labels[7] = 3  # the only one of its class: nobody could speak for it
    groups = [f"g{i // 4}" if i % 9 else None for i in range(120)] if grouped else None
    found = find_suspects(features, labels, (*ABC, "d"), groups=groups, k=7)
    oracle = literally(features, labels, (*ABC, "d"), groups, 7)
    assert len(found) == len(oracle) == 112
    assert [item.likely for item in found] == [not row[0] for row in oracle]
    assert {item.index: item.suggested for item in found} == {row[2]: row[3] for row in oracle}
    scores = {row[2]: (1 - row[1]) / 2 for row in oracle}
    # Cosines are float32 here; their order may differ within that only.
    np.testing.assert_allclose([item.score for item in found], [scores[item.index] for item in found], atol=1e-4)
    np.testing.assert_allclose([item.score for item in found], [(1 - row[1]) / 2 for row in oracle], atol=1e-4)
    assert sum(item.likely for item in found) > 3


def test_two_neighbours_share_the_vote_by_their_cosines():
    # Unit vectors after scaling: four points symmetric about the origin have mean 0 and equal deviations.
    angles = np.deg2rad([0, 10, 25, 180, 190, 205])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points /= points.std(axis=0)
    found = {item.index: item for item in find_suspects(points, [0, 0, 1, 1, 1, 0], ("x", "y"), k=2)}
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    near, far = unit[0] @ unit[1], unit[0] @ unit[2]
    share = 1 / (1 + math.exp((far - near) / 0.1))  # of the one with the same label
    assert found[0].score == pytest.approx((1 - (share - (1 - share))) / 2, abs=1e-5)


def test_an_error_among_its_like_is_certain_and_first():
    features, labels = clusters()
    wrong = flipped(labels, [17], 3)
    first = find_suspects(features, wrong, ABC)[0]
    assert first == Suspect(17, ABC[wrong[17]], ABC[labels[17]], pytest.approx(1.0), True)


@pytest.mark.parametrize("seed", range(5))
def test_one_percent_of_planted_errors_is_at_the_top(seed):
    features, labels = clusters(1000, classes=5, seed=seed, spread=1.0)
    rows = np.random.default_rng(seed).choice(1000, 10, replace=False)
    found = find_suspects(features, flipped(labels, rows, 5, seed), tuple("abcde"))
    assert len(set(rows.tolist()) & {item.index for item in found[:50]}) >= 9


def test_true_labels_have_low_scores_and_no_likely_errors():
    found = find_suspects(*clusters(spread=0.2), ABC)
    assert max(item.score for item in found) < 0.1
    assert not any(item.likely for item in found)


def test_a_part_that_is_wrong_as_a_whole_is_found_by_its_group_only():
    features, labels = clusters(60, spread=0.5)
    # Six pictures of each part, nearly the same.
    rng = np.random.default_rng(1)
    copies = np.repeat(features, 6, axis=0) * (1 + 1e-3 * rng.normal(size=(360, features.shape[1])))
    truth, parts = np.repeat(labels, 6), [f"part {i // 6}" for i in range(360)]
    wrong = truth.copy()
    wrong[60:66] = (wrong[60:66] + 1) % 3
    alone = {item.index: item.likely for item in find_suspects(copies, wrong, ABC)}
    assert not any(alone[row] for row in range(60, 66))
    by_group = find_suspects(copies, wrong, ABC, groups=parts)
    first = rank_groups(by_group, parts)[0]
    assert (first.group, first.likely, first.num_records) == ("part 10", True, 6)
    assert (first.label, first.suggested) == (ABC[wrong[60]], ABC[truth[60]])
    assert first.score == pytest.approx(np.mean([item.score for item in by_group if 60 <= item.index < 66]))


def test_one_wrong_picture_of_a_part_is_found_by_its_copies():
    features, labels = clusters(60, spread=3.0)  # classes that overlap: others of the class say little
    copies, truth = np.repeat(features, 6, axis=0), np.repeat(labels, 6)
    copies = copies * (1 + 1e-3 * np.random.default_rng(1).normal(size=copies.shape))
    wrong = truth.copy()
    wrong[62] = (wrong[62] + 1) % 3
    assert find_suspects(copies, wrong, ABC)[0].index == 62


def test_a_rare_class_is_not_suspect_as_such():
    """Each class has its own threshold: without it, every record of a rare class in the midst of another is likely."""
    rng = np.random.default_rng(0)
    labels = np.array([0] * 400 + [1] * 100)
    found = find_suspects(rng.normal(size=(500, 4)), labels, ("common", "rare"))
    rare = [item for item in found if item.label == "rare"]
    outvoted = sum(item.score > 0.5 for item in rare)
    assert outvoted > 80
    assert 0.2 * outvoted < sum(item.likely for item in rare) < 0.8 * outvoted


@pytest.mark.parametrize("seed", range(20))
def test_a_class_that_reaches_its_threshold_exactly_counts(seed):
    """All of `b` vote as one, so its threshold is 1, and so is the vote on the error: sums in another order decide."""
    rng = np.random.default_rng(seed)
    cloud = np.concatenate([rng.normal(size=(20, 6)) * 0.1 - 3, rng.normal(size=(20, 6)) * 0.1 + 3])
    error = np.array([[-1.0, 3, 3, 3, 3, 3]])  # nearest to `b`, and no neighbour of it
    found = find_suspects(np.concatenate([cloud, error]), [0] * 20 + [1] * 20 + [0], ("a", "b"), k=5)
    assert (found[0].index, found[0].likely) == (40, True)


def test_what_no_vote_could_speak_for_is_left_out():
    features, labels = clusters(30, seed=3)
    labels[:3], labels[3] = -1, 3
    rows = {item.index for item in find_suspects(features, labels, (*ABC, "d"))}
    assert rows == set(range(4, 30))
    groups = ["one" if label == 0 else f"g{i}" for i, label in enumerate(labels)]
    rows = {item.index for item in find_suspects(features, labels, (*ABC, "d"), groups=groups)}
    assert rows == {i for i in range(4, 30) if labels[i] != 0}
    assert find_suspects(features[:1], [0], ("a",)) == []
    assert find_suspects(features[:2], [-1, -1], ("a",)) == []


def test_chunks_and_tensors_and_scales_change_nothing(monkeypatch):
    features, labels = clusters(90, spread=2.0)
    expected = find_suspects(features, labels, ABC)
    assert find_suspects(torch.from_numpy(features), labels.tolist(), ABC) == expected
    constant = np.concatenate([features, np.full((90, 1), 7.0)], axis=1)
    again = find_suspects(constant, labels, ABC)
    assert [item.index for item in again] == [item.index for item in expected]
    monkeypatch.setattr(suspects, "_CHUNK", 500)
    small = find_suspects(features, labels, ABC)
    assert [item.index for item in small] == [item.index for item in expected]
    np.testing.assert_allclose([item.score for item in small], [item.score for item in expected], atol=1e-5)


def test_fewer_records_than_neighbours():
    found = find_suspects(np.eye(4), [0, 0, 1, 1], ("x", "y"), k=50)
    assert len(found) == 4


def test_groups_are_ranked_likely_first_and_those_without_a_name_left_out():
    rows = [
        Suspect(0, "a", "b", 0.9, False),
        Suspect(1, "a", "b", 0.6, True),
        Suspect(2, "a", "c", 0.7, True),
        Suspect(3, "b", "a", 1.0, True),
        Suspect(4, "a", "b", 0.5, False),
        Suspect(5, "a", "b", 0.9, True),
        Suspect(6, "a", "b", 0.5, False),
    ]
    ranked = rank_groups(rows, ["x", "y", "y", None, "y", "half", "half"])
    sizes = [(item.group, item.likely, item.num_records) for item in ranked]
    assert sizes == [("y", True, 3), ("x", False, 1), ("half", False, 2)]
    assert ranked[0].score == pytest.approx(0.6)
    assert (ranked[0].label, ranked[0].suggested) == ("a", "b")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"features": np.zeros((3, 2)), "labels": [0, 1]}, r"got \(3, 2\) and \(2,\)"),
        ({"features": np.zeros(2), "labels": [0, 1]}, r"got \(2,\)"),
        ({"features": np.zeros((2, 2)), "labels": [0, 5]}, "the number 5, and there are 2"),
        ({"features": np.zeros((2, 2)), "labels": [0, 1], "k": 0}, "`k` of at least 1, got 0"),
        ({"features": np.array([[1.0], [np.nan]]), "labels": [0, 1]}, "1 records are NaN or infinite, first at row 1"),
        ({"features": np.zeros((2, 2)), "labels": [0, 1], "groups": ["a"]}, "each of 2 records, got 1"),
    ],
)
def test_what_cannot_be_is_said(arguments, match):
    with pytest.raises(ValueError, match=match):
        find_suspects(classes=("a", "b"), **arguments)
