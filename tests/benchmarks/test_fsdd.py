"""The benchmark of spoken digits: its rounds, its sums, its tables, and one tiny run of all its parts."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import fsdd, recipe_runs
from benchmarks.fsdd import BEFORE, Words, collect, divide, rate, ratio, risen, share, words_of, write_table
from benchmarks.recipe_runs import Ran
from tests.data.speech.make import say

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
DIGITS = ("zero", "one", "two")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files as the Free Spoken Digit Dataset has them."""
    root = tmp_path / "fsdd"
    (root / "recordings").mkdir(parents=True)
    with (root / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "transcript", "speaker", "take", "official_split", "sample_rate", "gender", "accent"))
        for number, speaker in enumerate(SPEAKERS):
            for place, digit in enumerate(DIGITS):
                for take in (0, 7, 12):
                    name = f"recordings/{place}_{speaker}_{take}.wav"
                    wave = say(digit, rate=8000, pitch=1 + number / 40, seed=take)
                    soundfile.write(root / name, wave, 8000)
                    writer.writerow((name, digit, speaker, take, "train", 8000, "male", "USA/neutral"))
    return root


def test_each_speaker_is_tested_once_and_nobody_chooses_on_the_tested() -> None:
    rounds = [divide(SPEAKERS, pair) for pair in range(3)]
    assert sorted(name for tested, _ in rounds for name in tested) == sorted(SPEAKERS)
    assert all(chooses not in tested for tested, chooses in rounds)
    assert len({chooses for _, chooses in rounds}) == 3


@pytest.mark.parametrize("validate", ["speaker", "takes"])
def test_the_table_of_a_round(data: Path, tmp_path: Path, validate: str) -> None:
    rows = fsdd.read(write_table(data, tmp_path / "table.csv", 1, validate))
    assert len(rows) == 54
    assert all(Path(row["path"]).is_file() for row in rows)
    of = {split: {row["speaker"] for row in rows if row["split"] == split} for split in ("train", "val", "test")}
    assert of["test"] == {"lucas", "nicolas"}
    if validate == "speaker":
        assert of["val"] == {"theo"}
        assert of["train"] == {"george", "jackson", "yweweler"}
    else:
        assert of["train"] == {"george", "jackson", "theo", "yweweler"}
        # Under names of their own, as the recipe refuses a speaker on two sides.
        assert of["val"] == {f"{name}, takes 0 to 4" for name in of["train"]}
        assert all("_0.wav" in row["path"] for row in rows if row["split"] == "val")


def judged(rates: dict[str, float], **baselines: float) -> dict:
    """What a test writes: twenty words of each speaker."""
    return {
        "descriptions": {},
        "speakers": [
            {
                "speaker": speaker,
                "words": {"hits": 12, "substitutions": 5, "insertions": 9, "deletions": 3},
                "wer": {"value": value},
                "baselines": {name: {"value": other * value} for name, other in baselines.items()},
            }
            for speaker, value in rates.items()
        ],
    }


def test_errors_are_those_of_each_speaker() -> None:
    found = words_of(judged({"a": 0.25, "b": 1.5}, scratch=2.0), None)
    assert found == [Words("a", 20, 5.0), Words("b", 20, 30.0)]
    assert words_of(judged({"a": 0.25}, scratch=2.0), "scratch") == [Words("a", 20, 10.0)]
    assert [item.speaker for item in words_of(judged({"b": 0.5, "a": 0.25}), None)] == ["a", "b"]
    with pytest.raises(SystemExit, match="No WER of `pretrained` for speaker `a`"):
        words_of(judged({"a": 0.25}), "pretrained")


def test_pooled_rates_and_differences_are_over_words() -> None:
    rows = [Words("a", 10, 1.0), Words("b", 30, 9.0), Words("a", 10, 1.0)]
    assert share(rows) == pytest.approx(11 / 50)
    assert rate(rows).startswith("0.220 [0.100, 0.300]")
    after = {0: {"general": rows, "digits": rows}}
    before = {0: {"general": [row._replace(errors=row.errors / 2) for row in rows], "digits": rows}}
    assert risen(after, before).startswith("0.110")
    assert risen({0: {"digits": rows}}, before) == risen(after, {}) == ""
    assert ratio(after, {0: {"digits": [Words("a", 10, 5.0)]}}, "digits") == "0.44"
    assert ratio(after, {1: {"digits": rows}}, "digits") == ""


