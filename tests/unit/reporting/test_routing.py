from pathlib import Path
from typing import Any

import pytest
from make_run import evaluation, item, make_fit, make_test, routing
from page_reader import Page

from lightning_transfer.reporting import write_report
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.routing import routing_charts, routing_lines, routing_section, routing_sentence
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.verdict import verdict


def scores_of(**changes: Any) -> Scores:
    return Scores("macro_f1", {"macro_f1": item(0.8)}, n=131, routing=routing(**changes))


def routed_run(folder: Path, **changes: Any) -> Path:
    return make_test(make_fit(folder, kind="text"), texts=["a", "b", "c"], pictures=False, **changes)


def policy(**changes: Any) -> dict[str, Any]:
    return {**routing()["policy"], **changes}


def test_the_sentence_says_how_many_how_right_and_what_of_the_foreign_ones() -> None:
    expected = (
        "71.0% [63.0%, 78.0%] of the tickets can be routed automatically for a precision of 95%: 96.0% [91.0%, 99.0%] "
        "of them went to the right queue on the test split. The rest is asked; of the 9 out-of-scope tickets 89.0% "
        "[60.0%, 99.0%] are not routed."
    )
    assert routing_sentence(scores_of()) == expected
    # It is what a reader of the verdict sees in place of the threshold.
    assert verdict(scores_of(), Forgetting()).sentences[2] == expected
    assert routing_sentence(scores_of(out_of_scope=None)).endswith("on the test split. The rest is asked.")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"precision_of_routed": item(0.8, 0.75, 0.9)}, "on the test split, surely fewer than asked for. The rest"),
        ({"policy": policy(threshold=None)}, "No ticket is routed automatically: the calibration split proves no thr"),
        ({"coverage_at_target": None}, "How many tickets can be routed automatically for a precision of 95% was not"),
        (
            {"policy": policy(costs={"ask": 1.0}, threshold=None)},
            "automatically at the lowest expected cost: 96",
        ),
        ({"policy": {}}, "for a precision that is not known"),
    ],
)
def test_the_sentence_says_what_is_not_so(changes: dict[str, Any], text: str) -> None:
    assert text in routing_sentence(scores_of(**changes))


def test_a_precision_whose_interval_holds_the_target_is_not_called_too_low() -> None:
    assert "surely" not in routing_sentence(scores_of(precision_of_routed=item(0.93, 0.9, 0.96)))


def test_without_routing_there_is_no_section_and_no_word(tmp_path: Path) -> None:
    scores = Scores("macro_f1", {})
    assert routing_sentence(scores) == ""
    assert routing_lines(scores) == []
    assert routing_charts(scores) == []


def test_the_section_has_shares_precisions_and_the_chosen_score() -> None:
    section = routing_section(scores_of())
    assert [(row["name"], row["n"]) for row in section["decisions"]] == [
        ("routed", 99), ("asked", 31), ("out of scope", 10),
    ]  # fmt: skip
    assert sum(row["share"] for row in section["decisions"]) == pytest.approx(1)
    assert section["at_precision"] == [
        {"precision": 0.9, "coverage": 0.88, "reached": 0.93},
        {"precision": 0.95, "coverage": 0.75, "reached": 0.97},
        {"precision": 0.99, "coverage": None, "reached": None},
    ]
    scores = section["out_of_scope"]["scores"]
    assert [row["chosen"] for row in scores] == [False, False, True]
    assert [row["on_calibration"] for row in scores] == [0.8, None, 0.93]
    assert [row["name"] for row in section["metrics"]] == [
        "share routed", "precision of the routed", "AURC",
    ]  # fmt: skip
    costs = {"ask": 1.0, "*": {"*": 5.0}}
    section = routing_section(scores_of(policy=policy(costs=costs), mean_cost=item(1.4, 1.2, 1.7)))
    assert section["costs"] == [
        {"true": "any", "routed": "ask", "cost": 1.0},
        {"true": "*", "routed": "*", "cost": 5.0},
    ]
    assert section["metrics"][-1]["item"]["value"] == 1.4


