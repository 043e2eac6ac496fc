from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from lightning_transfer.evaluation import Outputs, evaluate_classification
from lightning_transfer.evaluation.confusions import find_confusions
from lightning_transfer.types import Calibration, Record, Schema

SCHEMA = Schema("multiclass", ("a", "b", "c", "d"))


def problem(n: int = 300) -> tuple[list[Record], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    records = [Record(id=f"t{place}", input="") for place in range(n)]
    return records, rng.normal(size=(n, 4)), rng.choice(4, n, p=[0.6, 0.2, 0.1, 0.1])


def test_pairs_are_the_cells_of_the_matrix_most_frequent_first() -> None:
    records, logits, target = problem()
    pairs = find_confusions(records, logits, target, SCHEMA, Calibration())
    table = confusion_matrix(target, logits.argmax(axis=1))
    cells = {(pair.true, pair.predicted): pair for pair in pairs}
    for true, row in enumerate(table):
        for predicted, n in enumerate(row):
            pair = cells.pop((SCHEMA.classes[true], SCHEMA.classes[predicted]), None)
            if true == predicted or not n:
                assert pair is None
                continue
            assert pair is not None
            assert pair.n == n
            assert pair.share == pytest.approx(n / row.sum())
    assert not cells
    counts = [pair.n for pair in pairs]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 4


def test_examples_are_those_that_the_model_was_surest_of_after_temperature() -> None:
    records, logits, target = problem()
    for temperature in (1.0, 5.0):
        probs = np.exp(logits / temperature)
        sure = (probs / probs.sum(axis=1, keepdims=True)).max(axis=1)
        for pair in find_confusions(records, logits, target, SCHEMA, Calibration(temperature)):
            true, predicted = (SCHEMA.classes.index(name) for name in (pair.true, pair.predicted))
            places = np.flatnonzero((target == true) & (logits.argmax(axis=1) == predicted))
            best = places[np.argsort(-sure[places])][:2]
            assert list(pair.examples) == [records[place].id for place in best]


def test_of_equally_frequent_pairs_the_larger_share_comes_first_and_there_are_so_many() -> None:
    records, _, _ = problem(6)
    target = np.array([0, 0, 0, 1, 1, 2])
    logits = np.eye(4)[[1, 1, 0, 0, 0, 3]]
    pairs = find_confusions(records, logits, target, SCHEMA, Calibration(), most=2, num_examples=1)
    assert [(pair.true, pair.predicted, pair.n, len(pair.examples)) for pair in pairs] == [
        ("b", "a", 2, 1),
        ("a", "b", 2, 1),
    ]
    assert len(find_confusions(records, logits, target, SCHEMA, Calibration())) == 3


def test_without_errors_and_with_several_labels_there_are_none() -> None:
    records, logits, _ = problem(20)
    assert find_confusions(records, logits, logits.argmax(axis=1), SCHEMA, Calibration()) == ()
    labels = Schema("multilabel", SCHEMA.classes)
    assert find_confusions(records, logits, np.zeros((20, 4)), labels, Calibration()) == ()


def test_the_evaluation_names_records_by_their_ids_though_some_have_no_label() -> None:
    import torch

    records, logits, target = problem(60)
    target[::3] = -1
    outputs = Outputs(torch.tensor(logits), torch.zeros(60, 1), torch.tensor(target), torch.arange(60))
    result = evaluate_classification(outputs, records, SCHEMA, Calibration(), n_resamples=10)
    wrong = {f"t{place}" for place in range(60) if target[place] >= 0 and target[place] != logits[place].argmax()}
    named = {name for pair in result.confusion_pairs for name in pair.examples}
    assert named
    assert named <= wrong
    assert result.to_dict()["confusion_pairs"][0] == {
        **vars(result.confusion_pairs[0]),
        "examples": list(result.confusion_pairs[0].examples),
    }
