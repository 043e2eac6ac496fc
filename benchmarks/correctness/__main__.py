"""Where are today's tools wrong, and are these callbacks right there?

    python -m benchmarks.correctness [--rows KEY ...] [--contestants NAME ...] [--json FILE]

Needs finetuning-scheduler for its column: `pip install 'lightning-transfer[peers]'`. Exit code 1 if ours is not right
somewhere.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "lightning", "finetuning-scheduler", "transformers", "lightning-transfer")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, and return the exit code."""
    from benchmarks.correctness.contestants import CONTESTANTS
    from benchmarks.correctness.outcome import Outcome, cell, judge
    from benchmarks.correctness.rows import ROWS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys, names = [row.key for row in ROWS], [item.name for item in CONTESTANTS]
    parser.add_argument("--rows", nargs="+", choices=keys, default=keys, metavar="KEY", help=", ".join(keys))
    parser.add_argument("--contestants", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measured value there, too")
    chosen = parser.parse_args(arguments)
    contestants = [item for item in CONTESTANTS if item.name in chosen.contestants]
    for item in [item for item in contestants if version(item.package) is None]:
        print(f"{item.name} is left out: {item.package} is not installed.", file=sys.stderr)
        contestants.remove(item)
    rows = [row for row in ROWS if row.key in chosen.rows]
    results: dict[str, dict[str, dict[str, Outcome]]] = {}
    for place, row in enumerate(rows, start=1):
        start = time.perf_counter()
        results[row.key] = {who.name: {case.name: judge(case, who) for case in row.cases} for who in contestants}
        seconds = time.perf_counter() - start
        print(f"{place}/{len(rows)} {row.key}: {seconds:.0f} s", file=sys.stderr, flush=True)
    print(", ".join(f"{name} {found}" for name, found in versions().items()), end="\n\n")
    print(f"| condition | {' | '.join(item.name for item in contestants)} |")
    print(f"|{' --- |' * (len(contestants) + 1)}")
    for row in rows:
        print(f"| {row.title} | {' | '.join(cell(results[row.key][item.name]) for item in contestants)} |")
    print("\nRules:\n" + "\n".join(f"- {row.title}: {row.rule}." for row in rows))
    if chosen.json:
        chosen.json.write_text(json.dumps(as_data(results), indent=1))
    ours = [outcome for row in results.values() for outcome in row.get("ours", {}).values()]
    return int(any(outcome.verdict != "right" for outcome in ours))


def versions() -> dict[str, str]:
    """Return what was measured with."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: text or "not installed" for name, text in found.items()}}


def version(package: str) -> str | None:
    """Return the installed version of a distribution; None if there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def as_data(results: dict[str, Any]) -> dict[str, Any]:
    """Return everything as plain values."""
    rows = {
        key: {name: {case: asdict(outcome) for case, outcome in cases.items()} for name, cases in columns.items()}
        for key, columns in results.items()
    }
    return {"versions": versions(), "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
