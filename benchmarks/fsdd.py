"""What does a recogniser that has heard synthetic speech alone learn from four people, and what of it is kept?

The embedded speech model is adapted to four of the six speakers of the Free Spoken Digit Dataset and tested on the
other two, for each of three disjoint pairs. Each way is a `fit` and a `test` of one of the recipe's own configs:
``probe``, ``gradual`` and ``full``; ``scratch`` is the baseline of that name in the test of ``full``: the same network
from random weights, its rate chosen of several, trained until validation stalls. Beside the digits stands the word
error rate on general synthetic sentences in the accent of the pretraining, before and after.

The four speakers' last five takes of each digit validate: they choose the epoch. Nothing chooses by the two that test.

    python -m benchmarks.fsdd [--data DIR] [--pairs 0 1 2] [--ways probe gradual full scratch] [-- FURTHER OPTIONS]

What is there already is not run again. Seconds are those of the whole `fit`; CPU seconds count all cores together, and
other work on the machine hardly changes them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipe_runs import ROOT, run_recipe

CONFIGS = ROOT / "recipes" / "speech" / "configs"
WAYS = ("probe", "gradual", "full", "scratch")
VALIDATE = 45
"""Takes from here on, of 50, validate."""

Result = dict[str, Any]


def main() -> None:
    """Run what is asked for and not there yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "fsdd")
    parser.add_argument("--general", type=Path, default=Path("runs/data/calls/general.csv"))
    parser.add_argument("--pairs", nargs="*", type=int, default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/fsdd"))
    parser.add_argument("overrides", nargs="*", help="further options of every `fit`, after `--`")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.general.is_file():
        from recipes.speech.sample.make import write_sample

        write_sample(args.general.parent, seed=0)
    found: dict[tuple[int, str], Result] = {}
    for pair in args.pairs:
        table = write_table(args.data, pair, args.out / f"pair{pair}.csv")
        for way in [way for way in WAYS if way in args.ways]:
            found[pair, way] = run(way, pair, table, args)
            print(f"pair {pair}, {way}: {found[pair, way]['run']}", flush=True)
    print_words(found)
    print_speakers(found)


def pairs_of(speakers: Iterable[str]) -> list[tuple[str, str]]:
    """Return neighbours in the order of their names, each speaker once.

    Example:
        >>> pairs_of(["d", "a", "c", "b"])
        [('a', 'b'), ('c', 'd')]
    """
    names = sorted(set(speakers))
    return list(zip(names[::2], names[1::2], strict=True))


def write_table(data: Path, pair: int, file: Path) -> Path:
    """Write the recordings with their splits: two speakers test, of the others the last takes validate.

    A speaker of both training and validation has two names, since the recipe keeps each on one side; that validation
    hears known voices is meant.
    """
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    tested = pairs_of(row["speaker"] for row in rows)[pair]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "path", "text", "speaker", "accent", "split"))
        for row in rows:
            split = "test" if row["speaker"] in tested else "val" if int(row["take"]) >= VALIDATE else "train"
            speaker = f"{row['speaker']} again" if split == "val" else row["speaker"]
            writer.writerow((row["path"], row["path"], row["transcript"], speaker, row["accent"], split))
    return file


def run(way: str, pair: int, table: Path, args: argparse.Namespace) -> Result:
    """Fit and test once, unless an earlier call did; return the run, its test, and what the fit cost."""
    stored = args.out / f"{way}-{pair}.json"
    if not stored.is_file():
        if way == "scratch":
            full = run("full", pair, table, args)
            tested = run_recipe("speech", ["test", full["run"], "--evaluation.baselines=[pretrained,scratch]"])
            result = {"run": full["run"], "cost": tested.cost}
        else:
            words = ["fit", "--config", str(CONFIGS / f"fsdd_embedded_{way}.yaml"), f"--data.file={table}"]
            words += [f"--data.root={args.data}", "--data.text_column=text", f"--data.general_file={args.general}"]
            fitted = run_recipe("speech", [*words, "--trainer.enable_progress_bar=false", *args.overrides])
            tested = run_recipe("speech", ["test", fitted.folder])
            result = {"run": fitted.folder, "cost": fitted.cost}
        result["test"] = str(newest_test(ROOT / result["run"]).relative_to(ROOT))
        stored.write_text(json.dumps(result))
    found: Result = json.loads(stored.read_text())
    return found


