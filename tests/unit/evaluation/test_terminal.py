from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_transfer.evaluation import (
    ClassificationResult,
    Slice,
    SliceTable,
    format_calibration,
    format_latency,
    format_slices,
    format_table,
)
from lightning_transfer.evaluation.confusions import ConfusionPair
from lightning_transfer.metrics import Interval
from lightning_transfer.types import Calibration, OperatingPoint

FIVE = OperatingPoint(0.05, 0.25, (0.2, 0.3), 0.04, (0.01, 0.09), 50, 20, "at most 0.05 of `free` rejected")
ONE = OperatingPoint(0.01, 0.7, None, 0.0, (0.0, 0.07), 50, 20, "at most 0.01 of `free` rejected", "a rate of 0.01")


@pytest.fixture
def result():
    good = Interval(0.5, 0.4, 0.6, n=10, num_groups=5)
    missing = Interval(None, None, None, n=0, num_groups=0, reason="no record of `pit`")
    return ClassificationResult(
        task="multiclass",
        classes=("free", "pit"),
        metrics={"macro_f1": good, "recall_free": good, "recall_pit": missing},
        confusion=((9, 1), (0, 0)),
        calibration=Calibration(1.5, 0.25, "at most 0.05 of `free` rejected", 20),
        n=10,
        num_groups=5,
        negative_class="free",
        baselines={"majority": {"macro_f1": Interval(0.3, 0.2, 0.4, n=10, num_groups=5)}},
        differences={"majority": {"macro_f1": Interval(0.2, 0.1, 0.3, n=10, num_groups=5)}},
        descriptions={"majority": "frequencies"},
    )


def test_table_is_aligned_and_says_everything(result):
    assert format_table(result).splitlines() == [
        "10 records in 5 groups, 95% intervals by bootstrap over groups",
        "metric        n  model                     majority",
        "macro_f1     10  0.500 [0.400, 0.600]      0.300 [0.200, 0.400]",
        "recall_free  10  0.500 [0.400, 0.600]",
        "recall_pit    0  n/a (no record of `pit`)",
        "threshold 0.25: at most 0.05 of `free` rejected",
        "",
        "model minus  macro_f1",
        "majority     +0.200 [+0.100, +0.300]  frequencies",
    ]


def test_table_of_a_difference_without_interval(result):
    one = {"majority": {"macro_f1": Interval(0.2, None, None, n=10, num_groups=1, reason="1 group")}}
    text = format_table(replace(result, differences=one))
    assert text.splitlines()[-1] == "majority     0.200 [n/a]  frequencies"


def test_operating_points_and_decisions_have_tables_of_their_own(result):
    share = Interval(0.9, 0.8, 1.0, n=10, num_groups=5)
    metrics = {
        "macro_f1": share,
        "recall_at_threshold": share,
        "recall_at_threshold_pit": share,
        "escape_rate": Interval(0.1, 0.0, 0.2, n=10, num_groups=5),
        "recall_at_false_reject_0.05": share,
        "false_reject_rate_at_0.05": Interval(0.06, 0.02, 0.1, n=90, num_groups=5),
        "recall_at_false_reject_0.01": Interval(0.4, 0.2, 0.7, n=10, num_groups=5),
        "false_reject_rate_at_0.01": Interval(0.0, 0.0, 0.04, n=90, num_groups=5),
    }
    calibration = Calibration(1.5, 0.25, FIVE.rule, 70, (FIVE, ONE))
    found = replace(
        result,
        metrics=metrics,
        calibration=calibration,
        decisions=((85, 5), (1, 9)),
        escapes=("e.png",),
        baselines={},
        differences={},
    )
    assert format_table(found).splitlines() == [
        "10 records in 5 groups, 95% intervals by bootstrap over groups",
        "metric                n  model",
        "macro_f1             10  0.900 [0.800, 1.000]",
        "recall_at_threshold  10  0.900 [0.800, 1.000]",
        "threshold 0.25: at most 0.05 of `free` rejected",
        "",
        "Operating points: thresholds fitted on the calibration split, and applied to these records as they are",
        "false rejects  threshold        expected (95%)  false-reject rate     recall",
        "<= 1%          0.7 [n/a]        [0.000, 0.070]  0.000 [0.000, 0.040]  0.400 [0.200, 0.700]",
        "<= 5%, chosen  0.25 [0.2, 0.3]  [0.010, 0.090]  0.060 [0.020, 0.100]  0.900 [0.800, 1.000]",
        "Too little data: a rate of 0.01.",
        "",
        "Decisions (rows: true class, columns: decision)",
        "      free  pit  not let through",
        "free    85    5",
        "pit      1    9  0.900 [0.800, 1.000]",
        "Escapes: 1 of 10 defects let through, 0.100 [0.000, 0.200]: e.png",
    ]


