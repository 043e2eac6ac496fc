"""How well are defects of magnetic tiles found and located after training on good tiles alone, five folds by tile?

Each fold: `NormalOnlyModule` with its defaults is fitted on the good images of the training split, the threshold on
those of the calibration split, and the test fold is read once. Numbers are pooled over the folds: image scores are the
module's logits, maps are divided by the typical score of a good training image, both of which compare across folds.

    python -m benchmarks.normal_only [--data DIR] [--weights FILE] [--backbones mobilenet_v2 embedded] [--size 128]
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from lightning_transfer.evaluation import Outputs, collect_outputs, evaluate_localisation, fit_calibration
from lightning_transfer.evaluation.scores import decision_score
from lightning_transfer.metrics import auroc, cluster_bootstrap, weighted_mean
from lightning_transfer.modules import NormalOnlyModule
from recipes.vision.data import VisionDataModule

NEGATIVE = "free"
RATE = 0.05


def main() -> None:
    """Run what is asked for, then print a table with a row for each backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile"
    weights = Path(os.environ.get("LT_WEIGHTS_DIR", "../shared/weights")) / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--backbones", nargs="*", default=["mobilenet_v2", "embedded"])
    parser.add_argument("--embedded", default="embedded/formula_resnet_tiny")
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--coreset_share", type=float, default=0.01)
    parser.add_argument("--layers", nargs="*")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rows = []
    for name in args.backbones:
        start = time.perf_counter()
        folds = [run_fold(name, fold, args) for fold in args.folds]
        rows.append(summary(name, folds, time.perf_counter() - start))
        print_table(rows)


def run_fold(name: str, fold: int, args: argparse.Namespace) -> dict[str, Any]:
    """Fit, calibrate and test one fold; return what its test records got."""
    weights = args.weights if name == "mobilenet_v2" else None
    backbone = "torchvision/mobilenet_v2" if name == "mobilenet_v2" else args.embedded
    module = NormalOnlyModule(
        backbone, weights=None if weights is None else str(weights), coreset_share=args.coreset_share,
        layers=args.layers or None,
    )  # fmt: skip
    data = VisionDataModule(
        root=str(args.data), manifest="manifest.csv", group_column="tile_group", negative_class=NEGATIVE, pad="none",
        image_size=args.size, num_folds=5, fold=fold, val_fraction=0.0, calibration_fraction=0.25, check_data=False,
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    start = time.perf_counter()
    trainer.fit(module, datamodule=data)
    fit_seconds = time.perf_counter() - start
    assert module.schema is not None
    calibration = fit_calibration(
        collect_outputs(module, data.calibration_dataloader(), show_progress=False), module.schema,
        max_false_reject_rate=RATE,
    )  # fmt: skip
    trainer.test(module, datamodule=data, verbose=False)
    outputs = Outputs.from_batches(module.test_outputs)
    score, _ = decision_score(outputs.logits.double().numpy(), module.schema, calibration.temperature)
    typical = float(module.bank.location.exp())
    assert calibration.threshold is not None
    return {
        "records": data.records_for("test"), "logits": outputs.logits[:, 0].double().numpy(),
        "rejected": score >= calibration.threshold, "schema": module.schema, "layers": module.layers,
        "grids": [module.grids[place] / typical for place in range(len(outputs))], "fit_seconds": fit_seconds,
        "remembered": len(module.bank), "sigma": module.smoothing,
    }  # fmt: skip


def summary(name: str, folds: list[dict[str, Any]], seconds: float) -> dict[str, str]:
    """Pool the folds, with intervals over tiles."""
    records = [record for fold in folds for record in fold["records"]]
    tiles = [record.group for record in records]
    logits = np.concatenate([fold["logits"] for fold in folds])
    rejected = np.concatenate([fold["rejected"] for fold in folds]).astype(float)
    defect = np.array([record.label != NEGATIVE for record in records])
    grids: dict[int, torch.Tensor] = dict(enumerate(grid for fold in folds for grid in fold["grids"]))
    pixels = evaluate_localisation(grids, records, folds[0]["schema"], sigma=folds[0]["sigma"], n_resamples=1000)
    each = []
    for fold in folds:
        truth = np.array([record.label != NEGATIVE for record in fold["records"]])
        each.append(float(auroc(np.ones((1, len(truth))), fold["logits"], truth)[0]))
    kinds = {}
    for record, called in zip(records, rejected, strict=True):
        kinds.setdefault(str(record.meta.get("original_label", NEGATIVE)), []).append(called)
    return {
        "backbone": name,
        "layers": ", ".join(folds[0]["layers"]),
        "image AUROC, pooled [95 %]": str(cluster_bootstrap(lambda weights: auroc(weights, logits, defect), tiles)),
        "image AUROC, mean of folds": f"{np.mean(each):.3f} ± {np.std(each):.3f}",
        "pixel AUROC [95 %]": str(pixels["pixel_auroc"]),
        "PRO up to 0.3 [95 %]": str(pixels["pro"]),
        f"good rejected (aim {RATE:g})": str(
            cluster_bootstrap(lambda weights: weighted_mean(weights * ~defect, rejected), tiles)
        ),
        "defects found": str(cluster_bootstrap(lambda weights: weighted_mean(weights * defect, rejected), tiles)),
        "found by kind": ", ".join(
            f"{kind} {np.mean(found):.2f} of {len(found)}" for kind, found in sorted(kinds.items()) if kind != NEGATIVE
        ),
        "patches kept": f"{folds[0]['remembered']:,}",
        "fit: s a fold": f"{np.median([fold['fit_seconds'] for fold in folds]):.0f}",
        "all: s": f"{seconds:.0f}",
    }


def print_table(rows: list[dict[str, str]]) -> None:
    """Print the rows as Markdown."""
    print(f"| {' | '.join(rows[0])} |\n{'|---' * len(rows[0])}|")
    for row in rows:
        print(f"| {' | '.join(row.values())} |", flush=True)


if __name__ == "__main__":
    main()