def newest_test(run: Path) -> Path:
    """Return the folder of the run's last test."""
    return max(run.glob("test*/evaluation.json"), key=lambda path: path.stat().st_mtime).parent


def evaluation(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a test found."""
    found: dict[str, Any] = json.loads((ROOT / result["test"] / "evaluation.json").read_text())
    return found


def general(result: Mapping[str, Any]) -> tuple[float, float]:
    """Return the word error rate on general sentences before and after the fit; NaN where it was not measured."""
    facts = json.loads((ROOT / result["run"] / "metrics.json").read_text())
    before, after = (facts[f"source_wer_{when}"]["value"] for when in ("before", "after"))
    return tuple(float("nan") if rate is None else rate for rate in (before, after))  # type: ignore[return-value]


def word_error(result: Mapping[str, Any], way: str) -> float:
    """Return the word error rate of a way on the pair that tests: of its model, or of its row among the baselines."""
    found = evaluation(result)
    metrics = found["baselines"][way] if way in ("pretrained", "scratch") else found["metrics"]
    return float(metrics["wer"]["value"])


def print_words(found: Mapping[tuple[int, str], Result]) -> None:
    """Print the word error rate of each way on each pair, on general speech, and what the fits cost."""
    pairs = sorted({pair for pair, _ in found})
    columns = ["way", *(f"pair {pair}" for pair in pairs), "mean", "general before", "general after", "fit: s", "CPU s",
               "peak MB"]  # fmt: skip
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    first = next(iter({way for _, way in found}), None)
    if first is not None:
        row("before adapting", [word_error(found[pair, first], "pretrained") for pair in pairs], [], [])
    for way in WAYS:
        own = [found[pair, way] for pair in pairs if (pair, way) in found]
        if own:
            row(way, [word_error(result, way) for result in own], [] if way == "scratch" else own, own)


def row(name: str, rates: Sequence[float], kept: Sequence[Result], costs: Sequence[Result]) -> None:
    """Print one row of the first table; ``kept`` are the runs whose general error rates are known."""
    cells = [*(f"{rate:.3f}" for rate in rates), f"{np.mean(rates):.3f}"]
    before = [general(result) for result in kept]
    cells += [f"{np.mean(column):.3f}" for column in zip(*before, strict=True)] if before else ["", ""]
    for key in ("seconds", "cpu_seconds", "megabytes"):
        values = [result["cost"][key] for result in costs if key in result["cost"]]
        cells.append(f"{(max if key == 'megabytes' else np.median)(values):.0f}" if values else "")
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_speakers(found: Mapping[tuple[int, str], Result]) -> None:
    """Print the word error rate of every speaker that tested, with its interval over utterances."""
    ways = [way for way in WAYS if way != "scratch" and any(key[1] == way for key in found)]
    print(f"\n| speaker | {' | '.join(ways)} |\n|---{'|---' * len(ways)}|")
    for pair in sorted({pair for pair, _ in found}):
        rates = {way: speaker_rates(evaluation(found[pair, way])) for way in ways if (pair, way) in found}
        for speaker in sorted({name for rows in rates.values() for name in rows}):
            print(f"| {speaker} | {' | '.join(rates.get(way, {}).get(speaker, '') for way in ways)} |", flush=True)
    print(flush=True)


def speaker_rates(found: Mapping[str, Any]) -> dict[str, str]:
    """Return speaker -> word error rate, as a test has them."""
    return {str(item["speaker"]): f"{item['wer']['value']:.3f}" for item in found["speakers"]}


if __name__ == "__main__":
    main()
