import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_transfer.cli.plan import format_plan

Toy = Callable[..., Any]


def test_a_plan_says_everything_and_trains_nothing(toy: Toy, small: str, gradual: str) -> None:
    done = toy("plan", "--config", small, "--config", gradual)
    assert done.code == 0, done.err
    for text in ("licence      CC0", "pretraining  nothing", "calibration  8", "head only", "37.5%", "memory", "0.05"):
        assert text in done.out, text
    plan = json.loads((done.run / "plan.json").read_text())
    assert [(stage["epoch"], stage["opened"]) for stage in plan["stages"]] == [(0, []), (1, ["backbone"])]
    assert [stage["trainable_parameters"] for stage in plan["stages"]] == [12, 32]
    memory = [stage["memory"] for stage in plan["stages"]]
    assert [item["gradients"] for item in memory] == [12 * 4, 32 * 4]
    assert [item["optimizer_state"] for item in memory] == [2 * 12 * 4, 2 * 32 * 4]
    assert memory[0]["activations"] < memory[1]["activations"]
    assert not (done.run / "checkpoints").exists()
    assert not (done.run / "model.ckpt").exists()
    assert not (done.run / "logs").exists()


def test_a_plan_recommends_with_reasons_and_says_what_the_config_does_instead(
    toy: Toy, small: str, gradual: str
) -> None:
    words = ["--config", small, "--config", gradual]
    done = toy("plan", *words)
    assert "Recommendation: gradual unfreezing" in done.out
    assert "labels a class (median): between 20 and 1000" in done.out
    assert "`check-data --suspects` measures a probe" in done.out
    assert "This config does something else: the head first, then all layers" in done.out
    plan = json.loads((done.run / "plan.json").read_text())
    assert (plan["recommendation"]["strategy"], plan["configured"]) == ("gradual", "lp_ft")
    few = toy("plan", *words, "--data.num_records", 40)
    assert "Recommendation: feature extraction" in few.out
    assert "recommendation" not in json.loads((toy("fit", *words).run / "plan.json").read_text())


def test_what_does_not_fit_the_device_is_not_recommended(
    toy: Toy, small: str, gradual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--config", small, "--config", gradual]
    total = json.loads((toy("plan", *words).run / "plan.json").read_text())["stages"][-1]["memory"]["total"]
    for available, strategy in ((total, "gradual"), (total - 1, "partial")):
        monkeypatch.setattr("lightning_transfer.cli.recommendation.device_memory", lambda _, size=available: size)
        plan = json.loads((toy("plan", *words).run / "plan.json").read_text())
        assert plan["recommendation"]["strategy"] == strategy


def test_the_plan_is_that_of_the_fit(toy: Toy, small: str, gradual: str, tmp_path: Path) -> None:
    (tmp_path / "rates.yaml").write_text(
        """
        trainer:
          callbacks:
            - class_path: lightning_transfer.callbacks.BackboneFreezeUnfreeze
              init_args: {schedule: lp_ft, backbone: backbone}
            - class_path: lightning_transfer.callbacks.DiscriminativeLR
              init_args: {total_ratio: 0.01, backbone: backbone}
        model:
          scheduler:
            class_path: torch.optim.lr_scheduler.OneCycleLR
            init_args: {max_lr: 0.1, total_steps: 100}
        """
    )
    words = ["--config", small, "--config", "rates.yaml"]
    planned = json.loads((toy("plan", *words).run / "plan.json").read_text())
    trained = json.loads((toy("fit", *words).run / "plan.json").read_text())
    assert planned["learning_rates"] == trained["learning_rates"]
    assert planned["groups"] == trained["groups"]
    without_memory = [{key: stage[key] for key in stage if key != "memory"} for stage in planned["stages"]]
    assert without_memory == trained["stages"]
    rates = {rate["name"].split("-")[0]: rate["lr"] for rate in planned["learning_rates"]}
    assert rates["head"] == pytest.approx(0.1 / 25)  # where OneCycle begins
    assert min(rates.values()) == pytest.approx(0.01 * rates["head"])


def test_a_stage_past_the_end_is_said(toy: Toy, small: str, gradual: str) -> None:
    done = toy("plan", "--config", small, "--config", gradual, "--trainer.max_epochs", 1)
    assert "epoch 1  backbone (never: the run ends before)" in done.out


def test_stages_in_steps_are_planned_in_steps(toy: Toy, small: str, tmp_path: Path) -> None:
    """Neither the plan nor the fit needs the steps that there will be: they follow from data and epochs."""
    (tmp_path / "steps.yaml").write_text(
        """
        trainer:
          callbacks:
            - class_path: lightning_transfer.callbacks.BackboneFreezeUnfreeze
              init_args: {schedule: {0: 0, 1: 1, 1000: 0}, unit: step, backbone: backbone}
        """
    )
    words = ["--config", small, "--config", "steps.yaml"]
    planned = toy("plan", *words)
    assert "step 0     head only" in planned.out
    assert "step 1     backbone" in planned.out
    assert "step 1000  head only (never: the run ends before)" in planned.out
    stages = json.loads((toy("fit", *words).run / "plan.json").read_text())["stages"]
    assert [(stage["epoch"], stage["step"], stage["reached"]) for stage in stages] == [
        (None, 0, True),
        (None, 1, True),
        (None, 1000, False),
    ]


def test_the_plan_of_a_run_lies_in_the_run(toy: Toy, finished: Path) -> None:
    before = (finished / "plan.json").read_bytes()
    done = toy("plan", finished)
    assert done.code == 0, done.err
    assert (finished / "plan" / "plan.json").is_file()
    assert (finished / "plan.json").read_bytes() == before


def test_groups_that_are_not_found_give_the_reason() -> None:
    assert format_plan({"groups": [], "stages": [], "reason": "no backbone"}) == "Groups: not found. no backbone"
