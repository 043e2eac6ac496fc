"""Is the embedded backbone worth having? Fine-tuned from it against the same network from scratch, on magnetic tiles.

Five folds by tile at 64 px. The network from random weights gets its own learning rate, chosen on the validation split
of the first fold, and trains until validation stalls. Scores are pooled over the folds, and differences are paired by
image, with intervals by bootstrap over tiles.

    python -m benchmarks.embedded_transfer --data DIR [--folds 0 1 2 3 4] [--rates 3e-4 1e-3 3e-3]

The linear probes of the same network with and without pretraining: `benchmarks/pretrain_embedded.py --probe-only DIR`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks.magnetic_tile import Rows, groups, print_table, test_rows
from benchmarks.recipe_runs import run_recipe

CONFIGS = Path(__file__).parent / "configs"


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--rates", nargs="*", default=["3e-4", "1e-3", "3e-3"])
    parser.add_argument("--strategies", nargs="*", default=["scratch", "finetuned"])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/embedded_transfer"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Rows] = {}
    costs: dict[str, list[dict[str, float]]] = {}
    for strategy in args.strategies:
        rate = None
        if strategy == "scratch":
            scores = {rate: validation_score(args, rate) for rate in args.rates}
            rate = max(scores, key=lambda key: scores[key])
            text = ", ".join(f"{key} {score:.3f}" for key, score in scores.items())
            print(
                f"scratch: best validation macro-F1 of fold {args.folds[0]} by rate: {text}; taken: {rate}", flush=True
            )
        for fold in args.folds:
            found, cost = run(args, strategy, fold, rate)
            rows.setdefault(strategy, {}).update(test_rows(found, fold))
            costs.setdefault(strategy, []).append(cost)
            print(f"{strategy} fold {fold}: {cost['seconds']:.0f} s", flush=True)
    print_table(rows, costs, groups(args.data), against="scratch")


def validation_score(args: argparse.Namespace, rate: str) -> float:
    """Return the best validation macro-F1 of the first fold with this rate."""
    folder, _ = run(args, "scratch", args.folds[0], rate)
    metrics = json.loads((Path(folder) / "metrics.json").read_text())
    return float(metrics["val_macro_f1"]["value"])


def run(args: argparse.Namespace, strategy: str, fold: int, rate: str | None) -> tuple[str, dict[str, float]]:
    """Fit and test one fold, unless an earlier call did; return the run's folder and what the fit cost."""
    stored = args.out / f"{strategy}-{rate or 'own'}-{fold}.json"
    if not stored.is_file():
        fit = ["fit", "--config", str(CONFIGS / f"magnetic_tile_embedded_{strategy}.yaml"), f"--data.fold={fold}"]
        fit += ["--data.root", str(args.data), "--trainer.enable_progress_bar=false"]
        fit += ["--evaluation.baselines=[majority]"]
        fit += [f"--model.optimizer.init_args.lr={rate}"] if rate else []
        fitted = run_recipe("vision", fit)
        run_recipe("vision", ["test", fitted.folder])
        stored.write_text(json.dumps({"run": fitted.folder, "cost": fitted.cost}))
    result = json.loads(stored.read_text())
    return result["run"], result["cost"]


if __name__ == "__main__":
    main()
