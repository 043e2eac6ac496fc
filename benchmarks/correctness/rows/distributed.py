"""Do two processes train the same weights as each other, and as one process?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from benchmarks.correctness.contestants import Contestant, Settings
from benchmarks.correctness.outcome import Case, Row
from benchmarks.correctness.toys import BATCH, Toy, copy_of, largest_difference, loader, trainer

__all__ = ["EPOCHS", "OPEN_AT", "ROWS", "plain"]

ROOT = Path(__file__).parents[3]
EPOCHS, OPEN_AT = 4, 2
TOLERANCE = 1e-6


def plain(module: Toy) -> torch.optim.Optimizer:
    """Return SGD: the mean of two processes' gradients is the gradient of the global batch."""
    return torch.optim.SGD((value for value in module.parameters() if value.requires_grad), lr=0.1)


def measure_ddp(contestant: Contestant, folder: Path) -> tuple[bool, str]:
    """Train on two processes with half batches, and on one with whole ones."""
    command = [sys.executable, "-m", "benchmarks.correctness.ddp_process", contestant.name, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line] or ["no message"]
        text = next((line for line in reversed(lines) if "Error" in line or "Exception" in line), lines[-1])
        if "MisconfigurationException" in text:
            raise MisconfigurationException(text.partition(": ")[2])
        raise RuntimeError(text)
    left, right = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    single = Toy(plain)
    start = copy_of(single)
    wish = Settings(folder / "single", EPOCHS, OPEN_AT)
    trainer(contestant.callbacks(wish), EPOCHS).fit(single, loader(BATCH), loader(BATCH))
    between, beside = largest_difference(left, right), largest_difference(left, copy_of(single))
    trained = all(not torch.equal(value, start[name]) for name, value in left.items())
    text = f"{between:.1e} between ranks, {beside:.1e} from one process" + ("" if trained else ", some never train")
    return between == 0 and beside <= TOLERANCE and trained, text


ROWS = (
    Row(
        "ddp",
        "DDP, 2 processes: weights opened after the start are equal on all ranks",
        f"0 between ranks, at most {TOLERANCE:g} from one process with the same global batch (SGD), all move",
        (Case("", measure_ddp),),
    ),
)
