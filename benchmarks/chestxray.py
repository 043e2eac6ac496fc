"""Does adapting tell COVID-19 from other findings on chest X-rays, or does it tell the hospital?

Five folds by patient. In each, `fit` and `test` of the recipe's own configs (the linear layer alone, and LP-FT), and
the same network from random weights as a row of the test of a run that is there: the best of a few rates on validation,
trained until validation stalls. Every choice is made on the validation split. Each test asks the features for the
place; what its verdict says of that is stored and counted. A verb is a process of its own; what was run is kept, and
not run again.

    python -m benchmarks.chestxray --data DIR --weights FILE [--folds 0 1] [--ways probe lp_ft scratch]
        [--image_size 128] [-- FURTHER OPTIONS OF fit]

Scores are pooled over the test folds, with intervals over patients. CPU seconds are those of all threads: they do not
depend on who else uses the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipe_runs import ROOT, Ran, find_run, run_recipe, scratch_options

CONFIGS = ROOT / "recipes" / "medical" / "configs"
WAYS = ("probe", "lp_ft", "scratch")
PAIRS = (("lp_ft", "probe"), ("lp_ft", "scratch"), ("probe", "scratch"))
POSITIVE, PLACE = "covid", "site"

Found = dict[int, dict[str, Any]]
"""Fold -> what was stored of it."""


def main() -> None:
    """Run what is asked for and not there yet; print the tables of everything that is there after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "chestxray"
    weights = Path(os.environ.get("LT_WEIGHTS_DIR", "../shared/weights")) / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(5)), choices=range(5))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--image_size", type=int, help="of all ways; the weights' own, if left out")
    parser.add_argument("--rates", nargs="*", type=float, default=[3e-4, 1e-3, 3e-3], help="of the row from scratch")
    parser.add_argument("--trial_epochs", type=int, default=4, help="of each rate of the row from scratch")
    parser.add_argument("--patience", type=int, default=5, help="of the row from scratch, in epochs")
    parser.add_argument("--max_epochs", type=int, default=60, help="of the row from scratch")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/chestxray"))
    parser.add_argument("overrides", nargs="*", help="further options of every `fit`, after `--`")
    args = parser.parse_args()
    folder = args.out.absolute() / (f"{args.image_size}px" if args.image_size else "own_size")
    folder.mkdir(parents=True, exist_ok=True)
    for fold in args.folds:
        # From scratch last: it is a row of the test of a run that is there.
        for way in sorted(args.ways, key=WAYS.index):
            stored = folder / f"{way}-{fold}.json"
            if stored.is_file():
                continue
            found = scratch(folder, fold, args) if way == "scratch" else adapt(way, fold, args)
            stored.write_text(json.dumps(found))
            print(f"\n{way}, fold {fold}: {found['cost']['cpu_seconds']:.0f} CPU s\n", flush=True)
            print_tables(collect(folder))
    print_tables(collect(folder), verdicts=True)


def adapt(way: str, fold: int, args: argparse.Namespace) -> dict[str, Any]:
    """Fit and test one fold; return its rows, what the fit cost, and what the verdict says of shortcuts."""
    words = ["fit", "--config", str(CONFIGS / f"chestxray_mobilenetv2_{way}.yaml"), f"--data.root={args.data}"]
    words += [f"--model.weights={args.weights}", f"--data.fold={fold}", "--trainer.enable_progress_bar=false"]
    words += [f"--data.image_size={args.image_size}"] if args.image_size else []
    fitted = run_recipe("medical", [*words, *args.overrides])
    tested = run_recipe("medical", [*test_of(fitted.folder), "--evaluation.baselines=[majority, linear_probe]"])
    folder = test_folder(tested)
    judged = json.loads((folder / "evaluation.json").read_text())
    report = json.loads((ROOT / fitted.folder / "report.json").read_text())
    return {
        "run": fitted.folder,
        "cost": fitted.cost,
        "rows": read_rows(folder / "predictions.csv"),
        "shortcuts": (judged.get("shortcuts") or {}).get("shortcuts", []),
        "verdict": [note for note in report["verdict"]["notes"] if "shortcut" in note],
        "tone": report["verdict"]["tone"],
    }


