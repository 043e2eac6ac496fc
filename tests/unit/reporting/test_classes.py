from pathlib import Path
from typing import Any

import pytest
from make_run import evaluation, item, make_fit, make_test
from page_reader import Page

from lightning_transfer.reporting import classes
from lightning_transfer.reporting.report import write_report
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores


def read(folder: Path) -> tuple[RunFiles, Scores]:
    run = RunFiles.read(folder)
    scores = Scores.read(run)
    assert scores is not None
    return run, scores


def many(tmp_path: Path, n: int, **changes: Any) -> Path:
    """A run of ``n`` classes: class ``place`` has the recall ``place / n``, and is taken once for the next one."""
    names = [f"queue {place:02}" for place in range(n)]
    found = evaluation(names, negative_class=None, calibration={"temperature": 1.0})
    for place, name in enumerate(names):
        found["metrics"][f"recall_{name}"] = item(place / n, 0.0, 1.0, n=10)
        found["metrics"][f"precision_{name}"] = item(1 - place / n, 0.0, 1.0, n=10)
    found["confusion"] = [[9 if row == column else int(column == row + 1) for column in range(n)] for row in range(n)]
    found["confusion_pairs"] = [
        {"true": names[p], "predicted": names[p + 1], "n": 1, "share": 0.1, "examples": [f"t{p}", "<b>t</b>"]}
        for p in range(min(20, n - 1))
    ]
    found["decisions"] = found["confusion"]
    keys = ("metrics", "confusion", "decisions", "confusion_pairs", "negative_class", "calibration")
    folder = make_fit(tmp_path / "run", names, kind="text")
    return make_test(folder, names, texts=["a", "b", "c"], pictures=False, **{**{k: found[k] for k in keys}, **changes})


def test_the_second_confusion_is_left_out_where_it_is_the_same(tmp_path: Path) -> None:
    _, found = read(make_test(make_fit(tmp_path / "run")))
    assert len(classes.confusion_section(found)["tables"]) == 1
    _, changed = read(make_test(make_fit(tmp_path / "other"), decisions=[[20, 1, 0], [0, 21, 0], [0, 0, 21]]))
    section = classes.confusion_section(changed)
    assert [table["title"] for table in section["tables"]] == [
        "The most probable class", "Decided at the threshold 0.4",
    ]  # fmt: skip
    assert section["tables"][1]["totals"] == [21, 21, 21]


def test_classes_count_what_was_taken_for_them(tmp_path: Path) -> None:
    run, scores = read(make_test(make_fit(tmp_path / "run")))
    row = classes.classes_section(scores, run)["rows"][1]
    assert (row["name"], row["num_train"], row["n"], row["small"]) == ("pit", 40, 20, False)
    # A column of the confusion: 1 + 19 + 1.
    assert (row["num_predicted_right"], row["num_predicted"]) == (19, 21)


@pytest.mark.parametrize(("n", "tables"), [(30, 1), (31, 0)])
def test_a_matrix_that_is_too_wide_is_left_out_and_the_pairs_stay(tmp_path: Path, n: int, tables: int) -> None:
    _, scores = read(many(tmp_path, n))
    section = classes.confusion_section(scores)
    assert len(section["tables"]) == tables
    assert ("`confusion.csv`" in section["note"]) == (tables == 0)
    assert not section["missing"]
    assert (len(section["pairs"]), len(section["more_pairs"])) == (10, 10)
    assert (section["num_in_pairs"], section["num_errors"]) == (20, n - 1)
    assert section["pairs"][0]["examples"] == ["t0", "<b>t</b>"]


def test_of_many_classes_the_worst_come_first_and_the_others_are_folded(tmp_path: Path) -> None:
    metrics = evaluation([f"queue {place:02}" for place in range(77)])["metrics"]
    for place in range(77):
        metrics[f"recall_queue {place:02}"] = item((place * 31 % 77) / 77, 0.0, 1.0)
    metrics["recall_queue 00"] = item(None, reason="no record of `queue 00`")
    folder = many(tmp_path, 77, metrics=metrics)
    run, scores = read(folder)
    section = classes.classes_section(scores, run)
    assert len(section["rows"]) == 10
    every = section["rows"] + section["more"]
    assert len(every) == 77
    values = [row["recall"]["value"] for row in every]
    assert values[:-1] == sorted(values[:-1])
    assert values[-1] is None
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    page.check()
    assert "The other 67 classes" in page.text
    assert "10 more pairs" in page.text
    assert "<b>t</b>" in page.text
    assert "Records of each of 77 classes" in page.text
    assert "Could not be shown" not in page.text
    # A matrix would have so many cells alone.
    assert page.tags.count("td") < 77 * 77


def test_few_classes_stay_in_their_order_and_none_is_folded(tmp_path: Path) -> None:
    run, scores = read(many(tmp_path, 20))
    section = classes.classes_section(scores, run)
    assert [row["name"] for row in section["rows"]] == list(scores.classes)
    assert section["more"] == []
    assert section["rows"][5]["precision"]["value"] == 0.75


def test_labels_have_their_thresholds_and_what_these_give(tmp_path: Path) -> None:
    names = ["invoice", "login"]
    metrics = {"macro_f1": item(0.5, 0.4, 0.6), "macro_f1_at_thresholds": item(0.61, 0.5, 0.7)}
    metrics |= {f"recall_{name}": item(0.3) for name in names}
    metrics |= {
        f"{kind}_at_threshold_{name}": item(0.8, 0.7, 0.9) for kind in ("recall", "precision") for name in names
    }
    calibration = {"temperature": 1.2, "label_thresholds": [0.25, 0.5],
                   "label_rules": ["31 of 90 have it", "none of 90 has <it>"]}  # fmt: skip
    folder = make_fit(tmp_path / "run", names, kind="text")
    make_test(folder, names, texts=["a", "b", "c"], pictures=False, metrics=metrics, calibration=calibration,
              confusion=[], decisions=[], negative_class=None)  # fmt: skip
    data = (folder / "data.json").read_text().replace('"multiclass"', '"multilabel"')
    (folder / "data.json").write_text(data.replace('"negative_class": "invoice"', '"negative_class": null'))
    run, scores = read(folder)
    rows = classes.classes_section(scores, run)["rows"]
    assert [(row["threshold"], row["recall"]["value"], row["precision"]["value"]) for row in rows] == [
        (0.25, 0.8, 0.8),
        (0.5, 0.8, 0.8),
    ]
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    page.check()
    assert "Each label is called at its own threshold: macro-F1 0.610 [0.500, 0.700], at one half 0.500." in page.text
    assert "none of 90 has <it>" in page.text
    assert "macro-F1 at the thresholds" in page.text
    for absent in ("Confusion", "Threshold ", "Could not be shown"):
        assert absent not in page.text