class Recipe:
    """Stands for the recipe: each verb writes what it would find."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[list[str]] = []

    def __call__(self, recipe: str, words: list[str]) -> Ran:
        assert recipe == "speech"
        self.calls.append(list(words))
        if words[0] == "fit":
            way = next(word for word in words if word.endswith(".yaml")).rpartition("_")[2].removesuffix(".yaml")
            folder = f"runs/{way}-{sum(call[0] == 'fit' for call in self.calls)}"
            (self.root / folder).mkdir(parents=True)
            (self.root / folder / "table").write_text(
                next(word for word in words if word.startswith("--data.file=")).partition("=")[2]
            )
            return Ran(f"Run folder: {folder}\n", 100.0, 900.0, 180.0)
        run = Path(words[1])
        number = len(list((self.root / run).glob("test*")))
        place = run / (f"test-{number}" if number else "test")
        (self.root / place).mkdir()
        general = any("general" in word for word in words)
        table = Path((self.root / run / "table").read_text())
        names = {row["speaker"] for row in fsdd.read(table) if row["split"] == "test"}
        value = {"probe": 0.4, "gradual": 0.1, "full": 0.2}[run.name.partition("-")[0]]
        rates = {"general m1": 0.5, "general f1": 0.3} if general else dict.fromkeys(sorted(names), value)
        name, times = ("scratch", 3.0) if "--evaluation.baselines=[scratch]" in words else ("pretrained", 0.5)
        baseline = {name: times}
        if any(word.startswith("--model.decoding.lexicon=[") for word in words):
            # Without the lexicon all have twice as many errors.
            baseline = {"greedy": 2.0, name: times, f"{name}_greedy": 2 * times}
        (self.root / place / "evaluation.json").write_text(json.dumps(judged(rates, **baseline)))
        return Ran(f"Written: {place}/predictions.jsonl\nRun folder: {run}\n", 50.0, 800.0, 70.0)


def test_all_parts_are_run_once_and_the_tables_say_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(tmp_path)
    monkeypatch.setattr(fsdd, "run_recipe", recipe)
    monkeypatch.setattr(fsdd, "ROOT", tmp_path)
    general = tmp_path / "out" / "general" / "test.csv"
    general.parent.mkdir(parents=True)
    general.write_text("path,text,speaker,split\n")
    command = ["fsdd", "--data", str(data), "--out", str(tmp_path / "out"), "--pairs", "0", "2"]
    monkeypatch.setattr(
        sys, "argv", [*command, "--ways", "scratch", "gradual", "probe", "--", "--trainer.max_epochs=1"]
    )
    fsdd.main()
    first = capsys.readouterr().out
    # Of each pair two fits with two tests each, and from scratch as a row of a test of the better one.
    assert [call[0] for call in recipe.calls] == ["fit", "test", "test", "fit", "test", "test", "test"] * 2
    assert all("--trainer.max_epochs=1" in call for call in recipe.calls if call[0] == "fit")
    assert recipe.calls[6][1].startswith("runs/gradual")
    assert "--evaluation.scratch.learning_rates=[0.0003, 0.001, 0.003]" in recipe.calls[6]
    tables = [line for line in first.splitlines() if line.startswith("|")]
    assert tables[0] == "| WER of a speaker, best letters | george | jackson | theo | yweweler | mean |"
    assert tables[6] == "| WER of a speaker, of ten words | george | jackson | theo | yweweler | mean |"
    values = {BEFORE: 0.2, "probe": 0.4, "gradual": 0.1, "scratch": 0.3}
    for first_row, times in ((2, 2), (8, 1)):
        for row, (way, value) in enumerate(values.items(), first_row):
            assert tables[row] == f"| {way} {f'| {times * value:.3f} ' * 5}|"
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in tables[14:]}
    assert rows["gradual"] == [
        "gradual", "2", "0.200 (0.200 to 0.200)", "0.200 [0.200, 0.200]", "0.33", "0.100 (0.100 to 0.100)",
        "0.100 [0.100, 0.100]", "0.33", "0.400", "0.200 [0.150, 0.250]", "100", "180", "900",
    ]  # fmt: skip
    assert rows[BEFORE][8] == "0.200"
    assert rows["scratch"][6] == "0.300 [0.300, 0.300]"
    fsdd.main()
    assert len(recipe.calls) == 14
    assert capsys.readouterr().out.splitlines() == [line for line in first.splitlines() if ", pair " not in line]


def test_rehearsed_is_full_with_general_speech_that_no_test_reads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, asked = Recipe(tmp_path), []
    monkeypatch.setattr(fsdd, "run_recipe", recipe)
    monkeypatch.setattr(fsdd, "ROOT", tmp_path)

    def write_general(folder: Path, *rest: object) -> Path:
        asked.append((folder.name, *rest))
        return folder / "list.csv"

    monkeypatch.setattr(fsdd, "write_general", write_general)
    command = ["fsdd", "--data", str(data), "--out", str(tmp_path / "out"), "--pairs", "1", "--ways", "rehearsed"]
    monkeypatch.setattr(sys, "argv", command)
    fsdd.main()
    fit, *tests = recipe.calls
    assert any(word.endswith("fsdd_embedded_full.yaml") for word in fit)
    assert f"--data.rehearsal_file={tmp_path / 'out' / 'rehearsal' / 'list.csv'}" in fit
    assert all("--data.rehearsal_file=null" in words for words in tests)
    (_, judged_count), (_, _, seed, split) = asked
    assert judged_count == 600
    assert (seed != fsdd._GENERAL_SEED, split) == (True, "train")
    assert "| rehearsed | 1 | 0.400 (0.400 to 0.400) |" in capsys.readouterr().out


def test_from_scratch_needs_a_run_of_its_pair(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    general = tmp_path / "general" / "test.csv"
    general.parent.mkdir()
    general.write_text("path,text,speaker,split\n")
    command = ["fsdd", "--data", str(data), "--out", str(tmp_path), "--pairs", "0", "--ways", "scratch"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="pair 0 has no run: add `full`"):
        fsdd.main()
    assert collect(tmp_path / "speaker") == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_tiny_runs(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `offline` is not installed")
    for module in (fsdd, recipe_runs):
        monkeypatch.setattr(module, "ROOT", data)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = ["fsdd", "--data", str(data), "--out", str(data / "out"), "--pairs", "2", "--ways", "probe", "scratch"]
    command += ["--num_general", "6", "--rates", "0.001", "--patience", "1", "--max_epochs", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"])
    fsdd.main()
    printed = capsys.readouterr().out
    for way in (BEFORE, "probe", "scratch"):
        assert f"| {way} | 1 |" in printed
    for kind in ("best letters", "of ten words"):
        assert f"| WER of a speaker, {kind} | theo | yweweler | mean |" in printed
    stored = json.loads((data / "out" / "speaker" / "probe-2.json").read_text())
    assert stored["cost"]["cpu_seconds"] > 1
    assert np.isfinite(stored["cost"]["megabytes"])