def test_without_a_threshold_the_most_probable_class_decides(result):
    found = replace(result, calibration=Calibration(rule="x"), decisions=((9, 1), (2, 0)), escapes=("a", "b"))
    assert format_table(found).splitlines()[-4:] == [
        "      free  pit",
        "free     9    1",
        "pit      2    0",
        "Escapes: 2 of 2 defects let through: a, b",
    ]


def test_calibration_lists_every_point():
    assert format_calibration(Calibration(1.5, 0.7, ONE.rule, 70, (ONE, FIVE))).splitlines() == [
        "Calibration: temperature 1.5, threshold 0.7 (at most 0.01 of `free` rejected)",
        "  false rejects  threshold        on calibration  expected on new ones (95%)",
        "  <= 1%, chosen  0.7 [n/a]        0.000 of 50     [0.000, 0.070]",
        "  <= 5%          0.25 [0.2, 0.3]  0.040 of 50     [0.010, 0.090]",
        "Too little data: a rate of 0.01.",
    ]
    assert format_calibration(Calibration()) == "Calibration: temperature 1, threshold none (not fitted)"


def _slice(value: str, score: float | None, **changes) -> Slice:
    found = Interval(score, None if score is None else score - 0.1, score, 30, 10, reason="" if score else "no record")
    item = Slice("line", value, 30, 10, 2, False, {"macro_f1": found}, Interval(-0.2, -0.3, -0.1, 30, 10))
    return replace(item, **changes)


def test_the_worst_slices_of_all_columns_are_shown_and_small_ones_counted():
    slices = (
        _slice("tiny", 0.1, small=True),
        _slice("x", 0.5, column="shift"),
        _slice("b", 0.3, stands_out=True),
        _slice("none", None),
        _slice("c", 0.7),
    )
    table = SliceTable("macro_f1", slices, {"operator": "40 different values"}, "The worst looks bad by chance.")
    assert format_slices(table, most=2).splitlines() == [
        "Slices: the worst of 5 by macro_f1, 1 of them small and not shown",
        "column  value   n  groups  macro_f1              minus the rest",
        "line    b      30      10  0.300 [0.200, 0.300]  -0.200 [-0.300, -0.100]  stands out",
        "shift   x      30      10  0.500 [0.400, 0.500]  -0.200 [-0.300, -0.100]",
        "The worst looks bad by chance.",
        "No slices by `operator`: 40 different values.",
    ]


def test_without_slices_or_latency_there_is_nothing_to_say():
    assert format_slices(None) == format_slices(SliceTable("macro_f1")) == format_latency(None) == ""
    left_out = SliceTable("macro_f1", (), {"operator": "40 different values"})
    assert format_slices(left_out) == "No slices by `operator`: 40 different values."


