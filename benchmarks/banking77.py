"""How well do the strategies of recipes/nlp do on banking77, and do they know what they were never shown?

Each row is a `fit` and a `test` of one of the recipe's own configs, for several seeds; a seed draws the validation
split, too. Every choice is made on validation, the official test file is read once by each run. Time and peak memory
are those of the whole `fit` process. Once validation has chosen the number of epochs, its tickets can be learnt from
too: ``--out FOLDER -- --data.val_fraction 0 --trainer.max_epochs N``.

    python -m benchmarks.banking77 --data DIR [--configs probe gradual lora] [--seeds 0 1 2] [-- FURTHER OPTIONS]
    python -m benchmarks.banking77 --data DIR --hold_out 20 --configs gradual --seeds 0

With ``--hold_out`` so many intents, drawn by the seed, become out of scope: near ones, since all are about a bank.
Nothing learns from them; those of the training file choose the score that tells them, and those of the test file judge.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipe_runs import ROOT, run_recipe

CONFIGS = ROOT / "recipes" / "nlp" / "configs"
OUTSIDE = "out_of_scope"


def main() -> None:
    """Run what is asked for and not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "banking77"
    )
    parser.add_argument("--configs", nargs="*", default=["probe", "gradual", "lora"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--hold_out", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/banking77"))
    parser.add_argument("overrides", nargs="*", help="further options of `fit`, after `--`")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for config in args.configs:
        for seed in args.seeds:
            rows.setdefault(config, []).append(run(config, seed, args))
            print(f"{config}, seed {seed}: {rows[config][-1]['run']}", flush=True)
    print_accuracies(rows)
    if args.hold_out:
        print_routing(rows)


def run(config: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Fit and test once, unless an earlier call did; return where the run is, and what the fit cost."""
    stored = args.out / f"{config}-{seed}-{args.hold_out}.json"
    if not stored.is_file():
        files = {split: args.data / f"{split}.csv" for split in ("train", "test")}
        options = []
        if args.hold_out:
            files = hold_out(files, args.hold_out, seed, args.out)
            options = [f"--data.out_of_scope={OUTSIDE}"]
        words = ["fit", "--config", str(CONFIGS / f"banking77_minilm_{config}.yaml"), *options]
        words += [f"--data.file={files['train']}", f"--data.test_file={files['test']}", f"--seed_everything={seed}"]
        words += [f"--data.split_seed={seed}", "--trainer.enable_progress_bar=false", *args.overrides]
        fitted = run_recipe("nlp", words)
        run_recipe("nlp", ["test", fitted.folder, "--evaluation.baselines=[majority]"])
        stored.write_text(json.dumps({"run": fitted.folder, "cost": fitted.cost}))
    found: dict[str, Any] = json.loads(stored.read_text())
    return found


def hold_out(files: dict[str, Path], count: int, seed: int, folder: Path) -> dict[str, Path]:
    """Write both tables with ``count`` intents, drawn by the seed, as out of scope."""
    rows = {split: list(csv.DictReader(path.open(newline="", encoding="utf-8"))) for split, path in files.items()}
    names = sorted({row["category"] for row in rows["train"]})
    drawn = set(np.random.default_rng(seed).choice(names, count, replace=False))
    found = {}
    for split, known in rows.items():
        found[split] = folder / f"{split}-{seed}-{count}.csv"
        with found[split].open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["text", "category"])
            writer.writeheader()
            for row in known:
                writer.writerow({**row, "category": OUTSIDE if row["category"] in drawn else row["category"]})
    return found


def evaluation(run: str) -> dict[str, Any]:
    """Return what the run's test found."""
    found: dict[str, Any] = json.loads((ROOT / run / "test" / "evaluation.json").read_text())
    return found


def print_accuracies(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Print accuracy and macro-F1 on the test file, with their spread over the seeds, and what the fits cost."""
    print("| config | seeds | accuracy, mean ± sd (range) | macro-F1 | ECE | fit: s (range) | CPU s | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    for config, runs in rows.items():
        metrics = [evaluation(item["run"])["metrics"] for item in runs]
        columns = [[found[name]["value"] for found in metrics] for name in ("accuracy", "macro_f1", "ece")]
        right, f1, ece = map(np.array, columns)
        spread = f" ± {right.std(ddof=1):.4f} ({right.min():.4f} to {right.max():.4f})" if len(runs) > 1 else ""
        seconds = [item["cost"]["seconds"] for item in runs]
        cores = np.median([item["cost"]["cpu_seconds"] for item in runs])
        memory = max(item["cost"]["megabytes"] for item in runs)
        print(f"| {config} | {len(runs)} | {right.mean():.4f}{spread} | {f1.mean():.4f} | {ece.mean():.3f} | "
              f"{np.median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f}) | "
              f"{cores:.0f} | {memory:.0f} |")  # fmt: skip


def print_routing(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Print how well each score tells what is out of scope, and what is routed, with intervals, for each run."""
    print("\n| config | score | AUROC | FPR at 95 % TPR | chosen |\n|---|---|---|---|---|")
    for config, runs in rows.items():
        for item in runs:
            for name, score in evaluation(item["run"])["routing"]["out_of_scope"]["scores"].items():
                chosen = "yes" if score["chosen"] else ""
                print(f"| {config} | {name} | {shown(score['auroc'])} | {shown(score['fpr95'])} | {chosen} |")
    print("\n| config | in-scope accuracy | in scope covered at 95 % | routed | right of these | found foreign |")
    print("|---|---|---|---|---|---|")
    for config, runs in rows.items():
        for item in runs:
            found = evaluation(item["run"])["routing"]
            outside = found["out_of_scope"]
            alone = found["coverage_at_precision"].get("0.95")
            covered = "n/a" if alone is None else f"{alone:.3f}"
            print(f"| {config} | {shown(outside['in_scope_accuracy'])} | {covered} | "
                  f"{shown(found['coverage_at_target'])} | {shown(found['precision_of_routed'])} | "
                  f"{shown(outside['recall'])} |")  # fmt: skip


def shown(interval: dict[str, Any]) -> str:
    """Return a value with its interval.

    Example:
        >>> shown({"value": 0.91234, "low": 0.9, "high": 0.92})
        '0.912 [0.900, 0.920]'
    """
    if interval.get("value") is None:
        return "n/a"
    ends = "" if interval.get("low") is None else f" [{interval['low']:.3f}, {interval['high']:.3f}]"
    return f"{interval['value']:.3f}{ends}"


if __name__ == "__main__":
    main()
