"""Does a recipe's fit that is killed at any moment and resumed end with the weights of the uninterrupted one?

The vision recipe runs on generated surfaces with everything that is random or has a state: shuffling, augmentation,
dropout, BatchNorm layers that open on the way, OneCycle by step, all three callbacks, and a checkpoint every few steps.
Each run is killed (SIGKILL) twice, at a step and a delay drawn from a seed, or while a checkpoint is being written; it
goes on each time from its last whole checkpoint, in a new process, as a user would call it. At its end its weights and
states are compared, bit for bit, with those of a run that nobody disturbed.

    python -m benchmarks.kill_and_resume [--runs 10] [--kills 2] [--writing 5] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

ROOT = Path(__file__).parents[1]
EPOCHS = 4

CONFIG = """
seed_everything: 0
model:
  backbone: embedded/formula_resnet_tiny
  head_norm: batchnorm
  head_dropout: 0.3
  optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-3}}}}
  scheduler:
    class_path: torch.optim.lr_scheduler.OneCycleLR
    init_args: {{max_lr: 3.0e-3, total_steps: 60}}
  scheduler_interval: step
data:
  root: {data}
  manifest: manifest.csv
  group_column: group
  negative_class: good
  image_size: 32
  batch_size: 8
  augmentations: [horizontal_flip, vertical_flip, rotate_90]
checkpoint: {{every_n_train_steps: 3}}
trainer:
  max_epochs: {epochs}
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  default_root_dir: {runs}
  callbacks:
    - class_path: lightning_transfer.BackboneFreezeUnfreeze
      init_args: {{schedule: gradual}}
    - class_path: lightning_transfer.DiscriminativeLR
    - class_path: lightning_transfer.ForgettingMonitor
      init_args: {{probe: target, metrics: [cosine, cka], n_probe: 16, max_overhead: null}}
    - class_path: benchmarks.kill_and_resume.SayStep
"""


class SayStep(Callback):
    """Print each step, so that another process knows where this one stands."""

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Print the number of steps done."""
        print(f"STEP {trainer.global_step}", flush=True)


@dataclass
class Kill:
    """One row of the table."""

    number: int
    run: int
    moment: str
    resumed: str = ""
    difference: float = float("nan")
    states: str = ""

    def row(self) -> str:
        """Return a line of the table."""
        equal = "equal" if self.difference == 0 else f"{self.difference:.2g} apart"
        return f"| {self.number} | {self.run} | {self.moment} | {self.resumed} | {equal} | {self.states} |"


