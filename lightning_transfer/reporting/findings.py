"""The section on findings in medical images, and what the verdict and the model card say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_transfer.reporting.charts import Chart, Line, line_chart
from lightning_transfer.reporting.numbers import interval, number, usable
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores

__all__ = ["WARNING", "card_facts", "findings_charts", "findings_notes", "findings_section", "findings_sentence"]
__all__ += ["gap_sentence", "gap_sentences"]

Section = dict[str, Any]
Item = Mapping[str, Any]

WARNING = (
    "Not for clinical use. This model was made for research and has not been approved as a medical device. It must not "
    "be used to diagnose, to treat, or to decide anything about a patient."
)
FEW_PATIENTS = 20
"""Below so many patients with a finding its interval is too narrow, and the next patient moves its sensitivity."""

_MOST_GAPS = 3


def findings_section(scores: Scores) -> Section:
    """Return each finding's numbers, and what its thresholds do, as the test found them."""
    found = _findings(scores)
    keys = list(dict.fromkeys(_key(point) for row in found for point in _points(row)))
    stated = any(usable(row.get("prevalence")) is not None for row in found)
    return {
        "missing": "" if found else "Not measured: the test has no numbers of single findings.",
        "rows": [{**row, "small": _few(row)} for row in found],
        "few": FEW_PATIENTS,
        "aims": [
            {
                "key": key,
                "title": f"Thresholds fixed for a {_spoken(key)} on the calibration split",
                "rows": [
                    {"name": row.get("name"), "prevalence": row.get("prevalence"), **point}
                    for row in found
                    for point in _points(row)
                    if _key(point) == key
                ],
            }
            for key in keys
        ],
        "at_prevalence": stated,
        "hint": ""
        if stated or not keys
        else "Predictive values are those of this split. State where the model is to be used: `evaluation.prevalence`.",
        "reasons": sorted(set(_reasons(found))),
        "note": str(scores.clinical.get("note") or ""),
        "warning": "",
    }


def findings_charts(scores: Scores) -> list[Chart]:
    """Return for each finding how often it is there where the model gives it that probability."""
    charts = []
    for row in _findings(scores):
        reliability = row.get("reliability") or {}
        lines = [Line("as it should be", [(0.0, 0.0), (1.0, 1.0)], dashed=True)]
        for side, text in (("before", "before temperature"), ("after", "after temperature")):
            bins = [item for item in reliability.get(side) or () if item.get("n")]
            points = [(float(item["confidence"]), float(item["accuracy"])) for item in bins]
            if points:
                lines.append(Line(text, points, dots=True, sizes=[int(item["n"]) for item in bins]))
        chart = line_chart(
            str(row.get("name")),
            lines if len(lines) > 1 else [],
            x_label="probability of the finding",
            y_label="share that has it",
            x_range=(0, 1),
            y_range=(0, 1),
        )
        charts += [chart] if chart is not None else []
    return charts


def findings_sentence(scores: Scores) -> str:
    """Return what the thresholds of the highest stated specificity do; empty where there are no findings.

    Example:
        >>> share = {"value": 0.7, "low": 0.6, "high": 0.8}
        >>> point = {"aim": "specificity", "target": 0.95, "metrics": {"sensitivity": share, "specificity": share}}
        >>> scores = Scores("auroc", {}, clinical={"findings": [{"name": "Edema", "points": [point]}]})
        >>> print(findings_sentence(scores))
        At the threshold that calibration fixed for a specificity of 0.95, “Edema” has a sensitivity of 0.700 [0.600,
        0.800] and a specificity of 0.700 [0.600, 0.800] on the test split.
    """
    found = _findings(scores)
    keys = sorted({_key(point) for row in found for point in _points(row)}, key=lambda key: (key[0] != "s", key))
    keys = [key for key in keys if key.startswith("specificity")] or keys
    if not keys:
        return ""
    key = keys[-1]
    known = []
    for row in found:
        for point in _points(row):
            numbers = point.get("metrics") or {}
            value = usable((numbers.get("sensitivity") or {}).get("value"))
            if _key(point) == key and value is not None:
                known.append((value, str(row.get("name")), numbers))
    if not known:
        return f"What the threshold for a {_spoken(key)} does is undefined on the test split: see each finding."
    if len(known) == 1:
        _, name, numbers = known[0]
        return (
            f"At the threshold that calibration fixed for a {_spoken(key)}, “{name}” has a sensitivity of "
            f"{interval(numbers.get('sensitivity'))} and a specificity of {interval(numbers.get('specificity'))} on "
            "the test split."
        )
    known.sort(key=lambda item: item[:2])
    (_, worst, low), (_, best, high) = known[0], known[-1]
    return (
        f"At the thresholds that calibration fixed for a {_spoken(key)}, sensitivity on the test split is from "
        f"{interval(low['sensitivity'])} for “{worst}” to {interval(high['sensitivity'])} for “{best}”."
    )


