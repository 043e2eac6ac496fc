"""Findings on the terminal."""

from lightning_transfer.evaluation.clinical import measure_clinical
from lightning_transfer.evaluation.clinical_points import ClinicalPoints, fit_clinical_points
from lightning_transfer.evaluation.clinical_terminal import format_clinical, format_clinical_points, format_gaps
from lightning_transfer.evaluation.slice_gaps import SliceGap
from lightning_transfer.metrics import Interval
from tests.unit.evaluation.finding_toys import SCHEMA, findings

OUTPUTS, RECORDS = findings()
POINTS = fit_clinical_points(OUTPUTS, SCHEMA, 1.0)


def test_points_say_what_was_reached_and_why_there_is_none() -> None:
    text = format_clinical_points(POINTS)
    [row] = [line for line in text.splitlines() if "Hernia" in line and "sensitivity >= 0.9 " in line]
    assert row.split()[4:] == ["n/a", "n/a", "n/a"]
    assert "note: none of the" in text
    assert text.count("with `Hernia`") == 1
    assert format_clinical_points(ClinicalPoints((), 0, 0)) == ""


def test_findings_say_where_predictive_values_hold() -> None:
    there = format_clinical(measure_clinical(OUTPUTS, RECORDS, SCHEMA, 1.0, POINTS, prevalence=0.02, n_resamples=20))
    assert "PPV at the stated prevalence" in there
    assert "120 patients" in there
    assert "n/a: no record with `Hernia`" in there
    here = format_clinical(measure_clinical(OUTPUTS, RECORDS, SCHEMA, 1.0, POINTS, n_resamples=20))
    assert "PPV as frequent as in this split" in here
    assert "specificity" not in format_clinical(measure_clinical(OUTPUTS, RECORDS, SCHEMA, 1.0, n_resamples=20))
    assert format_clinical(None) == ""


def test_the_largest_gaps_come_first_and_one_finding_last() -> None:
    item = Interval(0.1, -0.02, 0.2, 40)
    gaps = tuple(SliceGap(name, "", "a", "b", 0.9, 0.8, item) for name in ("site", "sex"))
    text = format_gaps((*gaps, SliceGap("age", "Edema", "a", "b", 0.9, 0.5, item)))
    assert text.splitlines() == [
        "Largest gap in auroc: site, a 0.900 and b 0.800: 0.100 [-0.020, 0.200]",
        "then: sex, a 0.900 and b 0.800: 0.100 [-0.020, 0.200]",
        "of one finding: Edema by age, a 0.900 and b 0.500: 0.100 [-0.020, 0.200]",
    ]
    assert format_gaps(()) == ""
