"""What does an epoch cost when the backbone is frozen, and what does a run of frozen and tuned epochs?

MobileNetV2 on magnetic tiles at 128 pixels, one split, float32, no augmentation, the same images decoded by the
same code in all contestants: `FeatureCache`, `BackboneFreezeUnfreeze` without it, Lightning's `BackboneFinetuning`,
and a loop by hand that decodes every image and runs the frozen layers without gradients. They run in turn, round
after round, in one process, and each figure is the median over rounds with its range.

Two tables: an epoch of the frozen stage after the first (training and validation), and a whole run of frozen and
then tuned epochs. The loop by hand of the second runs one frozen epoch and the tuned ones: what a run could cost at
the least. Losses of the frozen stage are compared too.

    python -m benchmarks.feature_cache [--data DIR] [--weights FILE] [--rounds 5] [--frozen 10] [--tuned 2] [--images N]
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

from lightning_transfer import BackboneFreezeUnfreeze, FeatureCache
from lightning_transfer.types import Record
from recipes.vision.data import VisionDataModule
from recipes.vision.module import VisionModule

RATE = 1e-3


@dataclass
class Timed:
    """What one run took.

    Attributes:
        epochs: Seconds of each epoch, validation included.
        total: Seconds from the first epoch, with whatever is run before it, to the end.
        losses: Of each training batch.
        memory: Peak of the process so far, in MB: it only rises, so it is of use in a process of its own alone.
    """

    epochs: list[float] = field(default_factory=list)
    total: float = 0.0
    losses: list[float] = field(default_factory=list)
    memory: float = 0.0


class Stopwatch(pl.Callback):
    """Times epochs, from the start of training on: the pass of a cache belongs to the first."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.losses: list[float] = []

    def on_train_start(self, *_: Any) -> None:  # noqa: ANN401
        """Begin; this callback comes first."""
        self.moments.append(time.perf_counter())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Keep the loss."""
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, *_: Any) -> None:  # noqa: ANN401
        """Note the end of an epoch, behind its validation."""
        self.moments.append(time.perf_counter())


class Fewer(VisionDataModule):
    """The same data, or every so-many-th image."""

    def __init__(self, images: int | None, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.images = images

    def read_records(self) -> list[Record]:
        """Thin the records."""
        found = super().read_records()
        return found if self.images is None else found[:: max(1, len(found) // self.images)]


class LightningFinetuning(BackboneFinetuning):
    """Lightning's own, with the backbone's rate beside the head's when it opens, and its messages off."""

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch, backbone_initial_lr=RATE / 10, verbose=False)


