"""A whole toy run of a recipe that routes; the arithmetic is tested in tests/unit/evaluation/test_routing_*.py."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_recipe.cli import RECIPE
from toy_recipe.routed import RoutedData

from lightning_transfer.cli import main
from lightning_transfer.cli.routing import fit_policy
from lightning_transfer.evaluation import RoutingPolicy, fit_routing
from lightning_transfer.types import Schema
from tests.unit.cli.conftest import SMALL, Done, runner

Toy = Callable[..., Done]
ROUTED = replace(RECIPE, data="toy_recipe.routed:RoutedData", routes=True)
OPTIONS = ["--data.num_records", "400", "--data.calibration_fraction", "0.25", "--trainer.max_epochs", "4",
           "--evaluation.target_precision", "0.9", "--evaluation.latency_batch_sizes", "[]"]  # fmt: skip


@pytest.fixture
def routed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Toy:
    """Run words of the toy recipe that routes, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return runner(ROUTED, capsys)


FITTED: dict[str, Any] = {}
"""What the policy of the shared run was fitted with."""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("routed")

    def watch(*inputs: Any, **options: Any) -> RoutingPolicy:
        FITTED.update(options, outputs=inputs[0])
        return fit_routing(*inputs, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_transfer.cli.routing.fit_routing", watch)
        assert main(ROUTED, ["fit", "--config", SMALL, *OPTIONS, "--trainer.default_root_dir", str(root)]) == 0
    [run] = (root / "toy").iterdir()
    return run


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Path:
    """A copy of a fitted run, to write into."""
    return Path(shutil.copytree(fitted, tmp_path / "runs" / "toy" / fitted.name))


def stored(run: Path) -> RoutingPolicy:
    checkpoint = torch.load(run / "model.ckpt", weights_only=True)
    return RoutingPolicy.from_dict(checkpoint["lightning_transfer"]["routing"])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_fit_stores_the_policy(fitted: Path) -> None:
    policy = stored(fitted)
    assert policy.target_precision == 0.9
    assert policy.threshold is not None
    assert policy.out_of_scope_threshold is not None
    assert set(policy.out_of_scope_auroc) == {"max_logit", "energy", "knn"}
    data = json.loads((fitted / "data.json").read_text())
    assert policy.n == len(FITTED["outputs"]) == data["num_records"]["calibration"]
    # Nothing learns from what is out of scope, so all of it but test's chooses the score. In the precision only that of
    # the calibration split counts: a quarter of what is not test.
    assert policy.n_out_of_scope == len(FITTED["foreign"]) == len(FITTED["counted"]) == 32
    assert sum(FITTED["counted"]) == 8
    assert set(FITTED["foreign_groups"]) <= {f"h{place}" for place in range(40)}
    assert len(set(FITTED["foreign_groups"])) == 32
    assert len(set(FITTED["groups"])) == policy.n / 4


def test_a_test_judges_and_writes_every_decision(routed: Toy, run: Path) -> None:
    done = routed("test", run)
    assert done.code == 0, done.err
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    routing = json.loads((run / "test" / "evaluation.json").read_text())["routing"]
    rows = lines(run / "test" / "predictions.jsonl")
    inside = [row for row in rows if row["id"].startswith("p")]
    outside = [row for row in rows if row["id"].startswith("o")]
    assert rows == inside + outside
    assert (routing["n"], routing["n_out_of_scope"]) == (len(inside), len(outside))
    assert {row["label"] for row in outside} == {"none"}
    assert [row["id"] for row in inside] == [
        line.split(",")[0] for line in (run / "test" / "predictions.csv").read_text().splitlines()[1:]
    ]
    assert routing["decisions"] == {
        name: sum(row["decision"] == name for row in rows) for name in ("route", "ask", "out of scope")
    }
    sent = [row for row in rows if row["decision"] == "route"]
    assert metrics["routing_coverage"]["value"] == pytest.approx(len(sent) / len(rows))
    assert metrics["routing_precision"]["value"] == pytest.approx(
        sum(row["queue"] == row["label"] for row in sent) / len(sent)
    )
    missed = sum(row["decision"] == "route" for row in outside) / len(outside)
    assert metrics["out_of_scope_recall"]["value"] == pytest.approx(1 - missed)
    assert {"routing_aurc", "out_of_scope_auroc_knn", "out_of_scope_fpr95_energy"} <= set(metrics)
    assert routing["policy"] == json.loads(json.dumps(stored(run).to_dict()))
    assert f"Routing of {len(rows)} tickets: {len(sent)} routed" in done.out
    # Known points lie in two clouds, the others in a third.
    assert metrics["out_of_scope_auroc_knn"]["value"] > 0.6


def test_a_prediction_answers_every_row_in_order(routed: Toy, run: Path) -> None:
    done = routed("predict", run)
    assert done.code == 0, done.err
    rows = lines(run / "predict" / "predictions.jsonl")
    assert [row["id"] for row in rows] == [record.id for record in RoutedData(num_records=400).read_records()]
    unreadable = [place for place, row in enumerate(rows) if row["decision"] == "unreadable"]
    assert unreadable == [0, 3, 8]
    assert rows[3]["reason"] == "cannot be read"
    counts = Counter(row["decision"] for row in rows)
    assert f"Routing of 440 tickets: {counts['route']} routed" in done.out
    assert f"{counts['ask']} asked about, {counts['out of scope']} out of scope, 3 unreadable" in done.out
    policy = stored(run)
    for row in rows:
        if row["decision"] == "route":
            assert row["confidence"] >= policy.threshold
            assert row["out_of_scope_score"] <= policy.out_of_scope_threshold
            assert row["queue"] == row["queues"][0]["queue"]
        elif row["decision"] == "out of scope":
            assert row["out_of_scope_score"] > policy.out_of_scope_threshold
        elif row["decision"] == "ask":
            assert row["confidence"] < policy.threshold
            assert row["reason"].endswith(f" is below {policy.threshold:.2f}")
        if row["decision"] != "unreadable":
            assert row["nearest"]["queue"] in ("good", "bad")
    assert not (run / "predict" / "predictions.csv").exists()


def test_a_prediction_of_nothing_readable_loses_no_row(routed: Toy, run: Path) -> None:
    rows = [*range(6)]
    done = routed("predict", run, "--data.num_records", 4, "--data.num_outside", 2, "--data.unreadable", rows)
    assert done.code == 0, done.err
    found = lines(run / "predict" / "predictions.jsonl")
    assert [row["id"] for row in found] == ["p0", "p1", "p2", "p3", "o0", "o1"]
    assert {row["decision"] for row in found} == {"unreadable"}


def test_options_that_need_no_fit_change_the_decisions(routed: Toy, run: Path) -> None:
    done = routed("predict", run, "--evaluation.min_margin", 0.99999)
    assert done.code == 0, done.err
    reasons = [row["reason"] for row in lines(run / "predict" / "predictions.jsonl") if row["decision"] == "ask"]
    assert any(reason.endswith("too close") for reason in reasons)
    costs = "{ask: 1, '*': {'*': 1000}, bad: {good: 2000}}"
    done = routed("predict", run, "--evaluation.misroute_costs", costs)
    assert done.code == 0, done.err
    assert "Routing: by misroute costs" in done.out
    reasons = [row["reason"] for row in lines(run / "predict-2" / "predictions.jsonl") if row["decision"] == "ask"]
    assert all(reason.startswith("asking costs 1.00, ") for reason in reasons)
    assert reasons


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--evaluation.target_precision", "0.8"], "no threshold for the precision 0.8. Fitted: 0.9, 0.95, 0.99"),
        (["--evaluation.misroute_costs", "{ask: 1, god: {bad: 2}}"], "the queue `god`, which is not in the data. Did"),
        (["--evaluation.misroute_costs", "none.yaml"], "no file that can be read: `none.yaml` (No such file"),
    ],
)
def test_a_wrong_option_stops_before_anything_runs(routed: Toy, run: Path, words: list[str], message: str) -> None:
    done = routed("predict", run, *words)
    assert done.code == 2
    assert message in done.err
    assert not (run / "predict").exists()


