"""How well are defects of magnetic tiles drawn, by pretrained encoders and by a U-Net from random weights?

Folds by tile. In each, the modules of `magnetic_tile_*_unet.yaml` are fitted on the training split, and a plain U-Net
of as many parameters as the larger of the two from random weights, its rate and its epoch chosen on validation as the
recipe's row `unet` does. Numbers are pooled over the test folds, at the images' own size, with intervals over tiles.

    python -m benchmarks.segmentation [--data DIR] [--weights FILE] [--networks embedded mobilenetv2 unet] [--folds 0 1]

What was run is stored, one file a fold and network, and not run again; a table of all folds so far is printed after
each of them. CPU seconds are those of all threads: they do not depend on who else uses the machine.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from lightning_transfer.metrics import OverlapCounts, PixelCounts
from lightning_transfer.modules import SegmentationModule
from lightning_transfer.types import Record, Schema
from recipes.vision.data import VisionDataModule

NEGATIVE = "free"
SHOWN = ("dice", "image_dice", "hd95", "pixel_auroc", "pro", "image_auroc", "missed_rate", "false_alarm_rate")
SCHEDULES: dict[str, Any] = {"embedded": "gradual", "mobilenetv2": {0: 0, 2: 2, 4: 6, 6: 12, 8: "all"}}
UNET = "unet"
NETWORKS = (*SCHEDULES, UNET)
# Without the last one, which widens the map to 1280 channels for a classifier.
LAYERS = ["features.1", "features.3", "features.6", "features.13", "features.17"]


@dataclass(frozen=True)
class Drawn:
    """What one network drew on the test split of one fold.

    Attributes:
        records: Of the split: id, label and tile alone.
        judged: How the masks compare with the truth; their places point into ``records``.
        about: What was chosen and what it took, in words.
        seconds: Of the fit.
        cpu_seconds: Likewise.
        val_dice: Of the epoch that was kept.
    """

    records: tuple[Record, ...]
    judged: tuple[JudgedMask, ...]
    about: str
    seconds: float
    cpu_seconds: float
    val_dice: float


def main() -> None:
    """Run what is asked for and not there yet; print a table of each model, the U-Net and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile"
    weights = Path(os.environ.get("LT_WEIGHTS_DIR", "../shared/weights")) / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=30, help="of the pretrained networks")
    parser.add_argument("--batches", type=int, help="an epoch has at most so many batches of 16; all, if left out")
    parser.add_argument("--rates", nargs="*", type=float, default=[3e-4, 1e-3, 3e-3], help="of the U-Net")
    parser.add_argument("--trial_epochs", type=int, default=5, help="of each rate of the U-Net")
    parser.add_argument("--patience", type=int, default=6, help="of the U-Net, in epochs")
    parser.add_argument("--max_epochs", type=int, default=80, help="of the U-Net")
    parser.add_argument("--precision", default="32-true", help="of all fits; bf16-mixed is faster where the CPU has it")
    parser.add_argument("--progress", action="store_true", help="show how the U-Net's validation goes")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/segmentation"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    folder = args.out / f"{args.size}px"
    folder.mkdir(parents=True, exist_ok=True)
    for fold in args.folds:
        missing = [name for name in NETWORKS if name in args.networks and not stored(folder, name, fold).is_file()]
        for name in missing:
            drawn = run_unet(fold, args) if name == UNET else run_pretrained(name, fold, args)
            write_drawn(stored(folder, name, fold), drawn)
            print(f"{name}, fold {fold}: {drawn.about}; {drawn.cpu_seconds:.0f} CPU s", flush=True)
        if missing and fold != args.folds[-1]:
            print_tables(read_all(folder), n_resamples=200)
    print_tables(read_all(folder))


def stored(folder: Path, name: str, fold: int) -> Path:
    """Return where the result of a network and a fold is kept."""
    return folder / f"{name}-{fold}.pt"


