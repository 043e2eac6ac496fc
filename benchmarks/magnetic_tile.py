"""How well do the strategies of recipes/vision do on magnetic tiles, five folds by tile, and at what cost?

Each fold is a `fit` and a `test` of the recipe's own configs in processes of their own: every choice is made on the
validation split, the test fold is read once. Time and peak memory are those of the whole `fit` process.

    python -m benchmarks.magnetic_tile --data DIR --weights FILE [--strategies probe lp_ft gradual] [--folds 0 1 2 3 4]

`reference` is a logistic regression on the frozen features, trained on everything but the test fold (scikit-learn,
standardised features, no choice to make), which is what the figure in the data's README was measured with.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipe_runs import ROOT, run_recipe

CONFIGS = ROOT / "recipes" / "vision" / "configs"
NEGATIVE = "free"

Rows = dict[str, dict[str, Any]]


def main() -> None:
    """Run what is asked for, then print the table of everything that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "magnetic_tile"
    weights = Path(os.environ.get("LT_WEIGHTS_DIR", "../shared/weights")) / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--strategies", nargs="*", default=["probe", "lp_ft", "gradual"])
    parser.add_argument("--folds", nargs="*", type=int, default=list(range(5)))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/magnetic_tile"))
    parser.add_argument("--skip_reference", action="store_true")
    parser.add_argument("overrides", nargs="*", help="further options of `fit`, after `--`")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    rows: dict[str, Rows] = {}
    costs: dict[str, list[dict[str, float]]] = {}
    if not args.skip_reference:
        rows["reference"] = reference(args.data, args.weights, args.folds)
    for strategy in args.strategies:
        for fold in args.folds:
            found, cost = run_fold(strategy, fold, args)
            rows.setdefault(strategy, {}).update(found)
            costs.setdefault(strategy, []).append(cost)
            print(f"{strategy} fold {fold}: {cost['seconds']:.0f} s, {cost['megabytes']:.0f} MB", flush=True)
            print_table(rows, costs, groups(args.data))


def run_fold(strategy: str, fold: int, args: argparse.Namespace) -> tuple[Rows, dict[str, float]]:
    """Fit and test one fold, unless an earlier call did; return its test rows and what the fit cost."""
    stored = args.out / f"{strategy}-{fold}.json"
    if not stored.is_file():
        fit = ["fit", "--config", str(CONFIGS / f"magnetic_tile_mobilenetv2_{strategy}.yaml")]
        fit += ["--data.root", str(args.data), "--model.weights", str(args.weights), f"--data.fold={fold}"]
        fit += ["--trainer.enable_progress_bar=false", "--evaluation.baselines=[majority]", *args.overrides]
        fitted = run_recipe("vision", fit)
        tested = run_recipe("vision", ["test", fitted.folder])
        result = {"run": fitted.folder, "test": last_line(tested.output), "cost": fitted.cost}
        stored.write_text(json.dumps(result))
    result = json.loads(stored.read_text())
    return test_rows(result["run"], fold), result["cost"]


def test_rows(run: str, fold: int) -> Rows:
    """Read what the test of a run said of each image."""
    folder = max(Path(run).glob("test*"))
    with (folder / "predictions.csv").open(newline="") as stream:
        return {
            row["id"]: {**{key: row[key] for key in ("label", "predicted")}, "score": float(row["score"]), "fold": fold}
            for row in csv.DictReader(stream)
        }


def last_line(output: str) -> str:
    """Return the last line of an output."""
    return output.strip().splitlines()[-1]


