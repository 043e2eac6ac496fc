"""The model card: what a stranger must know before using the model. The fit writes it, test and report complete it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightning_transfer.files import write_text
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.numbers import count, usable
from lightning_transfer.reporting.page import render
from lightning_transfer.reporting.routing import routing_lines
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.speech_verdict import verdict_of
from lightning_transfer.reporting.verdict import FEW_GROUPS, Verdict

__all__ = ["model_card", "write_model_card"]

_WHAT = {"image": "images", "text": "texts", "audio": "recordings"}
_EXAMPLE = {"text": "the text of a ticket"}
_OTHERS = {"text": "sources, languages or topics", "transcription": "speakers, accents, microphones or telephone lines"}


def write_model_card(folder: str | Path) -> Path:
    """Write ``model_card.md`` into a run's folder, from what the run has measured by now.

    An earlier card is replaced: it says the same, or less.

    Raises:
        TransferError: If this is no run's folder, or Jinja is not installed.
    """
    run = RunFiles.read(folder)
    scores, forgetting = Scores.read(run), Forgetting.read(run)
    found = verdict_of(run, scores, forgetting)
    path = run.folder / "model_card.md"
    template = "speech_model_card.md.j2" if run.task == "transcription" else "model_card.md.j2"
    write_text(path, render(template, {"card": model_card(run, scores, found)}))
    return path


def model_card(run: RunFiles, scores: Scores | None, found: Verdict) -> dict[str, Any]:
    """Return the card as plain values.

    Args:
        run: The files of the run.
        scores: Of its test; None before it.
        found: The verdict.
    """
    backbone = dict(run.plan.get("backbone") or {})
    classes = list(run.data.get("classes") or ())
    what = _WHAT.get(run.modality, "records")
    counts = run.data.get("counts") or {}
    own = _speech(run, scores) if run.task == "transcription" else _masks(run) if run.task == "segmentation" else {}
    return {
        "name": run.name,
        "time": run.environment.get("time"),
        "version": (run.environment.get("versions") or {}).get("lightning-transfer"),
        "command": run.command,
        "use": f"Tell {len(classes)} classes of {what} apart, of the kind that it was trained on."
        if classes
        else f"Judge {what} of the kind that it was trained on.",
        "classes": classes,
        "negative_class": run.data.get("negative_class"),
        "backbone": backbone,
        "licence_notice": _licence_notice(backbone),
        "data_root": run.section("data").get("root") or run.section("data").get("file"),
        "example": _EXAMPLE.get(run.modality, "path/to/an/input"),
        "routing": [] if scores is None else routing_lines(scores),
        "splits": [
            {"split": split, "n": sum(by_class.values()), "num_groups": (run.data.get("num_groups") or {}).get(split)}
            for split, by_class in counts.items()
        ],
        "train_counts": dict(counts.get("train") or {}),
        "fingerprint": run.data.get("fingerprint"),
        "preprocessing": {key: value for key, value in (run.data.get("preprocessing") or {}).items() if value},
        "tested": scores is not None,
        "metrics": [] if scores is None else [{"name": name, **scores.metrics[name]} for name in scores.shown],
        "headline": None if scores is None else scores.headline,
        "sentences": list(found.sentences),
        "limits": list(_limits(run, scores, found)),
        **own,
    }


def _masks(run: RunFiles) -> dict[str, Any]:
    """Return what is other on the card of a model that draws masks."""
    names = [str(name) for name in run.data.get("classes") or ()]
    what = " and ".join(filter(None, [", ".join(names[1:-1]), *names[1:][-1:]])) or "what it was trained on"
    return {"use": f"Draw where {what} is in images of the kind that it was trained on, pixel by pixel."}


def _speech(run: RunFiles, scores: Scores | None) -> dict[str, Any]:
    """Return what is other on the card of a recogniser."""
    preprocessing = run.data.get("preprocessing") or {}
    hours = {split: usable(own.get("seconds")) for split, own in (run.data.get("speech") or {}).items()}
    counts, groups = run.data.get("counts") or {}, run.data.get("num_groups") or {}
    tokens = [str(name) for name in run.data.get("classes") or ()]
    shown = ("wer", "cer", "wer_raw", "keyword_recall", "sentence_error_rate", "real_time_factor")
    return {
        "template": "speech_card",
        "use": "Write down what is said in recordings of the kind that it was trained on.",
        "classes": [],
        "alphabet": tokens,
        "example": "path/to/a/recording.wav",
        "splits": [
            {"split": split, "n": sum(own.values()), "seconds": hours.get(split), "num_groups": groups.get(split)}
            for split, own in counts.items()
        ],
        "train_counts": {},
        "rate": preprocessing.get("sampling_rate"),
        "normaliser": preprocessing.get("normaliser"),
        "scoring_normaliser": run.evaluation.get("normaliser") or preprocessing.get("scoring_normaliser"),
        "metrics": []
        if scores is None
        else [{"name": name, **scores.metrics[name]} for name in shown if name in scores.metrics],
    }


def _licence_notice(backbone: dict[str, Any]) -> str:
    """Return what must be known of the licence of the weights; empty for a permissive one."""
    if not backbone.get("name"):
        return "The licence of the pretrained weights is not known here: the run has no plan."
    from lightning_transfer.backbones.licences import licence_notice
    from lightning_transfer.types import BackboneCard

    known = {item.name for item in fields(BackboneCard)}
    card = BackboneCard(**{"architecture": "", **{key: value for key, value in backbone.items() if key in known}})
    return licence_notice(card) or ""


def _limits(run: RunFiles, scores: Scores | None, found: Verdict) -> Iterator[str]:
    """Yield what the numbers do not say."""
    train = (run.data.get("counts") or {}).get("train") or {}
    if train:
        others = _OTHERS.get(run.task, _OTHERS.get(run.modality, "sources, sensors or classes"))
        unit = "utterances" if run.task == "transcription" else "records"
        yield f"Trained on {count(sum(train.values()))} {unit}; other {others} were not tried."
    groups = (run.data.get("num_groups") or {}).get("train")
    if groups and groups < FEW_GROUPS:
        unit = "speakers" if run.task == "transcription" else "groups"
        yield f"The training records come from {groups} {unit} only."
    if run.data and not run.data.get("num_groups"):
        wholes = {"text": "one customer or thread", "transcription": "one speaker"}
        whole = wholes.get(run.task, wholes.get(run.modality, "one part"))
        yield f"Groups are unknown, so records of {whole} may be on both sides of the split."
    if scores is None:
        yield "Not tested yet."
    yield from found.notes
    findings = [item for item in run.check.get("findings") or () if item.get("severity") in ("error", "warning")]
    for item in findings:
        yield f"Data check: {item.get('message')}"
    if not run.check:
        yield "The data were not checked."
    yield "One run with one seed: another seed gives another model, with a score that may differ."
