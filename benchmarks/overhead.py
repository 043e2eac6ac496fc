"""What do the callbacks cost, against the same Trainer without them?

Fits run in turn in one process, A B A B, on the same data and a copy of the same network; the first steps of each are
left out. The ratio is taken pair by pair. For the two optimizer-side callbacks it is the median time of a step; both
fits train the same parameters (everything, or the head alone, frozen by hand in the fit without callbacks).
ForgettingMonitor works between steps, so its ratio is that of the whole fits, and must stay within ``max_overhead``.

    python -m benchmarks.overhead [--pairs 9] [--steps 40]
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR, ForgettingMonitor, load_backbone

# Network, image size in pixels, batch size: a step of some 30 ms, and one of some 300 ms.
CASES = (("embedded/formula_resnet_tiny", 64, 32), ("torchvision/mobilenet_v2", 128, 16))
WARM_UP = 5
MAX_OVERHEAD = 0.05


class Project(pl.LightningModule):
    """Somebody's project: a backbone, a head, AdamW over everything, a schedule that steps with the optimizer."""

    def __init__(self, backbone: nn.Module, num_features: int, hand_frozen: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(num_features, 2)
        self.hand_frozen = hand_frozen
        self.backbone.requires_grad_(not hand_frozen)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ANN401
        """Classify."""
        if self.hand_frozen:
            self.backbone.eval()
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own type is private
        """Return AdamW and a schedule by step."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Clock(pl.Callback):
    """Notes the moment at which each batch begins; comes last, so that it sees all that others do between two."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:  # noqa: ANN401
        """Note the moment."""
        self.moments.append(time.perf_counter())

    def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
        """Note the end."""
        self.moments.append(time.perf_counter())


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    both = {
        "BackboneFreezeUnfreeze": lambda schedule: [BackboneFreezeUnfreeze(schedule, verbose=False)],
        "DiscriminativeLR": lambda _: [DiscriminativeLR()],
        "both": lambda schedule: [BackboneFreezeUnfreeze(schedule, verbose=False), DiscriminativeLR()],
    }
    print("| network | trains | callbacks | ms without, median | ratio, median | min | max |")
    print("|---|---|---|---|---|---|---|")
    for name, size, batch in CASES:
        network, features, data = prepare(name, size, batch, args.steps)
        for trains, schedule in (("everything", "full"), ("the head", "feature_extraction")):
            for label, make in both.items():
                if label == "DiscriminativeLR" and trains == "the head":
                    continue  # without the other callback it has nothing to do with freezing
                times = [
                    (
                        step_time(Project(copy.deepcopy(network), features, trains == "the head"), data, args.steps),
                        step_time(Project(copy.deepcopy(network), features), data, args.steps, make(schedule)),
                    )
                    for _ in range(args.pairs)
                ]
                show(name, trains, label, times, 1000)
        probe = TensorDataset(torch.randn(256, *data.dataset.tensors[0].shape[1:]))

        def monitor(probe: TensorDataset = probe) -> list[pl.Callback]:
            return [ForgettingMonitor(probe, every_n_steps=10, max_overhead=MAX_OVERHEAD, metrics=("cosine", "cka"))]

        times = [
            (
                fit_time(Project(copy.deepcopy(network), features), data, 4 * args.steps, list),
                fit_time(Project(copy.deepcopy(network), features), data, 4 * args.steps, monitor),
            )
            for _ in range(max(3, args.pairs // 3))
        ]
        show(name, "everything", f"ForgettingMonitor, max_overhead={MAX_OVERHEAD}, whole fit", times, 1000)


def show(network: str, trains: str, label: str, times: list[tuple[float, float]], unit: float) -> None:
    """Print a line of the table."""
    ratios = [ours / bare for bare, ours in times]
    bare = statistics.median(first for first, _ in times) * unit
    print(f"| {network} | {trains} | {label} | {bare:.1f} | {statistics.median(ratios):.4f} | {min(ratios):.4f} | "
          f"{max(ratios):.4f} |", flush=True)  # fmt: skip


def prepare(name: str, size: int, batch: int, steps: int) -> tuple[nn.Module, int, DataLoader[Any]]:
    """Return the network, its number of features, and data for ``steps`` batches an epoch."""
    network, _ = load_backbone(name, weights=None if name.startswith("embedded") else "random")
    images = torch.randn(batch * steps, 3, size, size)
    labels = torch.randint(2, (batch * steps,))
    with torch.no_grad():
        features = network.eval()(images[:2]).shape[1]
    return network.train(), features, DataLoader(TensorDataset(images, labels), batch_size=batch)


def step_time(module: Project, data: DataLoader[Any], steps: int, callbacks: list[pl.Callback] | None = None) -> float:
    """Return the median seconds between the beginnings of two steps."""
    clock = Clock()
    run(module, data, steps, [*(callbacks or []), clock])
    gaps = [later - earlier for earlier, later in zip(clock.moments, clock.moments[1:], strict=False)]
    return statistics.median(gaps[WARM_UP:])


def fit_time(module: Project, data: DataLoader[Any], steps: int, make: Callable[[], list[pl.Callback]]) -> float:
    """Return the seconds of a whole fit from its first step to its end."""
    clock = Clock()
    run(module, data, steps, [*make(), clock])
    return clock.moments[-1] - clock.moments[0]


def run(module: Project, data: DataLoader[Any], steps: int, callbacks: list[pl.Callback]) -> None:
    """Fit for a number of steps."""
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks,
    )  # fmt: skip
    trainer.fit(module, data)


if __name__ == "__main__":
    main()