def test_another_score_needs_a_fit(routed: Toy, run: Path) -> None:
    fitted = stored(run).out_of_scope_score
    other = "energy" if fitted != "energy" else "max_logit"
    done = routed("predict", run, "--evaluation.out_of_scope_score", other)
    assert done.code == 2
    assert (
        f"`evaluation.out_of_scope_score: {other}` has no threshold: this model was fitted with `{fitted}`" in done.err
    )


def test_costs_from_a_file_are_checked_before_training_and_travel_with_the_model(
    routed: Toy, tmp_path: Path, small: str
) -> None:
    file = tmp_path / "costs.yaml"
    file.write_text("ask: 1\ngod: {bad: 5}\n")
    wrong = routed("fit", "--config", small, *OPTIONS, "--evaluation.misroute_costs", file)
    assert wrong.code == 2
    assert "`evaluation.misroute_costs` cannot be used: `misroute_costs` names the queue `god`" in wrong.err
    assert not list(tmp_path.glob("runs/toy/*/checkpoints/*"))
    file.write_text("[1, 2]")
    assert (
        "no `queue: costs` pairs" in routed("fit", "--config", small, *OPTIONS, "--evaluation.misroute_costs", file).err
    )
    file.write_text("ask: 1\n'*': {'*': 5}\n")
    done = routed("fit", "--config", small, *OPTIONS, "--evaluation.misroute_costs", file)
    assert done.code == 0, done.err
    file.unlink()
    tested = routed("test", done.run)
    assert tested.code == 0, tested.err
    routing = json.loads((done.run / "test" / "evaluation.json").read_text())["routing"]
    assert routing["policy"]["costs"] == {"ask": 1.0, "*": {"*": 5.0}}
    paid = []
    for row in lines(done.run / "test" / "predictions.jsonl"):
        if row["label"] != "none":
            paid.append(1.0 if row["queue"] is None else 5.0 * (row["queue"] != row["label"]))
    assert routing["mean_cost"]["value"] == pytest.approx(sum(paid) / len(paid))


