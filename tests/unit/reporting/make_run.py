"""Run folders written by hand, in the form that the verbs write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lightning_transfer.data import write_predictions
from lightning_transfer.types import Calibration, Neighbour, Prediction, Record, Schema

CLASSES = ("good", "pit", "scratch")


def item(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 60, "num_groups": 30, "reason": "", **more}


def evaluation(classes: Sequence[str] = CLASSES, **changes: Any) -> dict[str, Any]:
    good = classes[0]
    recalls = {f"recall_{name}": item(0.8, 0.6, 0.9, n=20) for name in classes}
    metrics = {
        "macro_f1": item(0.7, 0.6, 0.8),
        "accuracy": item(0.75, 0.65, 0.85),
        "auroc": item(0.9, 0.85, 0.95),
        "false_reject_rate": item(0.05, 0.0, 0.15, n=20),
        "recall_at_threshold": item(0.8, 0.7, 0.9, n=40),
        **recalls,
        "ece": item(0.06, reason="no interval: drawing with replacement inflates the binned error"),
        "false_reject_rate_at_0.05": item(0.05, 0.0, 0.15),
        "recall_at_false_reject_0.05": item(0.8, 0.7, 0.9),
    }
    point = {
        "max_false_reject_rate": 0.05, "threshold": 0.4, "threshold_interval": [0.3, 0.5], "false_reject_rate": 0.04,
        "false_reject_interval": [0.01, 0.1], "num_negative": 50, "num_groups": 25, "rule": "", "note": "",
    }  # fmt: skip
    matrix = [[19 if row == column else 1 for column in range(len(classes))] for row in range(len(classes))]
    bins = [{"low": 0.5, "high": 0.6, "confidence": 0.55, "accuracy": 0.5, "n": 12}]
    return {
        "task": "multiclass", "classes": list(classes), "negative_class": good, "n": 60, "num_groups": 30,
        "metrics": metrics, "confusion": matrix, "decisions": matrix, "escapes": ["a"],
        "calibration": {"temperature": 1.5, "threshold": 0.4, "rule": f"at most 0.05 of `{good}`", "points": [point]},
        "baselines": {
            "majority": {"macro_f1": item(0.2, 0.1, 0.3), "auroc": item(0.5, 0.5, 0.5)},
            "linear_probe": {"macro_f1": item(0.6, 0.5, 0.7), "auroc": item(0.85, 0.8, 0.9)},
        },
        "differences": {
            "majority": {"macro_f1": item(0.5, 0.4, 0.6), "auroc": item(0.4, 0.3, 0.5)},
            "linear_probe": {"macro_f1": item(0.1, 0.02, 0.2), "auroc": item(0.05, 0.01, 0.1)},
        },
        "descriptions": {"linear_probe": "C=1"}, "confidence": 0.95, "headline": "macro_f1",
        "slices": [
            {"column": "line", "value": "B", "n": 12, "num_groups": 4, "small": True, "stands_out": True,
             "difference": item(-0.2, -0.3, -0.1), "metrics": {"macro_f1": item(0.5, 0.3, 0.7)}},
            {"column": "line", "value": "A", "n": 48, "num_groups": 26, "small": False, "stands_out": False,
             "difference": item(0.2, 0.1, 0.3), "metrics": {"macro_f1": item(0.75, 0.6, 0.8)}},
        ],
        "reliability": {"before": bins, "after": bins, "ece_before": 0.1, "ece_after": 0.06, "brier_before": 0.4,
                        "brier_after": 0.35},
        "curve": [{"threshold": cut, "false_reject_rate": 1 - cut, "recall": 1 - cut**2} for cut in (0.0, 0.4, 1.0)],
        "latency": {"device": "cpu", "threads": 1, "peak_memory_mb": 20.0, "size_mb": 5.0, "num_parameters": 100,
                    "rows": [{"batch_size": 1, "p50_ms": 8.0, "p95_ms": 12.0, "items_per_s": 120.0}]},
        **changes,
    }  # fmt: skip


def routing(**changes: Any) -> dict[str, Any]:
    """What a router's test writes below ``routing``: 71% routed for a precision of 95%, 9 tickets out of scope."""
    points = [
        {"coverage": share, "risk": 0.2 * share**2, "threshold": 1 - share / 2} for share in (0.1, 0.3, 0.6, 0.8, 1.0)
    ]
    policy = {
        "target_precision": 0.95, "threshold": 0.62, "min_margin": 0.1, "out_of_scope_score": "knn",
        "out_of_scope_threshold": 0.44, "out_of_scope_auroc": {"max_logit": 0.8, "energy": None, "knn": 0.93},
        "neighbours": 5, "costs": {}, "rule": "precision of at least 0.95, 80% sure", "n": 58, "n_out_of_scope": 20,
        "points": [], "in_scope_thresholds": {"0.9": 0.4, "0.95": 0.6, "0.99": None},
    }  # fmt: skip
    scores = {
        name: {"auroc": item(value, value - 0.1, 0.99), "fpr95": item(1 - value, 0.0, 0.5), "chosen": name == "knn"}
        for name, value in (("max_logit", 0.8), ("energy", 0.79), ("knn", 0.9))
    }
    return {
        "policy": policy, "n": 131, "n_out_of_scope": 9,
        "coverage_at_target": item(0.71, 0.63, 0.78, n=140), "precision_of_routed": item(0.96, 0.91, 0.99, n=99),
        "in_scope": {"coverage_at_target": item(0.75, 0.67, 0.82, n=131),
                     "precision_of_routed": item(0.97, 0.93, 0.99, n=98), "lost": item(0.04, 0.01, 0.08, n=131)},
        "aurc": item(0.03, 0.01, 0.05, n=131), "risk_coverage": points,
        "coverage_at_precision": {"0.9": 0.88, "0.95": 0.75, "0.99": None},
        "precision_reached": {"0.9": 0.93, "0.95": 0.97, "0.99": None},
        "out_of_scope": {"scores": scores, "recall": item(0.89, 0.6, 0.99, n=9), "called": item(0.67, 0.3, 0.9, n=9),
                         "in_scope_accuracy": item(0.85, 0.78, 0.9, n=131), "in_scope_lost": item(0.04, 0.01, 0.08)},
        "decisions": {"route": 99, "ask": 31, "out of scope": 10}, "mean_cost": None,
        "reasons": {"sure enough": 99, "not sure enough": 31, "unlike all training tickets": 10},
        **changes,
    }  # fmt: skip


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def make_fit(folder: Path, classes: Sequence[str] = CLASSES, kind: str = "image", **plan: Any) -> Path:
    """Write what a fit leaves."""
    good = classes[0]
    config = {"data": {"root": str(folder.parent / "data")}, "trainer": {"max_epochs": 4}, "model": {"backbone": "x"}}
    folder.mkdir(parents=True)
    text = "# lightning-transfer==0.1.0\n# python -m recipes.vision fit\n" + yaml.safe_dump(config)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    versions = {"lightning-transfer": "0.1.0", "torch": "2.11.0"}
    write(folder / "environment.json", {"time": "2030-01-02T03:04:05", "device": "cpu", "versions": versions})
    counts = {split: {name: n for name in classes} for split, n in (("train", 40), ("test", 20))}
    write(folder / "data.json", {
        "task": "multiclass", "classes": list(classes), "counts": counts, "negative_class": good,
        "num_groups": {"train": 40, "test": 30}, "columns": ["line"], "preprocessing": {"kind": kind},
        "fingerprint": "abc", "skipped": {"broken.png": "not an image"},
    })  # fmt: skip
    stages = [
        {"epoch": 0, "step": None, "opened": [], "open_groups": [], "trainable_parameters": 8, "share": 0.1,
         "reached": True},
        {"epoch": 2, "step": None, "opened": ["layer4"], "open_groups": ["layer4"], "trainable_parameters": 80,
         "share": 1.0, "reached": True},
    ]  # fmt: skip
    write(folder / "plan.json", {
        "max_epochs": 4, "stages": stages, "groups": [{"name": name, "depth": 0, "parameters": 1}
                                                      for name in ("stem", "layer4", "head")],
        "backbone": {"name": "torchvision/resnet18", "licence": "cc-by-nc-4.0", "pretraining": "ImageNet",
                     "source": "torchvision", "num_parameters": 100, "num_features": 4, "batchnorm": "live",
                     "padding": "torch"},
        "learning_rates": [{"optimizer": "AdamW", "name": "layer4.0-depth1", "lr": 1e-4, "weight_decay": 0.1,
                            "parameters": 9},
                           {"optimizer": "AdamW", "name": "head-depth2", "lr": 1e-3, "weight_decay": 0.1,
                            "parameters": 3}],
        "evidence": "structure", "warnings": [], "notes": [], **plan,
    })  # fmt: skip
    shares = {"before": 0.8, "after": 0.5, "chance": 0.1}
    sources = {f"source_accuracy_{part}": item(value, value - 0.05, value + 0.05) for part, value in shares.items()}
    write(folder / "metrics.json", {"fit_seconds": item(40.0), **sources})
    epochs = [{"epoch": epoch, "seconds": 10.0} for epoch in range(4)]
    write(folder / "cost.json", {"device": "cpu", "epochs": epochs, "peak_memory_mb": 900.0,
                                 "peak_memory_kind": "whole process"})  # fmt: skip
    write(folder / "check.json", {
        "errors": 0, "warnings": 1, "seconds": 1.0, "num_records": {"train": 120},
        "findings": [{"code": "group-overlap", "severity": "warning", "message": "2 groups lie on both sides.",
                      "count": 2, "examples": ["a | b"], "advice": "Split by group."}],
    })  # fmt: skip
    rows = ["epoch,step,train_loss,val_loss,val_macro_f1,forgetting_accuracy"]
    for epoch in range(4):
        rows += [
            f"{epoch},{10 * epoch + 9},{1 - epoch / 10},,,",
            f"{epoch},{10 * epoch + 9},,{1 - epoch / 20},0.{epoch},",
        ]
        rows += [f"{epoch},{10 * epoch + 10},,,,0.0{epoch}"]
    (folder / "logs" / "csv").mkdir(parents=True)
    (folder / "logs" / "csv" / "metrics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "best-epoch=2.ckpt").touch()
    return folder


def make_test(
    folder: Path,
    classes: Sequence[str] = CLASSES,
    ids: Sequence[str] = ("a.png", "b.png", "c.png"),
    texts: Sequence[str] | None = None,
    pictures: bool = True,
    name: str = "test",
    **changes: Any,
) -> Path:
    """Write what a test leaves: an escape, a false reject and a confusion, each with its picture."""
    good, pit, *rest = classes
    scratch = rest[0] if rest else pit
    root = folder.parent / "data"
    root.mkdir(exist_ok=True)
    for place, key in enumerate([*ids, "train.png"]) if pictures else ():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30), 40 * place, dtype=np.uint8)).save(root / key, format="PNG")
    truths = [(pit, good, 0.1), (good, pit, 0.9), (pit, scratch, 0.8)]
    records, predictions = [], []
    for place, (key, (label, decision, score)) in enumerate(zip(ids, truths, strict=True)):
        source: Any = texts[place] if texts is not None else root / key
        records.append(Record(id=key, input=source, label=label, split="test"))
        shares = {name: 0.7 if name == decision else 0.3 / (len(classes) - 1) for name in classes}
        near = Neighbour(str(root / "train.png"), label, 0.25)
        predictions.append(Prediction(key, decision, shares, score, decision, nearest=near))
    schema = Schema(task="multiclass", classes=tuple(classes), negative_class=good)
    calibration = Calibration(threshold=0.4)
    (folder / name).mkdir()
    write_predictions(folder / name / "predictions.csv", records, predictions, schema, calibration)
    shutil.copy(folder / "data.json", folder / name)
    found = evaluation(classes, **changes)
    write(folder / name / "evaluation.json", found)
    write(folder / name / "metrics.json", found["metrics"])
    return folder
