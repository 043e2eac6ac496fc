"""Spoken digits of real people, from a model that only heard synthesised speech: what does each way of adapting reach?

The six speakers, sorted by name, make three pairs. Each pair is the test of one round: the embedded model is adapted to
the other four, of whom one, the next in the row, chooses the epoch. Ways are the recipe's own configs (the linear layer
alone, gradual unfreezing, everything), the same network from scratch (the best of a few rates on validation, trained
until validation stalls), and the model as it was. The same runs are then tested on general sentences, synthesised in
the accent of the pretraining with a seed of their own: what the digits cost. ``rehearsed`` is ``full`` with other
general sentences of that kind beside the digits, about as many seconds as of these. Each verb is a process of its own;
what was run is kept, and not run again.

Digits are heard twice: by the best letter of each frame, as a recogniser of anything writes, and as the likeliest of
the ten words (extra ``beam``), as whoever needs digits would use it. Every number is given both ways.

    python -m benchmarks.fsdd --data DIR [--pairs 0 1 2] [--ways probe gradual full rehearsed scratch]
        [--validate takes]
        [-- FURTHER OPTIONS OF fit]

``--validate takes`` trains on all four speakers and chooses the epoch on takes 0 to 4 of theirs, which are easier than
a new speaker. CPU seconds are those of all threads: they do not depend on who else uses the machine.
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

from benchmarks.recipe_runs import ROOT, Ran, find_run, run_recipe, scratch_options

CONFIGS = ROOT / "recipes" / "speech" / "configs"
WAYS = ("probe", "gradual", "full", "rehearsed", "scratch")
BEFORE = "before adapting"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Nothing at all costs a path little, and each recording has a word. Of 0, 2, 4 and 8 on validation takes of one fit.
_WORD_SCORE = 2.0
COLUMNS = ("path", "text", "speaker", "accent", "gender", "split")
_LAST_VALIDATION_TAKE = 4
# Of general sentences to be judged by, and of their draw: one that neither the pretraining nor the demo has.
_NUM_GENERAL, _GENERAL_SEED = 600, 41
# Of those that are rehearsed: drawn with another seed; one sentence to five or six digits is half of the sound.
_NUM_REHEARSED, _REHEARSED_SEED, _REHEARSED_SHARE = 600, 43, 0.15


KINDS = {"digits": "best letters", "known": "of ten words"}


class Words(NamedTuple):
    """Words that a speaker said, and the errors in them."""

    speaker: str
    words: int
    errors: float


def main() -> None:
    """Run what is asked for and not there yet, then print the tables of everything that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LT_DATA_DIR", "../shared/data")) / "fsdd")
    parser.add_argument("--pairs", nargs="*", type=int, default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--validate", choices=["speaker", "takes"], default="speaker")
    parser.add_argument("--rates", nargs="*", type=float, default=[3e-4, 1e-3, 3e-3], help="of the row from scratch")
    parser.add_argument("--trial_epochs", type=int, default=8, help="of each rate of the row from scratch")
    parser.add_argument("--patience", type=int, default=8, help="of the row from scratch, in epochs")
    parser.add_argument("--max_epochs", type=int, default=150, help="of the row from scratch")
    parser.add_argument("--num_general", type=int, default=_NUM_GENERAL)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/fsdd"))
    parser.add_argument("overrides", nargs="*", help="further options of every `fit`, after `--`")
    args = parser.parse_args()
    folder = args.out.absolute() / args.validate
    folder.mkdir(parents=True, exist_ok=True)
    general = write_general(args.out.absolute() / "general", args.num_general)
    for pair in args.pairs:
        table = write_table(args.data, folder / f"pair{pair}.csv", pair, args.validate)
        # From scratch last: it is a row of the test of a run that is there.
        for way in sorted(args.ways, key=WAYS.index):
            stored = folder / f"{way}-{pair}.json"
            if stored.is_file():
                continue
            if way == "scratch":
                found = scratch(folder, pair, args)
            else:
                more = rehearsal(args.out.absolute()) if way == "rehearsed" else []
                found = adapt(way, table, general, [*more, *args.overrides])
            stored.write_text(json.dumps(found))
            print(f"{way}, pair {pair}: {found['run']}", flush=True)
    rows = collect(folder)
    if rows:
        for what, title in KINDS.items():
            print_speakers(rows, what, title)
        print_summary(rows)


def speakers_of(data: Path) -> list[str]:
    """Return the speakers, sorted by name."""
    return sorted({row["speaker"] for row in read(data / "manifest.csv")})


def divide(speakers: Sequence[str], pair: int) -> tuple[list[str], str]:
    """Return who is tested in a round, and who chooses the epoch.

    Example:
        >>> [divide("abcdef", pair) for pair in range(3)]
        [(['a', 'b'], 'c'), (['c', 'd'], 'e'), (['e', 'f'], 'a')]
    """
    return list(speakers[2 * pair : 2 * pair + 2]), speakers[(2 * pair + 2) % len(speakers)]


def write_table(data: Path, path: Path, pair: int, validate: str) -> Path:
    """Write the manifest with the splits of one round; paths are absolute."""
    tested, chooses = divide(speakers_of(data), pair)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for row in read(data / "manifest.csv"):
            speaker, split = row["speaker"], "train"
            if speaker in tested:
                split = "test"
            elif validate == "speaker" and speaker == chooses:
                split = "val"
            elif validate == "takes" and int(row["take"]) <= _LAST_VALIDATION_TAKE:
                # The recipe keeps a speaker on one side; here a speaker's takes are divided on purpose.
                speaker, split = f"{speaker}, takes 0 to {_LAST_VALIDATION_TAKE}", "val"
            file = (data / row["path"]).resolve()
            writer.writerow((file, row["transcript"], speaker, row["accent"], row["gender"], split))
    return path


def rehearsal(folder: Path) -> list[str]:
    """Return the options of a fit that rehearses general sentences, which are spoken once."""
    table = write_general(folder / "rehearsal", _NUM_REHEARSED, _REHEARSED_SEED, "train")
    return [f"--data.rehearsal_file={table}", f"--data.rehearsal_share={_REHEARSED_SHARE}"]


def write_general(folder: Path, count: int, seed: int = _GENERAL_SEED, split: str = "test") -> Path:
    """Speak general sentences, once; return their table, in which all are in one split."""
    table = folder / f"{split}.csv"
    if not table.is_file():
        from recipes.speech.sample.make import write_sample

        sample = write_sample(folder / "sample", seed=seed, calls_per_speaker=1, num_general=count)
        rows = [{**row, "path": str(sample.root / row["path"]), "split": split} for row in read(sample.general)]
        with table.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return table


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def adapt(way: str, table: Path, general: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Fit, and test on the digits and on general sentences, each beside the model as it was."""
    config = CONFIGS / f"fsdd_embedded_{'full' if way == 'rehearsed' else way}.yaml"
    quiet, own = "--trainer.enable_progress_bar=false", [f"--data.root={Path('/')}", "--data.text_column=text"]
    words = ["fit", "--config", str(config), f"--data.file={table}", *own, quiet, *overrides]
    fitted = run_recipe("speech", words)
    # A test reads what was rehearsed in vain.
    test = ["test", fitted.folder, quiet, "--evaluation.baselines=[pretrained]", "--data.rehearsal_file=null"]
    return {
        "run": fitted.folder,
        "cost": fitted.cost,
        "digits": evaluation(run_recipe("speech", [*test, *lexicon()])),
        "general": evaluation(run_recipe("speech", [*test, f"--data.file={general}", *own])),
    }


def scratch(folder: Path, pair: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train the same network from random weights, as a row of the test of a run that is there."""
    run = find_run(folder, ("full", "gradual", "probe"), pair, "pair")
    words = ["test", run, "--trainer.enable_progress_bar=false", *scratch_options(args), *lexicon()]
    ran = run_recipe("speech", words)
    return {"run": run, "cost": ran.cost, "digits": evaluation(ran)}


def lexicon() -> list[str]:
    """Return the options of a test that writes digits alone."""
    return [f"--model.decoding.lexicon={json.dumps(DIGITS)}", f"--model.decoding.word_score={_WORD_SCORE}"]


def evaluation(ran: Ran) -> str:
    """Return where a test wrote what it found; a second test of a run has a folder of its own."""
    line = next(line for line in reversed(ran.output.splitlines()) if line.startswith("Written: "))
    return str(Path(line.removeprefix("Written: ").strip()).parent / "evaluation.json")


def collect(folder: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Return way -> pair -> what its run cost, and the words of each speaker, on digits and on general sentences.

    ``digits`` are the best letters, ``known`` the likeliest of the ten words.

    ``before adapting`` is of any run's test: the baseline is the same in all of them.
    """
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for way in WAYS:
        for stored in sorted(folder.glob(f"{way}-*.json")):
            pair, found = int(stored.stem.rpartition("-")[2]), json.loads(stored.read_text())
            judged = json.loads((ROOT / found["digits"]).read_text())
            known, letters = ("scratch", "scratch_greedy") if way == "scratch" else (None, "greedy")
            row = {"cost": found["cost"], "digits": words_of(judged, letters), "known": words_of(judged, known)}
            if "general" in found:
                sentences = json.loads((ROOT / found["general"]).read_text())
                row["general"] = words_of(sentences, None)
                before = {
                    "digits": words_of(judged, "pretrained_greedy"),
                    "known": words_of(judged, "pretrained"),
                    "general": words_of(sentences, "pretrained"),
                }
                rows.setdefault(BEFORE, {}).setdefault(pair, before)
            rows.setdefault(way, {})[pair] = row
    return {way: rows[way] for way in (BEFORE, *WAYS) if way in rows}


def words_of(judged: Mapping[str, Any], baseline: str | None) -> list[Words]:
    """Return the words of each speaker, and the errors in them, of the model or of one of its baselines.

    Example:
        >>> words = {"hits": 7, "substitutions": 2, "insertions": 1, "deletions": 1}
        >>> speaker = {"speaker": "a", "words": words, "wer": {"value": 0.4}, "baselines": {"scratch": {"value": 0.8}}}
        >>> words_of({"speakers": [speaker]}, None), words_of({"speakers": [speaker]}, "scratch")
        ([Words(speaker='a', words=10, errors=4.0)], [Words(speaker='a', words=10, errors=8.0)])
    """
    found = []
    for item in judged["speakers"]:
        count = sum(item["words"][kind] for kind in ("hits", "substitutions", "deletions"))
        rate = (item["wer"] if baseline is None else item["baselines"].get(baseline, {"value": None}))["value"]
        if rate is None:
            raise SystemExit(f"No WER of `{baseline}` for speaker `{item['speaker']}`: {judged['descriptions']}")
        found.append(Words(item["speaker"], count, rate * count))
    # A test puts the worst first, which are others in each run.
    return sorted(found)


def rate(rows: Sequence[Words]) -> str:
    """Return the WER of all words together, with its interval over speakers."""
    from lightning_transfer.metrics import cluster_bootstrap

    words, errors = (
        np.array(column, dtype=np.float64) for column in ([r.words for r in rows], [r.errors for r in rows])
    )
    found = cluster_bootstrap(lambda weights: weights @ errors / (weights @ words), [row.speaker for row in rows])
    return str(found)


def joined(pairs: Mapping[int, Mapping[str, Any]], what: str) -> list[Words]:
    """Return the words of all rounds; a speaker of general sentences comes once a round."""
    return [item for pair in sorted(pairs) for item in pairs[pair].get(what, [])]


def print_speakers(rows: Mapping[str, Mapping[int, Mapping[str, Any]]], what: str, title: str) -> None:
    """Print the WER of each speaker, who was never learnt from, by each way."""
    names = sorted({item.speaker for pairs in rows.values() for item in joined(pairs, what)})
    print(f"| WER of a speaker, {title} | {' | '.join(names)} | mean |\n|{'---|' * (len(names) + 2)}")
    for way, pairs in rows.items():
        rates = {item.speaker: item.errors / item.words for item in joined(pairs, what)}
        cells = [f"{rates[name]:.3f}" if name in rates else "" for name in names]
        print(f"| {way} | {' | '.join(cells)} | {np.mean(list(rates.values())):.3f} |")
    print()


def print_summary(rows: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> None:
    """Print mean and pooled WER, that of general sentences, and what the fits cost."""
    columns = ["way", "pairs"]
    for title in KINDS.values():
        columns += [f"{title}: WER, mean of pairs (range)", "pooled [95 % over speakers]", "over from scratch"]
    columns += ["general WER", "general WER, higher by", "fit: s", "CPU s", "peak MB"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for way, pairs in rows.items():
        cells = [str(len(pairs))]
        for what in KINDS:
            means = [share(pair[what]) for _, pair in sorted(pairs.items())]
            cells += [f"{np.mean(means):.3f} ({min(means):.3f} to {max(means):.3f})", rate(joined(pairs, what))]
            cells += [ratio(pairs, rows.get("scratch", {}), what) if way != "scratch" else ""]
        sentences = joined(pairs, "general")
        costs = [pair["cost"] for pair in pairs.values() if "cost" in pair]
        cells += [
            f"{share(sentences):.3f}" if sentences else "",
            risen(pairs, rows.get(BEFORE, {})) if way != BEFORE else "",
            *(f"{np.median([cost[key] for cost in costs]):.0f}" if costs else "" for key in ("seconds", "cpu_seconds")),
            f"{max(cost['megabytes'] for cost in costs):.0f}" if costs else "",
        ]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def share(rows: Sequence[Words]) -> float:
    """Return errors over words.

    Example:
        >>> share([Words("a", 10, 1.0), Words("b", 30, 7.0)])
        0.2
    """
    return float(sum(row.errors for row in rows) / sum(row.words for row in rows))


def ratio(pairs: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]], what: str) -> str:
    """Return the mean WER over that of the network from scratch, on the pairs that both have."""
    both = sorted(set(pairs) & set(others))
    if not both:
        return ""
    ours, theirs = (np.mean([share(table[pair][what]) for pair in both]) for table in (pairs, others))
    return f"{ours / theirs:.2f}" if theirs else "n/a"


def risen(pairs: Mapping[int, Mapping[str, Any]], before: Mapping[int, Mapping[str, Any]]) -> str:
    """Return by how much the WER of general sentences rose, paired, with its interval over speakers."""
    from lightning_transfer.metrics import paired_difference

    both = [pair for pair in sorted(set(pairs) & set(before)) if "general" in pairs[pair]]
    if not both:
        return ""
    after, first = ([item for pair in both for item in table[pair]["general"]] for table in (pairs, before))
    words = np.array([item.words for item in after], dtype=np.float64)
    errors = [np.array([item.errors for item in table]) for table in (after, first)]
    speakers = [item.speaker for item in after]
    assert speakers == [item.speaker for item in first], "the two were tested on other sentences"
    return str(
        paired_difference(
            lambda weights: weights @ errors[0] / (weights @ words),
            lambda weights: weights @ errors[1] / (weights @ words),
            speakers,
        )
    )


if __name__ == "__main__":
    main()