@dataclass
class Run:
    """A run's folders on disk, and the words that start or resume it."""

    folder: Path
    data: Path
    kills: list[Kill] = field(default_factory=list)

    def config(self) -> Path:
        """Write the config and return its path."""
        path = self.folder / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIG.format(data=self.data, runs=self.folder / "runs", epochs=EPOCHS))
        return path

    def last(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the ``last.ckpt`` that is furthest on, and what it holds; fail if any checkpoint is not whole."""
        paths = sorted(self.folder.glob("runs/vision/*/checkpoints/*.ckpt"))
        states = {path: torch.load(path, weights_only=True) for path in paths}
        found = [item for item in states.items() if item[0].name == "last.ckpt"]
        return max(found, key=lambda item: item[1]["global_step"], default=None)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the fit, or go on from the last whole checkpoint as the documentation says."""
        last = self.last()
        words = ["--config", str(self.config())]
        if last is not None:
            path, _ = last
            words = ["--config", str(path.parents[1] / "config.yaml"), "--ckpt_path", str(path)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self.output.open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "recipes.vision", "fit", *words],
                cwd=self.folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def output(self) -> Path:
        """What the process prints."""
        return self.folder / "output.txt"

    def step(self) -> int:
        """Return the step that the process is in; -1 before its first."""
        steps = [line for line in self.output.read_text().splitlines() if line.startswith("STEP ")]
        return int(steps[-1].split()[1]) if steps else -1

    def ended(self, process: subprocess.Popen[bytes]) -> None:
        """Fail unless a process that nobody killed ended well."""
        if process.returncode:
            raise SystemExit(f"the fit failed ({process.returncode}):\n{self.output.read_text()}")

    def halves(self) -> list[Path]:
        """Return the files that are being written now, or were when their process died."""
        return list(self.folder.glob("runs/vision/*/checkpoints/.*.part"))

    def finish(self) -> dict[str, Any]:
        """Run to the end; return what the last checkpoint holds."""
        process = self.start()
        process.wait()
        self.ended(process)
        last = self.last()
        assert last is not None
        return last[1]


def kill_at_step(run: Run, rng: random.Random, first: int, steps: int) -> str | None:
    """Kill a moment after a step; None if the fit was over by then."""
    process, wanted, delay = run.start(), rng.randrange(first, steps), rng.random() * 0.15
    while process.poll() is None and run.step() < wanted:
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        return run.ended(process)
    half = " (while it wrote a checkpoint)" if clear(run.halves()) else ""
    return f"in step {run.step()}{half}"


def kill_while_writing(run: Run, rng: random.Random, first: int, steps: int) -> str | None:
    """Kill while a checkpoint is half written: the process is stopped first, to be sure of it."""
    process, wanted = run.start(), rng.randrange(1, (steps - first) // 4 + 2)
    seen = 0
    while process.poll() is None:
        if not run.halves():
            continue
        seen += 1
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.01)
        found = run.halves()
        if found and seen >= wanted:
            size, name = found[0].stat().st_size, found[0].name.split(".ckpt")[0].lstrip(".")
            process.kill()
            process.wait()
            # A stopped process renames nothing: what was half is half.
            assert clear(run.halves()) == len(found)
            return f"while writing `{name}.ckpt`, {size / 1e6:.1f} MB of it"
        process.send_signal(signal.SIGCONT)
        while process.poll() is None and found and run.halves() == found:
            time.sleep(0.001)
    return run.ended(process)


def clear(files: Sequence[Path]) -> int:
    """Remove half-written files and return how many there were."""
    for path in files:
        path.unlink()
    return len(files)


def compare(left: dict[str, Any], right: dict[str, Any]) -> tuple[float, str]:
    """Return the largest difference of the weights, and which other states are equal."""
    a, b = left["state_dict"], right["state_dict"]
    assert a.keys() == b.keys()
    largest = max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
    if not all(same(a[name], b[name]) for name in a):
        largest = max(largest, 5e-324)  # a difference that the subtraction does not show
    parts = {"optimizer": "optimizer_states", "schedule": "lr_schedulers"}
    equal = {name: same(left[key], right[key]) for name, key in parts.items()}
    for name in ("ExactResume", "ForgettingMonitor", "BackboneFreezeUnfreeze"):
        equal[name] = same(*(_without_clocks(_callback(end, name)) for end in (left, right)))
    differs = [name for name, value in equal.items() if not value]
    return largest, f"differ: {', '.join(differs)}" if differs else "equal"


def _callback(end: dict[str, Any], name: str) -> Any:  # noqa: ANN401 - any state
    return next((state for key, state in end["callbacks"].items() if key.startswith(name)), None)


def _without_clocks(state: Any) -> Any:  # noqa: ANN401 - a tree
    if isinstance(state, dict):
        return {key: _without_clocks(value) for key, value in state.items() if "seconds" not in key and key != "cost"}
    return [_without_clocks(value) for value in state] if isinstance(state, list) else state


def same(left: Any, right: Any) -> bool:  # noqa: ANN401 - trees
    """Compare trees of plain values and tensors, bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def measure(place: Path, runs: int, kills: int, writing: int, seed: int) -> Iterator[Kill]:
    """Kill and resume; yield the rows of each run when it has ended."""
    from recipes.vision.surfaces import write_surfaces

    data = write_surfaces(place / "data", num_lots=16, images_per_lot=8, size=32)
    rng = random.Random(seed)
    whole = Run(place / "whole", data).finish()
    steps = int(whole["global_step"])
    print(f"uninterrupted: {EPOCHS} epochs, {steps} steps", flush=True)
    during = set(rng.sample(range(runs * kills), writing))
    for number in range(runs):
        run = Run(place / f"run{number + 1}", data)
        first = 0
        for count in range(number * kills, (number + 1) * kills):
            kill, moment = kill_while_writing if count in during else kill_at_step, None
            while (moment := kill(run, rng, first, steps)) is None:
                # It ended before its moment came: away with it, and once more.
                shutil.rmtree(max(run.folder.glob("runs/vision/*"), key=lambda path: path.stat().st_mtime))
            last = run.last()
            state = last[1] if last is not None else {"epoch": 0, "global_step": 0}
            first = state["global_step"]
            run.kills.append(Kill(count + 1, number + 1, moment, f"epoch {state['epoch']}, step {first}"))
        difference, states = compare(whole, run.finish())
        for row in run.kills:
            row.difference, row.states = difference, states
            yield row


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=2, help="of each run")
    parser.add_argument("--writing", type=int, default=5, help="of all kills: while a checkpoint is written")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.monotonic()
    rows: list[Kill] = []
    with tempfile.TemporaryDirectory() as folder:
        print("| kill | run | killed | went on from | weights at the end | other states |")
        print("|---|---|---|---|---|---|", flush=True)
        for row in measure(Path(folder), args.runs, args.kills, args.writing, args.seed):
            rows.append(row)
            print(row.row(), flush=True)
    equal = sum(row.difference == 0 and row.states == "equal" for row in rows)
    print(f"\n{equal} of {len(rows)} equal, in {time.monotonic() - start:.0f} s")
    sys.exit(equal != len(rows))


if __name__ == "__main__":
    main()