def test_the_charts_show_the_curve_the_target_and_where_the_policy_lies() -> None:
    risk, both = routing_charts(scores_of())
    _, here, asked = risk.lines
    assert risk.x_ticks[0][1] == "0"
    assert risk.x_ticks[-1][1] == "1"
    assert risk.description.startswith("Errors by the share that is routed. all thresholds: 0.002 to 0.200")
    # The point of the policy is that of the tickets in scope, as is the curve.
    assert here["dots"][0][-1] == "this policy: 0.030 at 0.750"
    assert here["path"] == ""
    assert asked["dashed"]
    left, _, right, _ = both.frame
    [(x, kind)] = both.marks
    assert kind == "chosen"
    assert x == pytest.approx(left + 0.62 * (right - left), abs=0.1)
    assert [line["name"] for line in both.lines] == ["routed", "of them right"]
    # Over the rising threshold the share that is routed falls: 1 at 0.5, 0.1 at 0.95.
    assert "routed: 1.000 to 0.100" in both.description
    assert routing_charts(scores_of(risk_coverage=[])) == []
    assert len(routing_charts(scores_of(policy={}))[0].lines) == 2


def test_the_page_has_the_section_and_others_that_do_not_apply_are_absent(tmp_path: Path) -> None:
    folder = make_test(
        make_fit(tmp_path / "run", kind="text"), texts=["a", "b", "c"], pictures=False, routing=routing()
    )
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    page.check()
    assert "Could not be shown" not in page.text
    for text in (
        "When to route",
        "routed99" + "70.7%",
        "99%none",
        "distance to the training tickets, chosen",
        "0.900 [0.800, 0.990]",
        "Precision of at least 0.95, 80% sure.",
        "and leads the second by at least 0.1",
    ):
        assert text in page.text, text
    assert "What a wrong queue costs" not in page.text
    outside = {**routing(), "out_of_scope": None, "aurc": None, "mean_cost": None, "reasons": {}}
    other = routed_run(tmp_path / "other", routing=outside)
    page = Page(write_report(other).read_text(encoding="utf-8"))
    assert "FPR95" not in page.text
    assert "AURC" not in page.text
    plain = routed_run(tmp_path / "plain")
    page = Page(write_report(plain).read_text(encoding="utf-8"))
    assert "route" not in page.text
    assert ("a", "href", "#routing") not in page.attributes


def test_a_model_card_says_the_rule_and_what_is_out_of_scope(tmp_path: Path) -> None:
    lines = routing_lines(scores_of())
    assert lines[0] == routing_sentence(scores_of())
    assert lines[1:] == [
        "A ticket is routed where its largest probability is at least 0.62, and leads the next by at least 0.1; fitted "
        "on 58 tickets of the calibration split.",
        "Out of scope is what scores above 0.44 by distance to the training tickets (AUROC 0.900 [0.800, 0.990] on the "
        "test split).",
        "4.0% [1.0%, 8.0%] of the tickets in scope are called out of scope.",
    ]
    never = routing_lines(scores_of(policy=policy(out_of_scope_threshold=None)))
    assert never[-1] == "No ticket is called out of scope: no threshold for that was fitted."
    folder = make_test(
        make_fit(tmp_path / "run", kind="text"), texts=["a", "b", "c"], pictures=False, routing=routing()
    )
    write_report(folder)
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "## When it routes" in card
    assert "- Out of scope is what scores above 0.44" in card
    assert 'predict(["the text of a ticket"])' in card


def test_a_file_without_routing_reads_as_before(tmp_path: Path) -> None:
    found = Scores.read(RunFiles.read(make_test(make_fit(tmp_path / "run"), **evaluation())))
    assert found is not None
    assert found.routing == {}
    assert found.confusion_pairs == ()
