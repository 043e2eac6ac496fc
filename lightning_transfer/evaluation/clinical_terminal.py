"""Findings and their operating points, as plain text for the terminal."""

from __future__ import annotations

from lightning_transfer.evaluation.clinical_points import ClinicalPoints, FindingPoint
from lightning_transfer.evaluation.clinical_result import ClinicalResult
from lightning_transfer.evaluation.slice_gaps import SliceGap
from lightning_transfer.evaluation.terminal import align
from lightning_transfer.metrics import Interval

__all__ = ["format_clinical", "format_clinical_points", "format_gaps"]

_MOST_GAPS = 5


def format_clinical_points(points: ClinicalPoints) -> str:
    """Return what was fixed on the calibration split; empty without any point.

    Example:
        >>> point = FindingPoint("Edema", "specificity", 0.95, 0.0, 0.72, 0.96, 18, 60, 50)
        >>> print(format_clinical_points(ClinicalPoints((point,), 78, 60)))
        Operating points, fixed on 78 calibration records of 60 patients
          finding  at                    threshold  sensitivity  specificity
          Edema    specificity >= 0.95   0.5        0.720 of 18  0.960 of 60
    """
    if not points.points:
        return ""
    rows: list[tuple[str, ...]] = [("finding", "at", "threshold", "sensitivity", "specificity")]
    notes = []
    for point in points.points:
        cut = "n/a" if point.probability is None else f"{point.probability:.4g}"
        shares = (
            "n/a" if share is None else f"{share:.3f} of {count}"
            for share, count in ((point.sensitivity, point.num_positive), (point.specificity, point.num_negative))
        )
        rows.append((point.finding, _aim(point) + " ", cut, *shares))
        notes += [text for text in (point.reason, point.note) if text]
    lines = [f"Operating points, fixed on {points.n} calibration records of {points.num_groups} patients"]
    lines += [f"  {line}" for line in align(rows)]
    lines += [f"  note: {text}" for text in dict.fromkeys(notes)]
    return "\n".join(lines)


def format_clinical(result: ClinicalResult | None) -> str:
    """Return each finding's numbers on the test split; empty without any."""
    if result is None:
        return ""
    lines = [f"Findings on {result.n} records of {result.num_groups} patients, 95% intervals by patient"]
    rows: list[tuple[str, ...]] = [("finding", "with", "without", "AUROC", "average precision", "Brier", "ECE")]
    for finding in result.findings:
        numbers = (finding.metrics[name] for name in ("auroc", "average_precision", "brier"))
        ece = finding.metrics["ece"].value
        rows.append(
            (
                finding.name,
                str(finding.num_positive),
                str(finding.num_negative),
                *map(str, numbers),
                "n/a" if ece is None else f"{ece:.3f}",
            )
        )
    lines += align(rows, right=(1, 2))
    applied = [(finding, point) for finding in result.findings for point in finding.points]
    if applied:
        at_prevalence = any(finding.prevalence is not None for finding in result.findings)
        shown = ("ppv_at_prevalence", "npv_at_prevalence") if at_prevalence else ("ppv", "npv")
        where = "at the stated prevalence" if at_prevalence else "as frequent as in this split"
        head = ("finding", "fixed for", "sensitivity", "specificity", f"PPV {where}", f"NPV {where}")
        points: list[tuple[str, ...]] = [head]
        for finding, point in applied:
            cells = (point.metrics.get(name) for name in ("sensitivity", "specificity", *shown))
            points.append((finding.name, _aim(point.point), *(_short(item) for item in cells)))
        lines += ["", *align(points)]
        reasons = {
            item.reason for _, point in applied for item in point.metrics.values() if item.value is None and item.reason
        }
        lines += [f"n/a: {reason}" for reason in sorted(reasons)]
    if result.note:
        lines.append(result.note)
    return "\n".join(lines)


def format_gaps(gaps: tuple[SliceGap, ...], headline: str = "auroc") -> str:
    """Return between which slices the headline differs most, a line each; empty without any.

    Args:
        gaps: Of a `SliceTable`.
        headline: What it is.

    Example:
        >>> gap = SliceGap("site", "", "a", "b", 0.9, 0.8, Interval(0.1, 0.05, 0.15, 200, 90), True)
        >>> print(format_gaps((gap,)))
        Largest gap in auroc: site, a 0.900 and b 0.800: 0.100 [0.050, 0.150], stands out
    """
    chosen = [gap for gap in gaps if not gap.finding][:_MOST_GAPS]
    lines = []
    for place, gap in enumerate(chosen):
        name = f"Largest gap in {headline}" if place == 0 else "then"
        lines.append(f"{name}: {_said(gap)}")
    single = next((gap for gap in gaps if gap.finding), None)
    if single is not None:
        lines.append(f"of one finding: {single.finding} by {_said(single)}")
    return "\n".join(lines)


def _said(gap: SliceGap) -> str:
    ends = f"{gap.best} {gap.best_value:.3f} and {gap.worst} {gap.worst_value:.3f}"
    return f"{gap.column}, {ends}: {gap.difference}{', stands out' if gap.stands_out else ''}"


def _aim(point: FindingPoint) -> str:
    return f"{point.aim} >= {point.target:g}"


def _short(item: Interval | None) -> str:
    return "" if item is None else "n/a" if item.value is None else str(item)
