from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_transfer.cli.evaluation_options import EvaluationOptions

Toy = Callable[..., Any]


def test_defaults_are_all_baselines_and_each_its_own_list() -> None:
    first, second = EvaluationOptions(), EvaluationOptions()
    assert first.baselines == ["majority", "plain", "knn", "linear_probe"]
    assert first.baselines is not second.baselines


def test_an_unknown_baseline_is_refused_by_the_parser(toy: Toy, small: str) -> None:
    done = toy("fit", "--config", small, "--evaluation.baselines", "[majorty]")
    assert done.code == 2
    assert "majorty" in done.err
    assert "evaluation.baselines" in done.err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_false_reject_rate", 5),
        ("nearest_examples", -1),
        ("latency_batch_sizes", [0]),
        ("target_precision", 1.0),
        ("min_margin", -0.5),
    ],
)
def test_a_number_out_of_range_is_refused_before_the_fit(toy: Toy, small: str, option: str, value: Any) -> None:
    done = toy("fit", "--config", small, f"--evaluation.{option}", value)
    assert done.code == 2
    assert f"Error: Expected `{option}` " in done.err
    assert f"got {value}" in done.err
    assert not list(Path("runs").glob("**/model.ckpt"))


def test_a_distance_to_nothing_is_refused_before_the_fit() -> None:
    with pytest.raises(ValueError, match="`nearest_examples: 0` keeps none"):
        EvaluationOptions(out_of_scope_score="knn", nearest_examples=0)
    assert EvaluationOptions(out_of_scope_score="auto", nearest_examples=0).target_precision == 0.95