def scratch(folder: Path, fold: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train the same network from random weights, as a row of the test of a run that is there."""
    run = find_run(folder, ("lp_ft", "probe"), fold, "fold")
    ran = run_recipe("medical", [*test_of(run), *scratch_options(args), "--evaluation.shortcut_columns=[]"])
    place = test_folder(ran)
    judged = json.loads((place / "evaluation.json").read_text())
    return {
        "run": run,
        "cost": ran.cost,
        "rows": read_rows(place / "predictions_scratch.csv"),
        "description": judged["descriptions"]["scratch"],
    }


def test_of(run: str) -> list[str]:
    """Return the words that test a run without what this benchmark does not look at."""
    quiet = ["--trainer.enable_progress_bar=false", "--evaluation.latency_batch_sizes=[]", "--evaluation.slices=[]"]
    return ["test", run, *quiet]


def test_folder(ran: Ran) -> Path:
    """Return where a test wrote what it found; a second test of a run has a folder of its own."""
    line = next(line for line in reversed(ran.output.splitlines()) if line.startswith("Written: "))
    return ROOT / Path(line.removeprefix("Written: ").strip()).parent


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return label, patient (a pseudonym) and score of each image."""
    with path.open(newline="", encoding="utf-8") as stream:
        return {
            row["id"]: {"label": row["label"], "patient": row["group"], "score": float(row["score"])}
            for row in csv.DictReader(stream)
        }


def collect(folder: Path) -> dict[str, Found]:
    """Return way -> fold -> what was stored."""
    found: dict[str, Found] = {}
    for way in WAYS:
        for stored in sorted(folder.glob(f"{way}-*.json")):
            found.setdefault(way, {})[int(stored.stem.rpartition("-")[2])] = json.loads(stored.read_text())
    return found


def statistics(rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Return AUROC and average precision of rows as functions of their weights.

    Example:
        >>> rows = [{"label": name, "score": score} for name, score in (("covid", 0.9), ("other", 0.2), ("covid", 0.1))]
        >>> [round(float(each(np.ones((1, 3)))[0]), 3) for each in statistics(rows)]
        [0.5, 0.833]
    """
    from lightning_transfer.metrics import auroc, average_precision

    score, positive = np.array([row["score"] for row in rows]), np.array([row["label"] == POSITIVE for row in rows])
    return (
        lambda weights: auroc(weights, score, positive),
        lambda weights: average_precision(weights, score, positive),
    )


def pooled(found: Found, folds: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Return the rows of folds, all of them if none are named, in the order of the images' names."""
    rows: dict[str, dict[str, Any]] = {}
    for fold in sorted(found) if folds is None else folds:
        rows |= found[fold]["rows"]
    return [rows[name] for name in sorted(rows)]


def warned(found: Found, features: str, column: str = PLACE) -> list[int]:
    """Return the folds in which these features are said to explain the label by a column."""
    return [
        fold
        for fold, item in sorted(found.items())
        if any(
            row["explains"] and row["column"] == column and row["features"] == features
            for row in item.get("shortcuts", ())
        )
    ]


def said(found: Found, column: str = PLACE) -> list[int]:
    """Return the folds whose verdict warns of a column."""
    folds = sorted(found.items())
    return [fold for fold, item in folds if any(f"tell `{column}`" in note for note in item.get("verdict", ()))]


def print_tables(found: Mapping[str, Found], *, verdicts: bool = False) -> None:
    """Print scores, paired differences, and on request what the verdicts say of the place."""
    print_scores(found)
    print_differences(found)
    if verdicts:
        print_verdicts(found)


def print_scores(found: Mapping[str, Found]) -> None:
    """Print AUROC and average precision of each way, pooled and as means of the folds."""
    from lightning_transfer.metrics import cluster_bootstrap

    columns = ["way", "folds", "images", "patients", "AUROC, pooled [95 %]", "AUROC, mean of folds",
               "average precision, pooled [95 %]", "CPU s, median (range)", "peak MB"]  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for way, folds in found.items():
        rows = pooled(folds)
        patients = [row["patient"] for row in rows]
        area, precision = (str(cluster_bootstrap(each, patients)) for each in statistics(rows))
        by_fold = []
        for fold in sorted(folds):
            part = pooled(folds, [fold])
            by_fold.append(float(statistics(part)[0](np.ones((1, len(part))))[0]))
        times = [item["cost"]["cpu_seconds"] for item in folds.values()]
        memory = max(item["cost"]["megabytes"] for item in folds.values())
        mean, seconds = f"{np.mean(by_fold):.3f} ± {np.std(by_fold):.3f}", f"{np.median(times):.0f}"
        cells = [way, len(folds), len(rows), len(set(patients)), area, mean, precision,
                 f"{seconds} ({min(times):.0f} to {max(times):.0f})", f"{memory:.0f}"]  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_differences(found: Mapping[str, Found]) -> None:
    """Print paired differences on the folds that both ways have."""
    from lightning_transfer.metrics import paired_difference

    lines = []
    for ours, theirs in PAIRS:
        both = sorted(set(found.get(ours, {})) & set(found.get(theirs, {})))
        if not both:
            continue
        one, other = (pooled(found[way], both) for way in (ours, theirs))
        patients = [row["patient"] for row in one]
        cells = [
            str(paired_difference(a, b, patients)) for a, b in zip(statistics(one), statistics(other), strict=True)
        ]
        lines.append(f"| {ours} - {theirs} | {len(both)} | {' | '.join(cells)} |")
    if lines:
        print("\n| difference | folds | AUROC [95 %] | average precision [95 %] |\n|---|---|---|---|")
        print("\n".join(lines), flush=True)


def print_verdicts(found: Mapping[str, Found]) -> None:
    """Print in how many folds the place may explain the score, and one verdict in its own words."""
    columns = ["way", "folds", "verdict warns of the place", "by frozen features", "by adapted features"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    quotes = []
    for way, folds in found.items():
        if way == "scratch":
            continue
        cells = [str(len(item)) for item in (said(folds), warned(folds, "frozen"), warned(folds, "adapted"))]
        print(f"| {way} | {len(folds)} | {' | '.join(cells)} |")
        for fold in said(folds)[:1]:
            note = next(note for note in folds[fold]["verdict"] if f"tell `{PLACE}`" in note)
            quotes.append(f"{way}, fold {fold}: {note}")
    descriptions = [f"scratch, fold {fold}: {item['description']}" for fold, item in found.get("scratch", {}).items()]
    print("\n".join(["", *quotes, *descriptions]), flush=True)


if __name__ == "__main__":
    main()
