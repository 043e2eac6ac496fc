"""One page on one run, and the same numbers as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_transfer.files import write_json
from lightning_transfer.reporting import classes, pictures, routing, scoring, shortcuts, training
from lightning_transfer.reporting.alignments import sounds
from lightning_transfer.reporting.charts import Chart
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.model_card import model_card, write_model_card
from lightning_transfer.reporting.page import STRANGE, render_part, write_page
from lightning_transfer.reporting.retention import retention_charts, sweep_section
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.segmentation import SEGMENTATION_TITLES, mask_pictures, segmentation_makers
from lightning_transfer.reporting.speech_report import SPEECH_TITLES, speech_forgetting_charts, speech_makers
from lightning_transfer.reporting.speech_verdict import verdict_of
from lightning_transfer.reporting.worst_errors import KINDS, DataFiles, WorstError, worst_errors
from lightning_transfer.scans import ImagePart

__all__ = ["build_report", "write_report"]

Section = dict[str, Any]

_TITLES = {
    "data": "Data",
    "plan": "Plan: what trains when",
    "curves": "Training curves",
    "scores": "Score beside plain methods",
    "routing": "When to route",
    "confusion": "Confusion",
    "classes": "Each class",
    "slices": "Slices",
    "shortcuts": "Shortcuts: the finding, or where it comes from?",
    "calibration": "Are the probabilities right?",
    "threshold": "Threshold",
    "errors": "Worst errors",
    "forgetting": "What was forgotten",
    "cost": "Cost",
    "environment": "Environment",
    "card": "Model card",
}


def write_report(
    folder: str | Path,
    *,
    data_root: str | Path | None = None,
    grad_cam: bool = True,
    audio: bool = False,
    sources: Mapping[str, ImagePart] | None = None,
) -> Path:
    """Write ``report.html``, ``report.json`` and ``model_card.md`` into a run's folder.

    Reads the files of the folder, ``model.ckpt`` for Grad-CAM, and of the data the pictures of the worst errors, which
    must lie below the data root that the run's config names. What a run has not measured is said in its section.
    An earlier report is replaced, since it is derived from the same files; each file appears whole or not at all.

    Args:
        folder: Of the run.
        data_root: Where the data are now, if they moved.
        grad_cam: Whether to show where in a picture the evidence was; takes the model and a few seconds.
        audio: Whether to embed the sound of the worst utterances, of a run of speech recognition: up to 3 MB, of people
            who may not want to be heard by all who get the page.
        sources: Id -> where the picture is, for runs whose tables name records by pseudonyms.

    Returns:
        The path of ``report.html``.

    Raises:
        TransferError: If this is no run's folder, or Jinja is not installed.
    """
    run = RunFiles.read(folder)
    report = build_report(run)
    write_json(run.folder / "report.json", report)
    values = {"report": report, **_drawings(run), **_pictures(run, DataFiles(run, data_root, sources), grad_cam)}
    if run.task == "transcription":
        values |= {"speech": True, **_sounds(run, data_root, audio)}
    if run.task == "segmentation":
        values["mask_pictures"] = _or_none(lambda: mask_pictures(run, data_root)) or {}
    bodies = {
        name: render_part(f"sections/{section.get('template', name)}.html.j2", {"section": section, **values})
        for name, section in report["sections"].items()
    }
    path = write_page(run.folder / "report.html", "report.html.j2", {**values, "bodies": bodies})
    write_model_card(run.folder)
    return path


def build_report(run: RunFiles) -> dict[str, Any]:
    """Return all that the page says, as plain values: what ``report.json`` holds."""
    scores = _or_none(lambda: Scores.read(run))
    forgetting = _or_none(lambda: Forgetting.read(run)) or Forgetting()
    found = verdict_of(run, scores, forgetting)
    if run.task == "transcription":
        titles, makers = SPEECH_TITLES, speech_makers(run, scores, forgetting)
    elif run.task == "segmentation":
        titles, makers = SEGMENTATION_TITLES, segmentation_makers(run, scores, forgetting)
    else:
        titles, makers = _TITLES, _makers(run, scores, forgetting)
    makers["card"] = lambda: {"missing": "", **model_card(run, scores, found)}
    return {
        "run": run.name,
        "command": run.command,
        "time": run.environment.get("time"),
        "test": None if run.test is None else run.test.name,
        "num_tests": run.num_tests,
        "modality": run.modality,
        "problems": list(run.problems),
        "verdict": {"sentences": list(found.sentences), "notes": list(found.notes), "tone": found.tone},
        "sections": {
            name: _section(titles[name], make) for name, make in makers.items() if name not in _not_here(run, scores)
        },
    }


def _makers(run: RunFiles, scores: Scores | None, forgetting: Forgetting) -> dict[str, Callable[[], Section]]:
    """Return what makes each section of a classifier's page but the model card."""
    hint = f"Not measured: run `{run.command} test RUN`."

    def tested(make: Callable[[Scores], Section]) -> Callable[[], Section]:
        return lambda: {"missing": hint} if scores is None else make(scores)

    return {
        "data": lambda: training.data_section(run),
        "plan": lambda: training.plan_section(run),
        "curves": lambda: {"missing": "" if run.curves else "Not known: the run has no `logs/csv/metrics.csv`."},
        "scores": tested(scoring.score_section),
        "routing": tested(routing.routing_section),
        "confusion": tested(classes.confusion_section),
        "classes": tested(lambda known: classes.classes_section(known, run)),
        "slices": tested(lambda known: scoring.slices_section(known, run)),
        "shortcuts": tested(shortcuts.shortcuts_section),
        "calibration": tested(lambda known: scoring.calibration_section(known, run)),
        "threshold": tested(lambda known: scoring.threshold_section(known, run)),
        "errors": tested(lambda known: _errors_section(run, known)),
        "forgetting": lambda: {
            **training.forgetting_section(run, forgetting),
            **(sweep_section(run, forgetting) if run.forgetting else {}),
        },
        "cost": lambda: training.cost_section(run, {} if scores is None else scores.latency),
        "environment": lambda: training.environment_section(run),
    }