def reference(data: Path, weights: Path, folds: Iterable[int]) -> Rows:
    """Fit logistic regression on frozen features of all but the test fold; return its test rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from lightning_transfer import load_backbone
    from lightning_transfer.evaluation import collect_features
    from recipes.vision.data import VisionDataModule

    backbone, card = load_backbone("torchvision/mobilenet_v2", weights=weights)
    rows: Rows = {}
    features: dict[str, Any] = {}
    for fold in folds:
        datamodule = VisionDataModule(
            root=str(data), manifest="manifest.csv", group_column="tile_group", negative_class=NEGATIVE, num_folds=5,
            fold=fold, check_data=False,
        )  # fmt: skip
        datamodule.use_card(card)
        datamodule.setup("fit")
        if not features:
            for split in ("train", "val", "calibration", "test"):
                found = collect_features(backbone, datamodule.ordered_dataloader(split))
                features.update(zip((r.id for r in datamodule.records_for(split)), found.features, strict=True))
        test = datamodule.records_for("test")
        rest = [record for record in datamodule.records if record.split != "test"]
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=1.0, class_weight="balanced"))
        probe.fit(np.stack([features[r.id] for r in rest]), [str(r.label) for r in rest])
        inputs = np.stack([features[r.id] for r in test])
        scores = 1.0 - probe.predict_proba(inputs)[:, list(probe.classes_).index(NEGATIVE)]
        for record, predicted, score in zip(test, probe.predict(inputs), scores, strict=True):
            rows[record.id] = {
                "label": record.label, "predicted": str(predicted), "score": float(score), "fold": fold,
            }  # fmt: skip
    return rows


def groups(data: Path) -> dict[str, str]:
    """Return the tile of each image."""
    with (data / "manifest.csv").open(newline="") as stream:
        return {row["path"]: row["tile_group"] for row in csv.DictReader(stream)}


def print_table(
    rows: dict[str, Rows], costs: dict[str, list[dict[str, float]]], tiles: dict[str, str], against: str = "probe"
) -> None:
    """Print scores pooled over the folds, with intervals over tiles, and paired differences from one strategy."""
    from lightning_transfer.metrics import auroc, class_counts, cluster_bootstrap, macro_f1, paired_difference

    columns = ["strategy", "folds", "macro-F1, mean of folds", "macro-F1, pooled [95 %]", "AUROC, mean of folds",
               "AUROC, pooled [95 %]", f"macro-F1 against {against} [95 %]", f"AUROC against {against} [95 %]",
               "fit: s, median (range)", "peak MB"]  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    classes = sorted({row["label"] for found in rows.values() for row in found.values()})

    def statistics(found: Rows, names: list[str]) -> tuple[Any, Any]:
        label = np.array([classes.index(found[name]["label"]) for name in names])
        predicted = np.array([classes.index(found[name]["predicted"]) for name in names])
        score = np.array([found[name]["score"] for name in names])
        defect = np.array([found[name]["label"] != NEGATIVE for name in names])
        return (
            lambda weights: macro_f1(class_counts(weights, predicted, label, len(classes))),
            lambda weights: auroc(weights, score, defect),
        )

    for strategy, found in rows.items():
        names = sorted(found)
        f1, area = statistics(found, names)
        tile = [tiles[name] for name in names]
        by_fold = []
        for fold in sorted({row["fold"] for row in found.values()}):
            part = [name for name in names if found[name]["fold"] == fold]
            by_fold.append([float(each(np.ones((1, len(part))))[0]) for each in statistics(found, part)])
        mean, spread = np.mean(by_fold, axis=0), np.std(by_fold, axis=0)
        differences = " | "
        if strategy not in ("reference", against) and set(rows.get(against, {})) == set(names):
            pairs = zip((f1, area), statistics(rows[against], names), strict=True)
            differences = " | ".join(str(paired_difference(ours, other, tile)) for ours, other in pairs)
        cost = costs.get(strategy, [])
        times = [item["seconds"] for item in cost]
        seconds = f"{np.median(times):.0f} ({min(times):.0f} to {max(times):.0f})" if cost else ""
        memory = f"{max(item['megabytes'] for item in cost):.0f}" if cost else ""
        print(f"| {strategy} | {len(by_fold)} | {mean[0]:.3f} ± {spread[0]:.3f} | {cluster_bootstrap(f1, tile)} | "
              f"{mean[1]:.3f} ± {spread[1]:.3f} | {cluster_bootstrap(area, tile)} | {differences} | {seconds} | "
              f"{memory} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
