"""What the page on a run that draws masks holds: scores beside other ways to draw, kinds, the worst, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_transfer.reporting import scoring, training
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.numbers import count, interval, percent, usable
from lightning_transfer.reporting.retention import sweep_section
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.verdict import Verdict, compare, verdict
from lightning_transfer.reporting.worst_errors import DataFiles

__all__ = ["SEGMENTATION_TITLES", "mask_pictures", "segmentation_makers", "segmentation_verdict"]

Section = dict[str, Any]

SEGMENTATION_TITLES = {
    "data": "Data",
    "plan": "Plan: what trains when",
    "curves": "Training curves",
    "scores": "Masks beside other ways to draw them",
    "kinds": "Each kind of picture",
    "slices": "Slices",
    "masks": "Worst masks",
    "forgetting": "What was forgotten",
    "cost": "Cost",
    "environment": "Environment",
    "card": "Model card",
}
_SHOWN = ("dice", "image_dice", "volume_dice", "hd95", "pixel_auroc", "pro", "missed_rate", "false_alarm_rate")
_CARDS = ("dice", "image_dice", "hd95", "pixel_auroc", "pro", "missed_rate")
_WORST_TITLES = {"poor": "Drawn poorly", "missed": "Missed", "false": "Drawn where nothing is"}


def segmentation_makers(
    run: RunFiles, scores: Scores | None, forgetting: Forgetting
) -> dict[str, Callable[[], Section]]:
    """Return what makes each section but the model card; a section says what was not measured.

    Args:
        run: Of a model that draws masks.
        scores: Of its test; None before it.
        forgetting: Of its fit.
    """
    hint = f"Not measured: run `{run.command} test RUN`."

    def tested(make: Callable[[Scores], Section]) -> Callable[[], Section]:
        return lambda: {"missing": hint} if scores is None else make(scores)

    return {
        "data": lambda: _data(run),
        "plan": lambda: training.plan_section(run),
        "curves": lambda: {"missing": "" if run.curves else "Not known: the run has no `logs/csv/metrics.csv`."},
        "scores": tested(lambda known: _scores(known, run)),
        "kinds": tested(lambda known: _kinds(run)),
        "slices": tested(lambda known: scoring.slices_section(known, run)),
        "masks": tested(lambda known: _worst(run)),
        "forgetting": lambda: {
            **training.forgetting_section(run, forgetting),
            **(sweep_section(run, forgetting) if run.forgetting else {}),
        },
        "cost": lambda: training.cost_section(run, {}),
        "environment": lambda: training.environment_section(run),
    }


def _data(run: RunFiles) -> Section:
    """Count pictures by the label that they have as a whole: that is what a split holds, not classes of pixels."""
    counts = run.data.get("counts") or {}
    names = list(dict.fromkeys(name for split in counts.values() for name in split))
    return training.data_section(replace(run, data={**run.data, "classes": names}))


def _scores(scores: Scores, run: RunFiles) -> Section:
    shown = [name for name in _SHOWN if name in scores.metrics]
    found = scoring.score_section(scores)
    for row in found["baselines"]:
        own, beside = scores.baselines[row["key"]], scores.differences.get(row["key"], {})
        row["metrics"] = {name: own.get(name) for name in shown}
        row["differences"] = {
            name: {**beside[name], "shows": compare(beside[name], name)} for name in shown if name in beside
        }
    return {
        **found,
        "template": "mask_scores",
        "shown": shown,
        "cards": [name for name in _CARDS if name in scores.metrics],
        "unit": str(run.evaluation.get("unit") or "px"),
        "num_shown": run.evaluation.get("num_shown"),
        "num_unknown": run.evaluation.get("num_unknown") or 0,
        "evaluation_notes": [str(note) for note in run.evaluation.get("notes") or ()],
    }


def _kinds(run: RunFiles) -> Section:
    rows = list(run.evaluation.get("kinds") or ())
    missing = "" if rows else "Not known: the pictures have no labels as a whole (`data.label_column`)."
    return {"missing": missing, "template": "mask_kinds", "rows": rows}


def _worst(run: RunFiles) -> Section:
    rows = list(run.evaluation.get("worst_masks") or ())
    return {
        "missing": "" if rows else "No picture was missed, drawn poorly, or drawn on without reason.",
        "template": "masks",
        "groups": [
            {"title": title, "rows": [row for row in rows if row.get("kind") == kind]}
            for kind, title in _WORST_TITLES.items()
            if any(row.get("kind") == kind for row in rows)
        ],
    }


def mask_pictures(run: RunFiles, data_root: str | Path | None = None) -> dict[str, str]:
    """Return the worst pictures with what was drawn on them, by the records' ids, as addresses of small pictures.

    What was drawn is orange. A picture is left out where it, or its mask, is not there any more.
    """
    import numpy as np
    from PIL import Image

    from lightning_transfer.data import read_image, read_label_map
    from lightning_transfer.errors import DataError
    from lightning_transfer.evaluation.segmentation_maps import overlay
    from lightning_transfer.reporting.pictures import address

    files = DataFiles(run, None if data_root is None else str(data_root))
    found: dict[str, str] = {}
    for row in run.evaluation.get("worst_masks") or ():
        path, mask = files.find(str(row.get("path")), str(row.get("id"))), _mask_file(run, str(row.get("mask") or ""))
        if path is None or mask is None:
            continue
        try:
            drawn = read_label_map(mask) > 0
            pixels = read_image(path)
            if drawn.shape == pixels.shape[:2]:
                found[str(row["id"])] = address(Image.fromarray(np.asarray(overlay(pixels, drawn, None))))
        except (DataError, OSError, ValueError):
            continue
    return found


def _mask_file(run: RunFiles, name: str) -> Path | None:
    """Return a mask that the test wrote; nothing outside of its folder."""
    if run.test is None or not name:
        return None
    folder = (run.test / "masks").resolve()
    path = (run.test / name).resolve()
    return path if path.is_file() and path.parent == folder else None


def segmentation_verdict(run: RunFiles, scores: Scores | None, forgetting: Forgetting) -> Verdict:
    """Compose the verdict: does it draw better than the others, what was forgotten, where should one look?"""
    found = verdict(scores, forgetting, command=run.command, num_tests=run.num_tests)
    first, second, *_ = found.sentences
    if scores is None:
        last = f"Where the masks fail is not known before the test; run `{run.command} test RUN`."
    else:
        hints = list(_hints(run, scores))
        last = f"Look first at: {'; '.join(hints)}." if hints else "No picture was missed, or drawn on in vain."
    notes = [*found.notes, *(str(note) for note in run.evaluation.get("notes") or ())]
    return Verdict((first, second, last), tuple(dict.fromkeys(notes)), found.tone)


def _hints(run: RunFiles, scores: Scores) -> Iterator[str]:
    missed, false = (scores.metrics.get(name) or {} for name in ("missed_rate", "false_alarm_rate"))
    if usable(missed.get("value")):
        yield f"{percent(missed.get('value'))} of the {count(missed.get('n'))} pictures that show something, missed"
    if usable(false.get("value")):
        yield f"{percent(false.get('value'))} of the {count(false.get('n'))} others, drawn on all the same"
    kinds = [row for row in run.evaluation.get("kinds") or () if _dice(row) is not None]
    if len(kinds) > 1:
        worst = min(kinds, key=lambda row: _dice(row) or 0.0)
        yield f"“{worst.get('kind')}”, Dice {interval((worst.get('metrics') or {}).get('dice'))}"


def _dice(row: Mapping[str, Any]) -> float | None:
    return usable(((row.get("metrics") or {}).get("dice") or {}).get("value"))
