"""What do the callbacks cost, against the same Trainer without them?

Fits run in turn in one process, A B A B, on the same data and a copy of the same network; the first steps of each are
left out. The ratio is taken pair by pair. For the two optimizer-side callbacks it is the median time of a step; both
fits train the same parameters (everything, or the head alone, frozen by hand in the fit without callbacks). Pairs
differ by some percent for no reason, so what the callbacks cost is also measured in steps that compute next to nothing,
and put beside the real step's time. ForgettingMonitor works between steps, so its ratio is that of the fits from the
first step to the end: checks within ``max_overhead``, which does not count the reference before the first step.

    python -m benchmarks.overhead [--pairs 7] [--steps 30]
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

# Network, image size in pixels, batch size: two sizes of a step.
CASES = (("embedded/formula_resnet_tiny", 64, 32), ("torchvision/mobilenet_v2", 96, 16))
WARM_UP = 5
MAX_OVERHEAD = 0.05


class Project(pl.LightningModule):
    """Somebody's project: a backbone, a head, AdamW over everything, a schedule that steps with the optimizer."""

    def __init__(self, backbone: nn.Module, num_features: int, hand_frozen: bool = False, empty: bool = False) -> None:
        super().__init__()
        self.empty = empty
        self.backbone = backbone
        self.head = nn.Linear(num_features, 2)
        self.hand_frozen = hand_frozen
        self.backbone.requires_grad_(not hand_frozen)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ANN401
        """Classify; an empty step only touches every parameter, so that all have gradients."""
        if self.empty:
            return sum(value.flatten()[0] for value in self.parameters() if value.requires_grad) * 0.0  # type: ignore[return-value]
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
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    cases = [(name, *prepare(name, size, batch, args.steps)) for name, size, batch in CASES]
    print(
        "| network | trains | callbacks | ms of a step | ratio of steps (range) | ms of theirs (range) | % of a step |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, network, features, data in cases:
        for trains, schedule in (("everything", "full"), ("the head", "feature_extraction")):
            for label, make in combinations(schedule).items():
                compare_steps(name, network, features, data, args, trains, label, make)
    print("\n| network | `max_overhead` | s of the fit | ratio of fits (range) | checks / training (range) |")
    print("|---|---|---|---|---|")
    for name, network, features, data in cases:
        compare_fits(name, network, features, data, args)


def combinations(schedule: str) -> dict[str, Callable[[], list[pl.Callback]]]:
    """Return the callbacks to measure; for the head alone, rates by layer have no layers to work on."""
    freeze = BackboneFreezeUnfreeze(schedule, verbose=False)
    found: dict[str, Callable[[], list[pl.Callback]]] = {"BackboneFreezeUnfreeze": lambda: [copy.deepcopy(freeze)]}
    if schedule == "full":
        found["DiscriminativeLR"] = lambda: [DiscriminativeLR()]
    return {**found, "both": lambda: [copy.deepcopy(freeze), DiscriminativeLR()]}


def compare_steps(
    name: str, network: nn.Module, features: int, data: DataLoader[Any], args: argparse.Namespace, trains: str,
    label: str, make: Callable[[], list[pl.Callback]],
) -> None:  # fmt: skip
    """Print a line: real steps in turn, then empty ones."""

    def pair(empty: bool, steps: int) -> tuple[float, float]:
        bare = Project(copy.deepcopy(network), features, trains == "the head", empty)
        ours = Project(copy.deepcopy(network), features, empty=empty)
        return step_time(bare, data, steps), step_time(ours, data, steps, make())

    real = [pair(False, args.steps) for _ in range(args.pairs)]
    empty = [pair(True, 10 * args.steps) for _ in range(args.pairs)]
    ratios, extra = [ours / bare for bare, ours in real], [1000 * (ours - bare) for bare, ours in empty]
    step = 1000 * statistics.median(bare for bare, _ in real)
    cost = statistics.median(extra)
    line = [name, trains, label, f"{step:.1f}", spread(ratios), spread(extra), f"{100 * cost / step:.2f}"]
    print(f"| {' | '.join(line)} |", flush=True)


def compare_fits(name: str, network: nn.Module, features: int, data: DataLoader[Any], args: argparse.Namespace) -> None:
    """Print a line: whole fits in turn, with and without the monitor, and what the checks took by their own clock."""
    probe = TensorDataset(torch.randn(64, *next(iter(data))[0].shape[1:]))
    ratios, shares, bares = [], [], []
    for _ in range(max(3, args.pairs // 2)):
        monitor = ForgettingMonitor(probe, every_n_steps=10, max_overhead=MAX_OVERHEAD, metrics=("cosine", "cka"))
        bare, ours = (Project(copy.deepcopy(network), features) for _ in range(2))
        bares.append(fit_time(bare, data, 5 * args.steps, []))
        seconds = fit_time(ours, data, 5 * args.steps, [monitor])
        checks = sum(report.seconds for report in monitor.history[1:])
        ratios.append(seconds / bares[-1])
        shares.append(checks / (seconds - checks))
    line = [name, str(MAX_OVERHEAD), f"{statistics.median(bares):.1f}", spread(ratios), spread(shares)]
    print(f"| {' | '.join(line)} |", flush=True)


def spread(values: list[float]) -> str:
    """Return the median, and the range in brackets."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


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


def fit_time(module: Project, data: DataLoader[Any], steps: int, callbacks: list[pl.Callback]) -> float:
    """Return the seconds of a fit from its first step to its end."""
    clock = Clock()
    run(module, data, steps, [*callbacks, clock])
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
