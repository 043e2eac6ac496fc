"""Oracles: scikit-learn's cosine distances in float64, and counting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_distances

from lightning_transfer.evaluation import EXAMPLES_KEY, Outputs, TrainingExamples, neighbours, sample_examples
from lightning_transfer.types import Neighbour, Record, Schema

SCHEMA = Schema(task="multiclass", classes=("good", "pit"))


def outputs(features, index=None):
    features = torch.as_tensor(features)
    index = torch.arange(len(features)) if index is None else torch.as_tensor(index)
    return Outputs(torch.zeros(len(features), 2), features, None, index)


def records(n):
    return [Record(f"r{place}", Path(f"/data/{place}.png"), SCHEMA.classes[place % 2]) for place in range(n)]


def features(n, seed=0, width=96):
    # As after a ReLU: positive, correlated, of very different lengths.
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.normal(size=(n, width)) + 0.3, 0) * np.exp(3 * rng.normal(size=(n, 1)))
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("chunk", [None, 250])
def test_the_nearest_is_sklearns(monkeypatch, chunk):
    if chunk:
        monkeypatch.setattr(neighbours, "_CHUNK", chunk)  # a row or two at a time
    train, new = features(120), features(40, seed=1)
    examples = TrainingExamples.from_outputs(outputs(train), records(120), SCHEMA)
    distances = cosine_distances(new.double(), train.double())
    for row, found in zip(distances, examples.nearest(new), strict=True):
        place = int(Path(found.path).stem)
        assert found.label == SCHEMA.classes[place % 2]
        assert found.distance == pytest.approx(row[place], abs=5e-4)
        assert row[place] == pytest.approx(row.min(), abs=5e-4)


def test_a_training_record_finds_itself():
    train = features(50)
    found = TrainingExamples.from_outputs(outputs(train), records(50), SCHEMA).nearest(train * 7)
    assert [item.path for item in found] == [f"/data/{place}.png" for place in range(50)]
    assert max(item.distance for item in found) < 1e-3


def test_a_checkpoint_holds_them_small_and_gives_them_back(tmp_path):
    train = features(300, width=512)
    examples = TrainingExamples.from_outputs(outputs(train), records(300), SCHEMA)
    torch.save({EXAMPLES_KEY: examples.to_dict()}, tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").stat().st_size < 300 * 512 * 2 * 1.1
    again = TrainingExamples.from_payload(torch.load(tmp_path / "x.ckpt", weights_only=True))
    new = features(5, seed=2, width=512)
    assert again.nearest(new) == examples.nearest(new)
    assert again.rule == "all 300 training records"
    assert TrainingExamples.from_payload({}) is None
    assert TrainingExamples.from_payload({EXAMPLES_KEY: None}) is None


def test_part_of_the_split_keeps_the_paths_of_what_was_run():
    train = features(3)
    examples = TrainingExamples.from_outputs(outputs(train, index=[1, 4, 6]), records(8), SCHEMA)
    assert examples.paths == ("/data/1.png", "/data/4.png", "/data/6.png")
    assert examples.labels == ("pit", "good", "good")
    assert examples.rule == "3 of 8 training records, drawn with seed 0, rare classes first"


def test_what_has_no_direction_is_no_example_and_has_no_neighbour():
    train = torch.tensor([[0.0, 0.0], [float("nan"), 1.0], [3.0, 0.0], [float("inf"), 0.0]])
    examples = TrainingExamples.from_outputs(outputs(train), records(4), SCHEMA)
    assert examples.paths == ("/data/2.png",)
    found = examples.nearest(torch.tensor([[0.0, 0.0], [0.0, float("nan")], [-2.0, 0.0]]))
    assert found == [None, None, Neighbour("/data/2.png", "good", 2.0)]
    none = TrainingExamples.from_outputs(outputs(train[:2]), records(2), SCHEMA)
    assert none.nearest(torch.ones(2, 2)) == [None, None]


def test_large_features_do_not_overflow_half_precision():
    train = torch.tensor([[1e6, 0.0], [1e6, 1e6]])
    examples = TrainingExamples.from_outputs(outputs(train), records(2), SCHEMA)
    assert examples.nearest(torch.tensor([[1e7, 9e6]]))[0].path == "/data/1.png"


def test_texts_are_named_by_their_id_and_labels_of_all_kinds_are_text():
    schema = Schema(task="multilabel", classes=("a", "b", "c"))
    rows = [Record("row 2", "a secret text", (1.0, 0.0, 1.0)), Record("row 3", "another", (None, 0.0, None))]
    examples = TrainingExamples.from_outputs(outputs(torch.eye(2)), rows, schema)
    assert examples.paths == ("row 2", "row 3")
    assert examples.labels == ("a|c", "")
    plain = TrainingExamples.from_outputs(outputs(torch.eye(1)), [Record("1", None)], SCHEMA)
    assert plain.labels == ("",)


def test_features_of_another_model():
    examples = TrainingExamples(torch.eye(2).half(), ("a", "b"), ("good", "pit"))
    with pytest.raises(ValueError, match="width 2, got 3"):
        examples.nearest(torch.ones(1, 3))


def test_a_share_of_each_class_rare_ones_whole():
    labels = ["good"] * 500 + ["pit"] * 7 + ["crack"] * 60
    rows = [Record(str(place), None, label) for place, label in enumerate(labels)]
    chosen = sample_examples(rows, 100)
    assert chosen == sorted(set(chosen))
    # 33 each; the 26 that pits leave are shared by the other two.
    assert Counter(labels[place] for place in chosen) == {"pit": 7, "crack": 46, "good": 47}
    assert sample_examples(rows, 100) == chosen
    assert sample_examples(rows, 567) == list(range(567))
    # Spread over the class, not its first records.
    assert max(place for place in chosen if labels[place] == "good") > 300


def test_more_classes_than_places():
    rows = [Record(str(place), None, str(place)) for place in range(20)]
    assert len(sample_examples(rows, 6)) == 6