def _not_here(run: RunFiles, scores: Scores | None) -> set[str]:
    """Return the sections that do not apply to a run of this kind, measured or not."""
    if run.task in ("transcription", "segmentation"):
        return set()
    several = run.data.get("task") == "multilabel"
    found = {"confusion", "threshold"} if several else set()
    if run.modality == "text" and run.data.get("negative_class") is None:
        found.add("threshold")
    if scores is None or not scores.routing:
        found.add("routing")
    if scores is None or not scores.shortcuts:
        found.add("shortcuts")
    return found


def _section(title: str, make: Callable[[], Section]) -> Section:
    try:
        found = make()
    except STRANGE as error:
        # One strange file must not take the other sections away.
        found = {"missing": "", "problem": f"{type(error).__name__}: {error}"}
    return {"problem": "", **found, "title": title}


def _or_none(make: Callable[[], Any]) -> Any:  # noqa: ANN401 - what `make` returns
    try:
        return make()
    except STRANGE:
        return None


def _errors_section(run: RunFiles, scores: Scores) -> Section:
    found = worst_errors(run.predictions, scores.negative_class)
    if not run.predictions:
        missing = "Not known: the test left no `predictions.csv`."
    elif run.data.get("task") == "multilabel":
        missing = "Not shown for records with several labels each; `predictions.csv` holds every decision."
        found = {kind: [] for kind in KINDS}
    else:
        missing = "" if any(found.values()) else "The model made no error on the test split."
    return {
        "missing": missing,
        "kinds": [
            {"kind": kind, "title": KINDS[kind], "errors": [dict(vars(error)) for error in errors]}
            for kind, errors in found.items()
            if errors
        ],
    }


def _drawings(run: RunFiles) -> dict[str, Any]:
    """Return the charts; one that cannot be drawn is left out, and its section still has the numbers."""
    scores = _or_none(lambda: Scores.read(run))
    forgetting = _or_none(lambda: Forgetting.read(run)) or Forgetting()
    return {
        "plan_timeline": _or_none(lambda: training.plan_timeline(run)),
        "curve_charts": _or_none(lambda: training.curve_charts(run)) or [],
        "forgetting_charts": _or_none(lambda: _forgetting_charts(run, forgetting)) or [],
        "reliability_charts": _or_none(lambda: scoring.reliability_charts(scores)) or [],
        "routing_charts": _or_none(lambda: routing.routing_charts(scores)) or [],
        "operating_charts": _or_none(lambda: scoring.operating_charts(scores)) or [],
    }


def _forgetting_charts(run: RunFiles, forgetting: Forgetting) -> list[Chart]:
    if run.task == "transcription":
        return speech_forgetting_charts(run, forgetting)
    return [*training.forgetting_charts(run, forgetting), *retention_charts(run, forgetting)]


def _sounds(run: RunFiles, data_root: str | Path | None, wanted: bool) -> dict[str, Any]:
    """Return the sound of the worst utterances by their ids, and what is to be said of it."""
    if not wanted:
        return {"sounds": {}, "sound_notes": []}
    found, notes = _or_none(lambda: sounds(run, None if data_root is None else str(data_root))) or ({}, [])
    return {"sounds": found, "sound_notes": notes}


def _pictures(run: RunFiles, files: DataFiles, grad_cam: bool) -> dict[str, Any]:
    """Return the pictures of the worst errors by the records' ids: of the record, its evidence, its neighbour."""
    scores = _or_none(lambda: Scores.read(run))
    errors: list[WorstError] = []
    if scores is not None and run.modality in ("", "image") and run.task not in ("multilabel", "transcription"):
        errors = [error for kind in worst_errors(run.predictions, scores.negative_class).values() for error in kind]
    own: dict[str, str | None] = {}
    nearest: dict[str, str | None] = {}
    for error in errors:
        path = files.find(error.path, error.id)
        own[error.id] = None if path is None else pictures.thumbnail(path, run.preprocessing)
        beside = files.find(error.nearest_path, sibling=(error.path, error.id)) if error.nearest_path else None
        nearest[error.id] = None if beside is None else pictures.thumbnail(beside, run.preprocessing)
    evidence, reason, what = pictures.heat_maps(run, errors), "", "where it is unlike good parts"
    if errors and not evidence and grad_cam and any(own.values()):
        evidence, reason = pictures.explanations(run, errors, files)
        what = ""
    notes = []
    if errors and not any(own.values()) and run.modality == "image":
        notes.append(f"The pictures are not shown: {files.reason or 'the files are not there any more'}.")
    if reason:
        notes.append(f"There is no Grad-CAM: {reason}")
    return {
        "pictures": own,
        "nearest_pictures": nearest,
        "evidence": evidence,
        "map_text": what,
        "picture_notes": notes,
    }
