"""How much later than bare LightningCLI does the recipe's `fit` reach its first step, and how fast does help answer?

Both are given the same module, data, and callbacks-free trainer; the data checks are off in both. They run in turn,
A B A B, each in a fresh process, and the ratio is taken pair by pair.

    python -m benchmarks.startup [--pairs 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Stops the process as soon as the first step begins, and says when that was.
STOP = """
import os, sys, time
from lightning.pytorch import Callback

class StopAtFirstStep(Callback):
    def on_train_batch_start(self, *_):
        print("FIRST STEP", time.time(), flush=True)
        os._exit(0)
"""

BARE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from lightning.pytorch.cli import LightningCLI
from recipes.vision.data import VisionDataModule
from recipes.vision.module import VisionModule
LightningCLI(VisionModule, VisionDataModule, auto_configure_optimizers=False)
"""

OURS = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from lightning_transfer.cli import main
from recipes.vision.cli import RECIPE
sys.exit(main(RECIPE))
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "stopper.py").write_text(STOP)
        prepare(place)
        first_step(OURS, place)  # file caches are warm for both
        times = [(first_step(BARE, place), first_step(OURS, place)) for _ in range(args.pairs)]
    ratios = [ours / bare for bare, ours in times]
    print("| | median s | min | max |\n|---|---|---|---|")
    for name, values in (("bare LightningCLI", [a for a, _ in times]), ("recipes.vision fit", [b for _, b in times])):
        print(
            f"| {name}, to the first step | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |"
        )
    print(f"| ratio, pair by pair | {statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |")
    helps = [timed([sys.executable, "-m", "recipes.vision", "--help"]) for _ in range(args.pairs)]
    print(row("`--help`", helps))


def row(name: str, values: list[float]) -> str:
    """Return a line of the table."""
    return f"| {name} | {statistics.median(values):.3f} | {min(values):.3f} | {max(values):.3f} |"


def prepare(place: Path) -> None:
    """Draw the data once, so that neither has to."""
    code = "import sys; from pathlib import Path; from recipes.vision.surfaces import write_surfaces; "
    subprocess.run([sys.executable, "-c", f"{code}write_surfaces(Path(sys.argv[1]))", str(place / "data")],
                   cwd=ROOT, check=True)  # fmt: skip


def first_step(program: str, place: Path) -> float:
    """Return the seconds from the start of a process to its first training step."""
    words = ["fit", "--model.backbone=embedded/formula_resnet_tiny", f"--data.root={place / 'data'}"]
    words += ["--data.manifest=manifest.csv", "--data.negative_class=good", "--check_data=false"]
    words += ["--trainer.callbacks=stopper.StopAtFirstStep", "--trainer.enable_progress_bar=false"]
    words += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={place / 'runs'}"]
    start = time.time()
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(place), *words], cwd=place, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if line.startswith("FIRST STEP")]
    if not found:
        raise SystemExit(f"no first step:\n{done.stdout}\n{done.stderr}")
    return float(found[-1].split()[-1]) - start


def timed(command: list[str]) -> float:
    """Return the wall-clock seconds of a command."""
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
