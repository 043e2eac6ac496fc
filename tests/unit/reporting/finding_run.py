"""A run folder of findings, as the verbs write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lightning_transfer.data import write_predictions
from lightning_transfer.types import Calibration, Prediction, Record, Schema
from tests.unit.reporting.make_run import item, make_fit, make_test, write

FINDINGS = ("Edema", "Hernia")


def clinical(prevalence: float | None = 0.05) -> dict[str, Any]:
    nothing = item(None, n=0, reason="no record with `Hernia`")
    values = {"sensitivity": item(0.7, 0.6, 0.8), "specificity": item(0.85, 0.8, 0.9), "ppv": item(0.6, 0.5, 0.7),
              "npv": item(0.9, 0.85, 0.95)}  # fmt: skip
    if prevalence is not None:
        values |= {"ppv_at_prevalence": item(0.2, 0.15, 0.25), "npv_at_prevalence": item(0.98, 0.97, 0.99)}
    point = {"aim": "specificity", "target": 0.95, "probability": 0.31, "reason": "", "note": "few", "metrics": values}
    unfit = {**point, "probability": None, "note": "", "metrics": dict.fromkeys(values, nothing)}
    bins = [{"low": 0.2, "high": 0.3, "confidence": 0.25, "accuracy": 0.3, "n": 12}]
    metrics = {
        "auroc": item(0.8, 0.75, 0.85), "average_precision": item(0.5, 0.4, 0.6),
        "brier": item(0.1, 0.05, 0.15), "brier_before_temperature": item(0.12),
        "ece": item(0.04), "ece_before_temperature": item(0.06),
    }  # fmt: skip
    edema = {"name": "Edema", "num_positive": 20, "num_negative": 40, "num_positive_groups": 15,
             "prevalence": prevalence, "metrics": metrics, "points": [point],
             "reliability": {"before": bins, "after": bins}}  # fmt: skip
    hernia = {**edema, "name": "Hernia", "num_positive": 0, "num_positive_groups": 0, "points": [unfit],
              "metrics": {**metrics, "auroc": nothing, "average_precision": nothing}, "reliability": None}  # fmt: skip
    return {"findings": [edema, hernia], "n": 60, "num_groups": 30, "note": ""}


GAPS = [
    {"column": "site", "finding": "", "best": "a", "worst": "b", "best_value": 0.9, "worst_value": 0.7,
     "difference": item(0.2, 0.1, 0.3), "stands_out": True, "num_findings": 2},
    {"column": "sex", "finding": "Edema", "best": "F", "worst": "M", "best_value": 0.8, "worst_value": 0.7,
     "difference": item(0.1, -0.1, 0.3), "stands_out": False, "num_findings": 1},
]  # fmt: skip


def make_finding_run(folder: Path, **evaluation: Any) -> Path:
    """Write a fit and a test of two findings, with an image of each record."""
    make_test(make_fit(folder, classes=FINDINGS), classes=FINDINGS)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["evaluation"] = {"not_for_clinical_use": True, "data_licence": "CC BY 4.0", **evaluation}
    head = "# lightning-transfer==0.1.0\n# python -m recipes.medical fit\n"
    (folder / "config.yaml").write_text(head + yaml.safe_dump(config), encoding="utf-8")
    data = {**json.loads((folder / "data.json").read_text()), "task": "multilabel", "negative_class": None}
    write(folder / "data.json", data)
    found = json.loads((folder / "test" / "evaluation.json").read_text())
    write(folder / "test" / "evaluation.json", {
        **found, "task": "multilabel", "negative_class": None, "headline": "auroc", "confusion": [], "decisions": [],
        "clinical": clinical(), "slices_gaps": GAPS, "escapes": None,
    })  # fmt: skip
    root, records, predictions = folder.parent / "data", [], []
    rows = [("m", (1.0, None), (), 0.05), ("n", (1.0, 0.0), (), 0.2), ("f", (0.0, 0.0), ("Edema", "Hernia"), 0.9),
            ("u", (None, 0.5), ("Edema",), 0.8), ("ok", (1.0, 0.0), ("Edema",), 0.9)]  # fmt: skip
    for place, (name, label, decision, share) in enumerate(rows):
        path = root / f"{name}.png"
        Image.fromarray(np.full((20, 30), 30 * place, dtype=np.uint8)).save(path)
        records.append(Record(f"{name}.png", path, label, "test"))
        shares = {"Edema": share, "Hernia": share / 2}
        predictions.append(Prediction(f"{name}.png", decision, shares, None, decision))
    schema = Schema(task="multilabel", classes=FINDINGS)
    write_predictions(folder / "test" / "predictions.csv", records, predictions, schema, Calibration(), overwrite=True)
    return folder