def run_pretrained(name: str, fold: int, args: argparse.Namespace) -> Drawn:
    """Fit and judge the module of a config on one fold."""
    pl.seed_everything(0, verbose=False)
    module, data = make_module(name, args), make_data(fold, args)
    clock = Clock()
    freeze = BackboneFreezeUnfreeze(SCHEDULES[name], unfreeze_at_epoch=2, epochs_per_group=2, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        best = pl.callbacks.ModelCheckpoint(folder, monitor="val_dice", mode="max", save_weights_only=True)
        trainer = pl.Trainer(
            max_epochs=args.epochs, logger=False, enable_progress_bar=False, enable_model_summary=False,
            num_sanity_val_steps=0, precision=args.precision, limit_train_batches=args.batches,
            callbacks=[freeze, DiscriminativeLR(total_ratio=0.1), best],
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        chosen = torch.load(best.best_model_path, weights_only=True)
    module.load_state_dict(chosen["state_dict"])
    assert best.best_model_score is not None
    score = float(best.best_model_score)
    size = sum(item.numel() for item in module.parameters()) / 1e6
    about = f"{size:.2f} M parameters, val_dice {score:.3f} in epoch {chosen['epoch'] + 1} of {args.epochs}"
    return judge(module, data, about, clock, score, trainer.strategy.root_device)


def run_unet(fold: int, args: argparse.Namespace) -> Drawn:
    """Train and judge a plain U-Net of as many parameters as the network with MobileNetV2."""
    pl.seed_everything(0, verbose=False)
    module, data = make_module("mobilenetv2", args), make_data(fold, args)
    data.use_card(module.card)
    data.setup("fit")
    module.use_schema(data.schema)
    module.configure_model()
    clock = Clock()
    found = fit_scratch(
        plain_unet(module), data.train_dataloader(), data.val_dataloader(), learning_rates=args.rates,
        trial_epochs=args.trial_epochs if len(args.rates) > 1 else None, patience=args.patience,
        max_epochs=args.max_epochs,
        trainer_options={
            "accelerator": "auto", "devices": 1, "precision": args.precision, "limit_train_batches": args.batches,
        }, show_progress=args.progress,
    )  # fmt: skip
    unet = found.module
    assert isinstance(unet, SegmentationModule)
    size = sum(item.numel() for item in unet.parameters()) / 1e6
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in found.scores.items())
    about = f"{size:.2f} M parameters, {found.description}; val_dice by rate {scores}"
    return judge(unet, data, about, clock, float("nan"), device)


def make_module(name: str, args: argparse.Namespace) -> SegmentationModule:
    """Return the module of a config."""
    mobile = name == "mobilenetv2"
    return SegmentationModule(
        "torchvision/mobilenet_v2" if mobile else "embedded/formula_resnet_tiny",
        weights=str(args.weights) if mobile else None,
        layers=LAYERS if mobile else None,
        optimizer=lambda params: torch.optim.AdamW(params, lr=1e-3, weight_decay=0.05),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.epochs),
    )


def make_data(fold: int, args: argparse.Namespace) -> VisionDataModule:
    """Return the data of the configs, of one fold."""
    return VisionDataModule(
        root=str(args.data), manifest="manifest.csv", group_column="tile_group", negative_class=NEGATIVE, pad="none",
        image_size=args.size, num_folds=5, fold=fold, batch_size=16, num_workers=0, task="segmentation",
        augmentations=["horizontal_flip", "vertical_flip"], check_data=False,
    )  # fmt: skip


class Clock:
    """Seconds since it was made, of the clock and of this process's threads."""

    def __init__(self) -> None:
        self.start, self.cpu_start = time.perf_counter(), _cpu_seconds()

    def read(self) -> tuple[float, float]:
        """Return both."""
        return time.perf_counter() - self.start, _cpu_seconds() - self.cpu_start


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def judge(
    module: SegmentationModule, data: VisionDataModule, about: str, clock: Clock, val_dice: float, device: torch.device
) -> Drawn:
    """Draw on the test split; the clock was for the fit."""
    seconds, cpu_seconds = clock.read()
    assert module.schema is not None
    records = data.records_for("test")
    found = MaskJudge(data, records, module.schema)
    stream_outputs(module, data.test_dataloader(), found, device, show_progress=False)
    kept = tuple(Record(item.id, None, label=item.label, split="test", group=item.group) for item in records)
    return Drawn(kept, tuple(found.rows()), about, seconds, cpu_seconds, val_dice)


