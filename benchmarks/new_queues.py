"""A router of 70 queues gets 7 more: what do the old ones lose, and are the new ones as good as if trained with them?

Of banking77's 77 intents 7 are drawn as new ones. Trained are: `old`, a router of the other 70; `joint`, a router of
all 77 at once, which is what the new ones are measured against; and for each rehearsed share an expansion of `old` by
the 7, at each of a few learning rates, of which the one with the best macro-F1 on validation counts. Each training is
a `fit` of the recipe in a process of its own, kept in a folder, and not run again; the official test tickets are read
by the chosen runs alone.

    python -m benchmarks.new_queues --data DIR [--parts old expand joint] [--shares 0 0.8] [--rates 5e-5 2e-4]
        [-- --trainer.precision bf16-mixed]

All accuracies decide among all 77 queues, but for the old router's own, which knows 70.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.recipe_runs import ROOT, run_recipe

OLD_CONFIG = ROOT / "recipes" / "nlp" / "configs" / "banking77_minilm_gradual.yaml"
NEW_CONFIG = ROOT / "benchmarks" / "configs" / "new_queues.yaml"
COLUMNS = ["--data.id_column=id", "--data.body_column=body", "--data.label_column=queue"]

Predicted = dict[str, tuple[str, str]]
"""Test ticket's id -> its queue, and the one that it was given."""


class Tables(NamedTuple):
    """Training and test table of the old queues, the new ones, and all."""

    old: tuple[Path, Path]
    new: tuple[Path, Path]
    all: tuple[Path, Path]
    names: list[str]
    """The new queues."""


def main() -> None:
    """Run what is asked for and not there yet, then print the table of everything that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "banking77"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/new_queues"))
    parser.add_argument("--seed", type=int, default=0, help="of the choice of new queues, and of the trainings")
    parser.add_argument("--num_new", type=int, default=7)
    parser.add_argument("--parts", nargs="*", default=["old", "expand", "joint"], choices=["old", "expand", "joint"])
    parser.add_argument("--shares", nargs="*", type=float, default=[0.0, 0.8])
    parser.add_argument("--rates", nargs="*", type=float, default=[5e-5, 2e-4])
    parser.add_argument("--config", type=Path, default=OLD_CONFIG, help="trains the 70, and the 77")
    parser.add_argument("--expand_config", type=Path, default=NEW_CONFIG)
    parser.add_argument("overrides", nargs="*", help="further options of every `fit`, after `--`")
    args = parser.parse_args()
    folder = args.out / f"seed{args.seed}"
    tables = write_tables(args.data, folder / "tables", seed=args.seed, num_new=args.num_new)
    shared = [*COLUMNS, f"--seed_everything={args.seed}", "--trainer.enable_progress_bar=false", *args.overrides]
    both = ["fit", "--config", str(args.config), "--evaluation.baselines=[majority]", *shared]
    if "old" in args.parts:
        fit(folder / "old.json", [*both, *files(tables.old)])
    if "joint" in args.parts:
        fit(folder / "joint.json", [*both, *files(tables.all)])
    if "expand" in args.parts and (folder / "old.json").is_file():
        run = json.loads((folder / "old.json").read_text())["run"]
        for share in args.shares:
            for rate in args.rates:
                words = ["fit", "--config", str(args.expand_config), f"--model.expand_from={run}", *files(tables.new)]
                words += [f"--data.rehearsal_file={tables.old[0]}", f"--data.rehearsal_test_file={tables.old[1]}"]
                words += [f"--data.rehearsal_share={share}", f"--model.optimizer.init_args.lr={rate}", *shared]
                fit(folder / f"expand-{share:g}-{rate:g}.json", words)
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    print_table(chosen(found), tables.names)


def write_tables(data: Path, folder: Path, *, seed: int, num_new: int) -> Tables:
    """Write banking77 as tables of old, new and all intents; ids are the same in each of them."""
    rows = {split: list(read(data / f"{split}.csv")) for split in ("train", "test")}
    names = sorted({row["category"] for row in rows["train"]})
    new = sorted(str(name) for name in np.random.default_rng(seed).choice(names, num_new, replace=False))
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Path]] = {"old": [], "new": [], "all": []}
    for split, tickets in rows.items():
        for part, paths in found.items():
            path = folder / f"{part}_{split}.csv"
            with path.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(("id", "body", "queue"))
                for place, row in enumerate(tickets):
                    if part == "all" or (row["category"] in new) == (part == "new"):
                        writer.writerow((f"{split} {place}", row["text"], row["category"]))
            paths.append(path)
    return Tables(*(((found[part])[0], found[part][1]) for part in ("old", "new", "all")), names=new)


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files(tables: tuple[Path, Path]) -> list[str]:
    """Return the options that name training and test table."""
    return [f"--data.file={tables[0]}", f"--data.test_file={tables[1]}"]


def fit(stored: Path, words: Sequence[str]) -> None:
    """Fit, unless an earlier call did, and keep where the run is, its score on validation and its cost."""
    if stored.is_file():
        return
    ran = run_recipe("nlp", words)
    scores = json.loads((ROOT / ran.folder / "metrics.json").read_text())
    result = {"run": ran.folder, "val_macro_f1": scores["val_macro_f1"]["value"], **ran.cost}
    stored.write_text(json.dumps(result))
    print(f"{stored.stem}: validation macro-F1 {result['val_macro_f1']:.4f}, {result['seconds']:.0f} s", flush=True)


def chosen(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return old, joint, and of each share's expansions the one that is best on validation.

    Example:
        >>> runs = {"expand-0.8-1e-05": {"val_macro_f1": 0.9}, "expand-0.8-5e-05": {"val_macro_f1": 0.8}}
        >>> list(chosen({"old": {}, **runs}).values())
        [{}, {'val_macro_f1': 0.9}]
    """
    best: dict[str, Mapping[str, Any]] = {}
    for name, result in found.items():
        _, _, rest = name.partition("expand-")
        share, _, rate = rest.partition("-")
        row = f"expanded, {share} rehearsed" if rest else name
        if row not in best or result["val_macro_f1"] > best[row]["val_macro_f1"]:
            best[row] = {**result, "rate": rate} if "run" in result else result
    return best