def test_without_out_of_scope_records_or_enough_calibration_it_says_so(routed: Toy, small: str) -> None:
    done = routed("fit", "--config", small, "--data.num_outside", 0)
    assert "there are no out-of-scope tickets, so nobody knows how many it finds" in done.out
    assert "Routing: nothing is routed, every ticket is asked about" in done.out
    assert "At least 32 are needed" in done.out
    assert stored(done.run).out_of_scope_score == "max_logit"
    assert routed("test", done.run).code == 0
    routing = json.loads((done.run / "test" / "evaluation.json").read_text())["routing"]
    assert routing["out_of_scope"] is None
    assert (routing["n_out_of_scope"], routing["decisions"]["route"]) == (0, 0)
    assert routing["precision_of_routed"]["reason"] == "no ticket is routed"


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_for_other_tasks_it_says_once_that_there_is_no_routing(task: Any, caplog: pytest.LogCaptureFixture) -> None:
    schema = Schema(task=task, classes=("good", "bad"))
    cli: Any = SimpleNamespace(recipe=ROUTED, model=SimpleNamespace(schema=schema), config_init={"evaluation": None})
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        assert fit_policy(cli, ([], None), None) is None  # type: ignore[arg-type] # outputs are not looked at
    assert f"Routing is left out: it sends a ticket to one of several queues, and this task is {task}." in caplog.text


def test_a_model_without_policy_predicts_as_ever(routed: Toy, finished: Path) -> None:
    done = routed("predict", finished)
    assert done.code == 0, done.err
    assert (finished / "predict" / "predictions.csv").exists()
    assert not (finished / "predict" / "predictions.jsonl").exists()


def test_recipes_that_do_not_route_are_as_before(trained: Path) -> None:
    assert torch.load(trained / "model.ckpt", weights_only=True)["lightning_transfer"]["routing"] is None
