from collections.abc import Callable
from typing import Any

from lightning_transfer.cli.evaluation_options import EvaluationOptions

Toy = Callable[..., Any]


def test_defaults_are_all_baselines_and_each_its_own_list() -> None:
    first, second = EvaluationOptions(), EvaluationOptions()
    assert first.baselines == ["majority", "knn", "linear_probe"]
    assert first.baselines is not second.baselines


def test_an_unknown_baseline_is_refused_by_the_parser(toy: Toy, small: str) -> None:
    done = toy("fit", "--config", small, "--evaluation.baselines", "[majorty]")
    assert done.code == 2
    assert "majorty" in done.err
    assert "evaluation.baselines" in done.err