def main() -> None:
    """Measure, and print the tables."""
    args = parse()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    frozen_runs: dict[str, list[Timed]] = {}
    whole_runs: dict[str, list[Timed]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name, run in contestants(args, Path(folder)).items():
                frozen_runs.setdefault(name, []).append(run(args.frozen, 0))
            for name, run in contestants(args, Path(folder)).items():
                frozen = 1 if name == "by hand" else args.frozen
                whole_runs.setdefault(name, []).append(run(frozen, args.tuned))
    show_frozen(frozen_runs)
    show_whole(whole_runs, args)
    print(f"\nPeak of the process: {max(run.memory for runs in whole_runs.values() for run in runs):,.0f} MB")


def parse() -> argparse.Namespace:
    """Read the command line; paths by default as the other benchmarks find them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile"
    weights = Path(os.environ.get("LT_WEIGHTS_DIR", "../shared/weights")) / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--size", type=int, default=128, help="Pixels on a side.")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frozen", type=int, default=10, help="Epochs with a frozen backbone.")
    parser.add_argument("--tuned", type=int, default=2, help="Epochs after it in which everything trains.")
    parser.add_argument("--images", type=int, default=None, help="Use about so many images, to try the script.")
    parser.add_argument("--only", nargs="*", default=None, help="Names of contestants; one tells its peak memory.")
    return parser.parse_args()


def contestants(args: argparse.Namespace, folder: Path) -> dict[str, Callable[[int, int], Timed]]:
    """Return what is measured, by name: each takes the number of frozen and of tuned epochs."""

    def ours(cached: bool) -> Callable[[int, int], Timed]:
        def run(frozen: int, tuned: int) -> Timed:
            schedule = {0: 0, frozen: "all"} if tuned else "feature_extraction"
            callbacks = [BackboneFreezeUnfreeze(schedule, verbose=False), *([FeatureCache("always")] if cached else [])]
            return fit(args, folder, callbacks, frozen + tuned)

        return run

    def theirs(frozen: int, tuned: int) -> Timed:
        return fit(args, folder, [LightningFinetuning(frozen)], frozen + tuned)

    found = {
        "FeatureCache": ours(True),
        "BackboneFreezeUnfreeze": ours(False),
        "BackboneFinetuning": theirs,
        "by hand": lambda frozen, tuned: by_hand(args, frozen, tuned),
    }
    return {name: run for name, run in found.items() if args.only is None or name in args.only}


def make(args: argparse.Namespace) -> tuple[VisionModule, VisionDataModule]:
    """Return the network and the data, the same for all."""
    torch.manual_seed(0)
    module = VisionModule(
        "torchvision/mobilenet_v2",
        weights=str(args.weights),
        optimizer=lambda params: torch.optim.AdamW(params, lr=RATE),
    )
    data = Fewer(
        args.images,
        str(args.data),
        manifest="manifest.csv",
        group_column="tile_group",
        negative_class="free",
        pad="none",
        image_size=args.size,
        batch_size=args.batch_size,
        num_folds=5,
        check_data=False,
    )
    return module, data


def fit(args: argparse.Namespace, folder: Path, callbacks: list[Any], epochs: int) -> Timed:
    """Fit by Lightning, with nothing beside the callbacks."""
    module, data = make(args)
    watch = Stopwatch()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[watch, *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    if any(isinstance(item, BackboneFinetuning) for item in callbacks):
        # It freezes before the optimizer is made, and adds the backbone when it opens: the optimizer takes what trains.
        module.configure_optimizers = lambda: torch.optim.AdamW(  # type: ignore[method-assign]
            [value for value in module.parameters() if value.requires_grad], lr=RATE
        )
    trainer.fit(module, datamodule=data)
    return Timed(
        [end - begin for begin, end in zip(watch.moments, watch.moments[1:], strict=False)],
        watch.moments[-1] - watch.moments[0],
        watch.losses,
        peak(),
    )


def by_hand(args: argparse.Namespace, frozen: int, tuned: int) -> Timed:
    """Train as a script would: frozen layers in eval mode without gradients, then everything."""
    module, data = make(args)
    data.use_card(module.card)
    data.prepare_data()
    data.setup("fit")
    assert data.schema is not None
    module.use_schema(data.schema)
    module.configure_model()
    head, backbone = module.head, module.backbone
    assert isinstance(head, nn.Module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE)
    train, val = data.train_dataloader(), data.val_dataloader()
    found = Timed()
    begin = time.perf_counter()
    for epoch in range(frozen + tuned):
        start = time.perf_counter()
        closed = epoch < frozen
        backbone.train(not closed).requires_grad_(not closed)
        head.train()
        for batch in train:
            with torch.set_grad_enabled(not closed):
                features = backbone(batch.input)
            loss = module.loss(head(features), batch.target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.losses.append(float(loss))
        module.eval()
        with torch.inference_mode():
            for batch in val:
                module.loss(head(backbone(batch.input)), batch.target)
        found.epochs.append(time.perf_counter() - start)
    found.total, found.memory = time.perf_counter() - begin, peak()
    return found


def show_frozen(runs: dict[str, list[Timed]]) -> None:
    """Print what an epoch of the frozen stage costs after the first, and beside Lightning's in the same round."""
    print("| frozen stage | s of the first epoch | s of a later epoch | BackboneFinetuning / this, by rounds |")
    print("|---|---|---|---|")
    medians = {name: [statistics.median(run.epochs[1:] or run.epochs) for run in some] for name, some in runs.items()}
    for name, some in runs.items():
        ratios = [
            theirs / own for theirs, own in zip(medians.get("BackboneFinetuning", []), medians[name], strict=False)
        ]
        print(f"| {name} | {spread([run.epochs[0] for run in some])} | {spread(medians[name])} | {spread(ratios)} |")
    if {"FeatureCache", "BackboneFreezeUnfreeze"} <= set(runs):
        pairs = zip(runs["FeatureCache"][0].losses, runs["BackboneFreezeUnfreeze"][0].losses, strict=True)
        print(f"\nLargest difference of a training loss, cached or not: {max(abs(a - b) for a, b in pairs):.2g}")


def show_whole(runs: dict[str, list[Timed]], args: argparse.Namespace) -> None:
    """Print what whole runs cost, beside the least that one could."""
    print(f"\n| {args.frozen} + {args.tuned} epochs | s | of `by hand` (1 + {args.tuned} epochs), by rounds |")
    print("|---|---|---|")
    for name, some in runs.items():
        least = runs.get("by hand", [])
        ratios = [own.total / hand.total for own, hand in zip(some, least, strict=False)]
        print(f"| {name} | {spread([run.total for run in some])} | {spread(ratios)} |")


def spread(values: list[float]) -> str:
    """Return the median, and the range in brackets."""
    if not values:
        return "n/a"
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
