"""How texts are exported, step by step; the verb as a whole is tested in `tests/recipes/nlp/test_export.py`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lightning_transfer.cli.export_texts import MIXED, ONE, SORTED, TextForm, _batches
from lightning_transfer.evaluation import EXAMPLES_KEY, RoutingPolicy, TrainingExamples, load
from lightning_transfer.export import ParityError
from lightning_transfer.types import Record
from tests.unit.export.text_toys import TEXTS, backbone_folder, router, save

RECORDS = [Record(f"T-{place}", text) for place, text in enumerate([*TEXTS, *TEXTS[::-1]] * 3)]
POLICY = RoutingPolicy(0.95, 0.6, out_of_scope_score="knn", out_of_scope_threshold=0.1)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    backbone = backbone_folder(tmp_path_factory.mktemp("backbone"))
    return save(tmp_path_factory.mktemp("run"), router(backbone))


@pytest.fixture
def form(run):
    def make(routing=None, columns=None):
        predictor = load(run)
        cli = SimpleNamespace(
            calibration=predictor.calibration,
            routing=routing,
            datamodule=SimpleNamespace(columns=columns or {}),
        )
        return TextForm(cli, predictor)

    return make


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 100])
def test_every_text_is_in_one_batch_of_each_kind(count: int) -> None:
    lengths = np.random.default_rng(count).integers(2, 60, count).tolist()
    for way, most in ((ONE, 1), (SORTED, 32), (MIXED, 32)):
        found = _batches(lengths, way)
        assert sorted(place for part in found for place in part) == list(range(count))
        assert max(map(len, found)) <= most
        assert len(found) == -(-count // most)


def test_mixed_batches_hold_short_and_long_texts_and_sorted_ones_do_not() -> None:
    lengths = list(range(100))
    assert all(min(part) < 4 and max(part) > 95 for part in _batches(lengths, MIXED))
    assert max(max(part) - min(part) for part in _batches(lengths, SORTED)) == 31


def test_logits_in_each_kind_of_batch_are_the_checkpoints_in_the_order_of_the_records(form) -> None:
    made = form()
    seen = []
    eager = made.torch_run(made.predictor.module)

    def noted(inputs):
        seen.append(inputs["input_ids"].shape)
        return eager(inputs)

    expected = made.predictor.outputs(RECORDS)[0].numpy()
    for way in made.ways:
        rows = list(made.logits({"eager": noted}, RECORDS, way))
        np.testing.assert_allclose(np.stack([row["eager"] for row in rows]), expected, rtol=1e-4, atol=1e-4)
    assert seen[: len(RECORDS)] == [(1, shape[1]) for shape in seen[: len(RECORDS)]]
    widths = [shape[1] for shape in seen[len(RECORDS) :]]
    # Of like length, then mixed: there every batch is as wide as the longest text.
    assert widths[0] < widths[1] == widths[2] == widths[3] == 24


def test_batches_for_the_clock_are_real_texts_of_all_lengths(form) -> None:
    batches = form().latency_inputs(RECORDS)
    single = batches(1)
    assert len(single) == len(RECORDS)
    assert all(part["attention_mask"].all() for part in single)
    assert len({part["input_ids"].shape[1] for part in single}) > 3
    assert [part["input_ids"].shape[0] for part in batches(32)] == [32, 32]


def test_the_columns_of_the_training_travel_and_others_do_not(form) -> None:
    columns = {"body_column": "text", "subject_column": None, "id_column": "no", "label_column": "queue"}
    assert form(columns=columns).facts["columns"] == {"body_column": "text", "id_column": "no"}


def test_samples_of_a_table(form, tmp_path) -> None:
    (tmp_path / "t.csv").write_text("no,text\n" + "".join(f"{n},my card {n}\n" for n in range(9)) + "10,\n")
    found = form(columns={"body_column": "text", "id_column": "no"}).samples(str(tmp_path / "t.csv"), 3)
    assert [record.id for record in found.records] == ["0", "4", "8"]
    assert found.records[0].input == "my card 0"
    assert found.rule == f"3 of 9 texts of `{tmp_path / 't.csv'}`"


def test_what_lies_beside_the_model(form, run, tmp_path) -> None:
    for name in ("plain", "knn"):
        (tmp_path / name).mkdir()
    form().write_script(tmp_path / "plain")
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {
        "predict_onnx_text.py", "text_parts", "tokenizer.json",
    }  # fmt: skip
    # Features of training texts go along only where the policy measures distances to them.
    made = form(POLICY)
    features = made.predictor.outputs(TEXTS)[1]
    unit = (features / features.norm(dim=1, keepdim=True)).half()
    examples = TrainingExamples(unit, tuple(f"T-{place}" for place in range(len(TEXTS))), ("billing",) * len(TEXTS))
    module = made.predictor.module
    (tmp_path / "run").mkdir()
    save(tmp_path / "run", module, **{EXAMPLES_KEY: examples.to_dict()})
    made.predictor = load(tmp_path / "run")
    made.write_script(tmp_path / "knn")
    with np.load(tmp_path / "knn" / "examples.npz") as stored:
        np.testing.assert_array_equal(stored["features"], unit.numpy())
        assert stored["ids"].tolist() == list(examples.paths)


def test_other_tokens_than_the_checkpoints_are_refused(form, monkeypatch) -> None:
    made = form()
    monkeypatch.setattr("lightning_transfer.cli.export_texts.token_rows", lambda *given: [[2, 3]])
    with pytest.raises(ParityError, match="reads other tokens in `T-0` than the checkpoint"):
        list(made.logits({}, RECORDS))
