"""How well are defects of magnetic tiles drawn, by pretrained encoders and by U-Nets from random weights?

Folds by tile. In each, the module of `magnetic_tile_*_unet.yaml` is fitted on the training split, and a plain U-Net of
as many parameters from random weights, its rate and its epoch chosen on validation as the recipe's row `unet` does.
Numbers are pooled over the test folds, at the images' own size, with intervals over tiles.

    python -m benchmarks.segmentation [--data DIR] [--weights FILE] [--backbones embedded mobilenetv2] [--folds 0 1]

A table of all folds so far is printed after each of them.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR
from lightning_transfer.cli.segmentation_baselines import plain_unet
from lightning_transfer.evaluation import (
    JudgedMask,
    MaskJudge,
    MaskRow,
    evaluate_segmentation,
    fit_scratch,
    stream_outputs,
)
from lightning_transfer.modules import SegmentationModule
from lightning_transfer.types import Record, Schema
from recipes.vision.data import VisionDataModule

NEGATIVE = "free"
SHOWN = ("dice", "image_dice", "hd95", "pixel_auroc", "pro", "image_auroc", "missed_rate", "false_alarm_rate")
SCHEDULES: dict[str, Any] = {"embedded": "gradual", "mobilenetv2": {0: 0, 2: 2, 4: 6, 6: 12, 8: "all"}}


@dataclass
class Pooled:
    """What all folds so far gave for one backbone."""

    records: list[Record] = field(default_factory=list)
    model: list[JudgedMask] = field(default_factory=list)
    unet: list[JudgedMask] = field(default_factory=list)
    schema: Schema | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    about: list[str] = field(default_factory=list)


def main() -> None:
    """Run what is asked for; print a table of the model, the U-Net and their difference after each fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile"
    weights = Path(os.environ.get("LT_WEIGHTS_DIR", "../shared/weights")) / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--backbones", nargs="*", choices=list(SCHEDULES), default=list(SCHEDULES))
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--unet_epochs", type=int, default=80, help="At most; 0 leaves the U-Net out.")
    parser.add_argument("--trial_epochs", type=int, default=5)
    parser.add_argument("--patience", type=int, default=6)
    parser.add_argument("--num_workers", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in args.backbones:
        pooled = Pooled()
        for fold in args.folds:
            run_fold(name, fold, args, pooled)
            print_table(name, pooled)


def run_fold(name: str, fold: int, args: argparse.Namespace, pooled: Pooled) -> None:
    """Fit and judge the module and the U-Net of one fold, and add them to those before."""
    pl.seed_everything(0, verbose=False)
    mobile = name == "mobilenetv2"
    module = SegmentationModule(
        "torchvision/mobilenet_v2" if mobile else "embedded/formula_resnet_tiny",
        weights=str(args.weights) if mobile else None,
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.05),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs),
    )
    data = VisionDataModule(
        root=str(args.data), manifest="manifest.csv", group_column="tile_group", negative_class=NEGATIVE, pad="none",
        image_size=args.size, num_folds=5, fold=fold, batch_size=16, num_workers=args.num_workers,
        augmentations=["horizontal_flip", "vertical_flip"], check_data=False,
    )  # fmt: skip
    start = time.perf_counter()
    schedule = SCHEDULES[name]
    freeze = BackboneFreezeUnfreeze(schedule, unfreeze_at_epoch=2, epochs_per_group=2, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        best = pl.callbacks.ModelCheckpoint(folder, monitor="val_dice", mode="max", save_weights_only=True)
        trainer = pl.Trainer(
            max_epochs=args.epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, callbacks=[freeze, DiscriminativeLR(total_ratio=0.1), best],
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        chosen = torch.load(best.best_model_path, weights_only=True)
    module.load_state_dict(chosen["state_dict"])
    add(pooled, "fit", time.perf_counter() - start)
    records, before = data.records_for("test"), len(pooled.records)
    pooled.schema = module.schema
    pooled.model += judge(module, data, before, trainer.strategy.root_device)
    pooled.records += records
    if args.unet_epochs:
        found = fit_scratch(
            plain_unet(module), data.train_dataloader(), data.val_dataloader(), trial_epochs=args.trial_epochs,
            patience=args.patience, max_epochs=args.unet_epochs,
            trainer_options={"accelerator": "auto", "devices": 1},
        )  # fmt: skip
        unet = found.module
        assert isinstance(unet, SegmentationModule)
        pooled.unet += judge(unet, data, before, trainer.strategy.root_device)
        add(pooled, "U-Net", found.seconds)
        pooled.about.append(f"fold {fold}: {found.description}")


def judge(module: SegmentationModule, data: VisionDataModule, offset: int, device: torch.device) -> list[JudgedMask]:
    """Draw on the test split, and count places on from the folds before."""
    assert module.schema is not None
    found = MaskJudge(data, data.records_for("test"), module.schema)
    stream_outputs(module, data.test_dataloader(), found, device, show_progress=False)
    return [replace(item, place=item.place + offset) for item in found.rows()]


def add(pooled: Pooled, what: str, seconds: float) -> None:
    """Count seconds on."""
    pooled.seconds[what] = pooled.seconds.get(what, 0.0) + seconds


def print_table(name: str, pooled: Pooled) -> None:
    """Print model, U-Net and difference as Markdown, then the same by kind of defect."""
    assert pooled.schema is not None
    rows = {"unet": MaskRow(pooled.unet, "plain U-Net")} if pooled.unet else {}
    found = evaluate_segmentation(
        pooled.model, pooled.records, pooled.schema, baselines=rows, slices=[], n_resamples=1000
    )
    other, minus = found.baselines.get("unet", {}), found.differences.get("unet", {})
    took = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in pooled.seconds.items())
    print(f"\n{name}: {found.n} images of {found.num_groups} tiles ({took})\n")
    print("| metric | n | pretrained | U-Net from scratch | difference |\n|---|---|---|---|---|")
    kinds = [f"{base}_on_{item.kind}" for item in found.kinds for base in ("dice", "pixel_auroc", "pro")]
    for metric in (*SHOWN, *kinds):
        item = found.metrics[metric]
        print(f"| {metric} | {item.n} | {item} | {other.get(metric, '')} | {minus.get(metric, '')} |")
    for line in pooled.about:
        print(line, flush=True)


if __name__ == "__main__":
    main()