def findings_notes(scores: Scores) -> Iterator[str]:
    """Yield what speaks against the thresholds and for a look at who the model serves worse."""
    missed = []
    for row in _findings(scores):
        for point in _points(row):
            item, target = (point.get("metrics") or {}).get(str(point.get("aim"))), usable(point.get("target"))
            high = usable((item or {}).get("high"))
            if high is not None and target is not None and high < target:
                missed.append(f"{row.get('name')} {interval(item)} for {target:g} of {point.get('aim')}")
    if missed:
        yield f"Thresholds that surely miss on the test split what calibration fixed them for: {'; '.join(missed)}."
    few = [f"{row.get('name')} {row.get('num_positive_groups')}" for row in _findings(scores) if _few(row)]
    if few:
        yield f"Findings with fewer than {FEW_PATIENTS} test patients who have them: {', '.join(few)}."
    yield from [text for text in (gap_sentence(scores),) if text]


def gap_sentence(scores: Scores) -> str:
    """Return between which people, sites or views the model differs most; empty where it was not measured."""
    return next(iter(gap_sentences(scores)), "")


def gap_sentences(scores: Scores) -> list[str]:
    """Return the largest gaps, and that of a single finding.

    Example:
        >>> gap = {"column": "sex", "best": "M", "worst": "F", "best_value": 0.9, "worst_value": 0.8,
        ...        "difference": {"value": 0.1, "low": 0.05, "high": 0.15}, "stands_out": True}
        >>> gap_sentences(Scores("auroc", {}, gaps=(gap,)))
        ['Largest gap: by sex, AUROC is 0.900 for “M” and 0.800 for “F”, 0.100 [0.050, 0.150] apart; it stands out.']
    """
    whole = [gap for gap in scores.gaps if not gap.get("finding")][:_MOST_GAPS]
    single = [gap for gap in scores.gaps if gap.get("finding")][:1]
    names = ["Largest gap", *["Next gap"] * len(whole)]
    texts = [_gap(name, gap) for name, gap in zip(names, whole, strict=False)]
    return texts + [_gap(f"Largest gap of a single finding, “{gap['finding']}”", gap) for gap in single]


def card_facts(run: RunFiles, scores: Scores | None) -> dict[str, Any]:
    """Return what a model card says beside the rest of medical images, whatever is told of them; empty elsewhere."""
    options = run.section("evaluation")
    if "not_for_clinical_use" not in options and run.preprocessing.get("kind") != "scan":
        return {}
    licence = str(options.get("data_licence") or "").strip()
    how = " (`evaluation.data_licence`)" if "data_licence" in options else ""
    return {
        "clinical": True,
        "warning": WARNING if options.get("not_for_clinical_use", True) else "",
        "data_licence": licence or f"not stated{how}",
        "findings": [] if scores is None else findings_section(scores)["rows"],
        "operating_points": [] if scores is None else findings_section(scores)["aims"],
        "gaps": [] if scores is None else gap_sentences(scores),
    }


def _gap(name: str, gap: Item) -> str:
    seen = "it stands out" if gap.get("stands_out") else "gaps as large come by chance"
    return (
        f"{name}: by {gap.get('column')}, AUROC is {number(gap.get('best_value'))} for “{gap.get('best')}” and "
        f"{number(gap.get('worst_value'))} for “{gap.get('worst')}”, {interval(gap.get('difference'))} apart; {seen}."
    )


def _findings(scores: Scores) -> list[Item]:
    return [row for row in scores.clinical.get("findings") or () if isinstance(row, Mapping)]


def _points(row: Item) -> Sequence[Item]:
    return [point for point in row.get("points") or () if isinstance(point, Mapping)]


def _key(point: Item) -> str:
    return f"{point.get('aim')}_{float(point.get('target') or 0):g}"


def _spoken(key: str) -> str:
    return key.replace("_", " of ")


def _few(row: Item) -> bool:
    return 0 < int(row.get("num_positive_groups") or 0) < FEW_PATIENTS


def _reasons(found: Sequence[Item]) -> Iterator[str]:
    for row in found:
        tables = [row.get("metrics") or {}, *(point.get("metrics") or {} for point in _points(row))]
        for table in tables:
            yield from (
                f"{row.get('name')}: {item['reason']}"
                for item in table.values()
                if item.get("reason") and usable(item.get("value")) is None
            )
        yield from (f"{row.get('name')}: {point['note']}" for point in _points(row) if point.get("note"))
