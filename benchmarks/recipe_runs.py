"""Run a recipe in a process of its own, and say what it printed, how long it took, and what memory it needed."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["ROOT", "Ran", "find_run", "run_recipe", "scratch_options"]

ROOT = Path(__file__).parents[1]


class Ran(NamedTuple):
    """What a verb left behind.

    Attributes:
        output: All that it printed.
        seconds: Wall clock of the whole process.
        megabytes: Its peak memory.
        cpu_seconds: Of all its threads: what it computed, however busy the machine was.
    """

    output: str
    seconds: float
    megabytes: float
    cpu_seconds: float = 0.0

    @property
    def folder(self) -> str:
        """The run folder that the verb names at its end."""
        found: list[str] = re.findall(r"^Run folder: (.+)$", self.output, flags=re.MULTILINE)
        return found[-1].strip()

    @property
    def cost(self) -> dict[str, float]:
        """Seconds and megabytes, as they are stored."""
        return {"seconds": self.seconds, "megabytes": self.megabytes, "cpu_seconds": self.cpu_seconds}


def run_recipe(recipe: str, words: Sequence[str]) -> Ran:
    """Run ``python -m recipes.<recipe> WORDS`` from the root of the checkout.

    Raises:
        SystemExit: With all that was printed, if it fails.
    """
    start = time.perf_counter()
    # glibc gives large blocks back to the system at once, and pays for each page again at the next step.
    keep = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
    process = subprocess.Popen(
        [sys.executable, "-m", f"recipes.{recipe}", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, **keep},
    )  # fmt: skip
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"`{' '.join(words)}` failed:\n{output}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Ran(output, time.perf_counter() - start, usage.ru_maxrss / 1024, cpu_seconds)


def find_run(folder: Path, ways: Sequence[str], number: int, what: str) -> str:
    """Return the run of the first of these ways that is stored for a round: from scratch is a row of its test.

    Raises:
        SystemExit: If none is stored; ``what`` is what the rounds are called.
    """
    for way in ways:
        stored = folder / f"{way}-{number}.json"
        if stored.is_file():
            run: str = json.loads(stored.read_text())["run"]
            return run
    raise SystemExit(
        f"From scratch is a row of a run's test, and {what} {number} has no run: add `{ways[0]}` to `--ways`."
    )


def scratch_options(args: argparse.Namespace) -> list[str]:
    """Return the options of a test that trains from scratch, as the command line of a benchmark gives them."""
    return [
        "--evaluation.baselines=[scratch]",
        f"--evaluation.scratch.learning_rates={json.dumps(args.rates)}",
        *(f"--evaluation.scratch.{name}={getattr(args, name)}" for name in ("trial_epochs", "patience", "max_epochs")),
    ]