def many(result, n, **changes):
    """A result of ``n`` classes of which the first is recalled worst, with a pair of each class and the next."""
    names = tuple(f"queue {place:02}" for place in range(n))
    metrics = {"macro_f1": Interval(0.5, 0.4, 0.6, n=10 * n, num_groups=n)}
    for kind in ("recall", "precision"):
        for place, name in enumerate(names):
            metrics[f"{kind}_{name}"] = Interval((place + 1) / (n + 1), 0.0, 1.0, n=10, num_groups=5)
    table = tuple(tuple(9 if row == column else int(column == row + 1) for column in range(n)) for row in range(n))
    pairs = tuple(ConfusionPair(names[p], names[p + 1], 1, 0.1, ("t1", "t2")) for p in range(min(n - 1, 20)))
    return replace(result, classes=names, metrics=metrics, confusion=table, decisions=table, confusion_pairs=pairs,
                   negative_class=None, escapes=None, **changes)  # fmt: skip


def test_few_classes_all_have_their_line_and_of_many_the_worst(result):
    text = format_table(many(result, 4))
    assert "Each class, by the most probable one\nclass      n  recall                precision" in text
    assert text.count("queue 00") == 1 + 1  # its row, and its pair
    assert "recall_queue" not in text
    text = format_table(many(result, 25))
    assert "Each class, by the most probable one: the 10 of 25 with the lowest recall" in text
    rows = text[text.index("Each class") : text.index("Most frequent")]
    assert [f"queue {place:02}" in rows for place in range(25)] == [place < 10 for place in range(25)]


def test_classes_without_a_record_come_last(result):
    found = many(result, 25)
    metrics = {**found.metrics, "recall_queue 00": Interval(None, None, None, n=0, reason="no record of `queue 00`")}
    text = format_table(replace(found, metrics=metrics))
    rows = text[text.index("Each class") : text.index("Most frequent")]
    assert "queue 00" not in rows
    assert "queue 10" in rows


def test_the_most_frequent_confusions_stand_with_their_share_and_examples(result):
    lines = format_table(many(result, 25)).splitlines()
    start = lines.index("Most frequent confusions: 10 of 24 errors, by the most probable class")
    assert lines[start + 1] == "true class  taken for  n  of the class  such as"
    assert lines[start + 2] == "queue 00    queue 01   1         10.0%  t1, t2"
    assert len(lines) == start + 12
    two = replace(result, confusion_pairs=(ConfusionPair("free", "pit", 1, 0.1, ("a",)),))
    assert "Most frequent confusions" not in format_table(two)  # the matrix of two classes says it


def test_a_matrix_too_wide_for_a_screen_is_left_out_and_its_escapes_are_not(result):
    wide = replace(many(result, 31), negative_class="queue 00", escapes=("e.png",))
    text = format_table(wide)
    assert "Decisions (rows" not in text
    assert "Escapes: 1 of 299 defects let through: e.png" in text
    assert "Decisions (rows" in format_table(replace(many(result, 30), negative_class="queue 00", escapes=()))


def test_labels_have_their_thresholds(result):
    share = Interval(0.9, 0.8, 1.0, n=10, num_groups=5)
    names = ("recall", "precision", "recall_at_threshold", "precision_at_threshold")
    metrics = {"macro_f1": share, "macro_f1_at_thresholds": share}
    metrics |= {f"{name}_{label}": share for name in names for label in ("x", "y")}
    calibration = Calibration(1.5, None, "multi-label", 70, label_thresholds=(0.25, 0.5), label_rules=("a", "b"))
    found = replace(result, task="multilabel", classes=("x", "y"), metrics=metrics, calibration=calibration,
                    confusion=(), decisions=(), negative_class=None)  # fmt: skip
    lines = format_table(found).splitlines()
    assert "Each class, called at its own threshold" in lines
    assert "x      10       0.25  0.900 [0.800, 1.000]  0.900 [0.800, 1.000]" in lines
    assert not [line for line in lines if line.startswith(("recall_", "precision_"))]
    assert "macro_f1_at_thresholds" in "\n".join(lines)
    assert format_calibration(calibration) == "Calibration: temperature 1.5, threshold 0.25 to 0.5 (multi-label)"
    half = replace(calibration, label_thresholds=(0.5, 0.5))
    assert format_calibration(half) == "Calibration: temperature 1.5, threshold 0.5 (multi-label)"