def write_drawn(path: Path, drawn: Drawn) -> None:
    """Keep a result as plain values, which load without unpickling anything."""
    rows = [
        {
            "place": item.place,
            "overlap": [torch.from_numpy(part) for part in item.overlap],
            "distance": torch.from_numpy(item.distance),
            "unit": item.unit,
            "pixels": [torch.from_numpy(part) for part in item.pixels],
            "score": item.score,
        }
        for item in drawn.judged
    ]
    facts = {name: getattr(drawn, name) for name in ("about", "seconds", "cpu_seconds", "val_dice")}
    records = [(item.id, item.label, item.group) for item in drawn.records]
    torch.save({"records": records, "judged": rows, **facts}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def read_drawn(path: Path) -> Drawn:
    """Read what `write_drawn` wrote."""
    found = torch.load(path, weights_only=True)
    judged = tuple(
        JudgedMask(
            row["place"],
            OverlapCounts(*(part.numpy() for part in row["overlap"])),
            row["distance"].numpy(),
            row["unit"],
            PixelCounts(*(part.numpy() for part in row["pixels"])),
            row["score"],
        )
        for row in found.pop("judged")
    )
    records = tuple(
        Record(name, None, label=label, split="test", group=group) for name, label, group in found.pop("records")
    )
    return Drawn(records, judged, **found)


def read_all(folder: Path) -> dict[str, dict[int, Drawn]]:
    """Return network -> fold -> what it drew, of all that is there."""
    found: dict[str, dict[int, Drawn]] = {}
    for name in NETWORKS:
        for path in sorted(folder.glob(f"{name}-*.pt")):
            found.setdefault(name, {})[int(path.stem.rpartition("-")[2])] = read_drawn(path)
    return found


def pool(folds: Sequence[Drawn]) -> tuple[list[Record], list[JudgedMask]]:
    """Join the test splits of folds; places count on from the folds before."""
    records: list[Record] = []
    judged: list[JudgedMask] = []
    for drawn in folds:
        judged += [replace(item, place=item.place + len(records)) for item in drawn.judged]
        records += drawn.records
    return records, judged


def print_tables(found: Mapping[str, Mapping[int, Drawn]], n_resamples: int = 1000) -> None:
    """Print each pretrained network beside the U-Net, on the folds that both have, and what was chosen."""
    for name in SCHEDULES:
        if name not in found:
            continue
        unets = found.get(UNET, {})
        both = sorted(set(found[name]) & set(unets)) or sorted(found[name])
        others = [unets[fold] for fold in both if fold in unets]
        print_table(name, [found[name][fold] for fold in both], others, n_resamples)
    for name, folds in found.items():
        for fold, drawn in sorted(folds.items()):
            print(f"{name}, fold {fold}: {drawn.about}; {drawn.cpu_seconds:.0f} CPU s", flush=True)


def print_table(name: str, folds: Sequence[Drawn], unets: Sequence[Drawn], n_resamples: int) -> None:
    """Print model, U-Net and difference as Markdown, over all, then by kind of defect."""
    records, judged = pool(folds)
    rows = {UNET: MaskRow(pool(unets)[1], "plain U-Net")} if unets else {}
    schema = Schema(task="segmentation", classes=(NEGATIVE, "defect"))
    found = evaluate_segmentation(judged, records, schema, baselines=rows, slices=[], n_resamples=n_resamples)
    other, minus = found.baselines.get(UNET, {}), found.differences.get(UNET, {})
    print(f"\n{name}: {len(folds)} folds, {found.n} images of {found.num_groups} tiles, {n_resamples} resamples\n")
    print("| metric | n | pretrained | U-Net from scratch | difference |\n|---|---|---|---|---|")
    kinds = [f"{base}_on_{item.kind}" for item in found.kinds for base in ("dice", "pixel_auroc", "pro")]
    for metric in (*SHOWN, *kinds):
        item = found.metrics[metric]
        print(f"| {metric} | {item.n} | {item} | {other.get(metric, '')} | {minus.get(metric, '')} |")
    print(flush=True)


if __name__ == "__main__":
    main()