def predicted(run: str) -> Predicted:
    """Return what a run says of the test tickets; the test is run where it was not."""
    folders = sorted((ROOT / run).glob("test*/predictions.csv"))
    if not folders:
        run_recipe("nlp", ["test", run, "--evaluation.baselines=[majority]"])
        folders = sorted((ROOT / run).glob("test*/predictions.csv"))
    return {row["id"].removeprefix("old "): (row["label"], row["predicted"]) for row in read(folders[-1])}


def print_table(runs: Mapping[str, Mapping[str, Any]], new: Sequence[str]) -> None:
    """Print accuracy on old and new queues, with intervals, beside the old router and the joint one."""
    found = {name: predicted(result["run"]) for name, result in runs.items()}
    columns = ["router", "old queues [95 %]", "against the old router", "new queues [95 %]", "against joint training",
               "rate", "fit: s", "peak MB"]  # fmt: skip
    print(f"New queues: {', '.join(new)}\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, result in runs.items():
        old = [ticket for ticket, (label, _) in found[name].items() if label not in new]
        fresh = [ticket for ticket, (label, _) in found[name].items() if label in new]
        cells = [
            accuracy(found[name], old),
            difference(found[name], found.get("old"), old) if name != "old" else "",
            accuracy(found[name], fresh),
            difference(found[name], found.get("joint"), fresh) if name not in ("old", "joint") else "",
            str(result.get("rate", "")),
            f"{result['seconds']:.0f}",
            f"{result['megabytes']:.0f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def hits(rows: Predicted, tickets: Sequence[str]) -> Any:  # noqa: ANN401 - an array
    """Return 1.0 for each ticket that goes to its queue, else 0.0."""
    return np.array([float(rows[ticket][0] == rows[ticket][1]) for ticket in tickets])


def accuracy(rows: Predicted, tickets: Sequence[str]) -> str:
    """Return the share of tickets that go to their queue, with its interval over tickets."""
    from lightning_transfer.metrics import cluster_bootstrap

    if not tickets:
        return ""
    right = hits(rows, tickets)
    return str(cluster_bootstrap(lambda weights: weights @ right / weights.sum(axis=1), list(tickets)))


def difference(rows: Predicted, other: Predicted | None, tickets: Sequence[str]) -> str:
    """Return how much better this router is on the tickets that both have, with the interval of the pairs."""
    from lightning_transfer.metrics import paired_difference

    both = [ticket for ticket in tickets if other is not None and ticket in other]
    if other is None or not both:
        return ""
    ours, theirs = hits(rows, both), hits(other, both)
    return str(
        paired_difference(
            lambda weights: weights @ ours / weights.sum(axis=1),
            lambda weights: weights @ theirs / weights.sum(axis=1),
            both,
        )
    )


if __name__ == "__main__":
    main()
