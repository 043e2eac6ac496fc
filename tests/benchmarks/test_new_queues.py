"""The benchmark of new queues: its tables, its choice on validation, its accuracies, and one run of all its parts."""

import csv
import random
import sys
from pathlib import Path

import pytest

from benchmarks import new_queues, recipe_runs
from benchmarks.new_queues import accuracy, chosen, difference, write_tables
from tests.unit.modules.text_toys import make_encoder

WORDS = {f"intent_{place}": [f"word{place}{letter}" for letter in "abcdef"] for place in range(8)}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files as banking77 has them."""
    draw = random.Random(0)
    for split, count in (("train", 20), ("test", 6)):
        with (tmp_path / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("text", "category"))
            for number in range(count):
                for name, words in WORDS.items():
                    writer.writerow((" ".join([*draw.sample(words, 3), split, f"n{number}"]), name))
    return tmp_path


def test_each_ticket_is_in_the_table_of_its_queue_under_one_name(data: Path) -> None:
    tables = write_tables(data, data / "tables", seed=3, num_new=2)
    old, new, both = ({row["id"]: row["queue"] for row in new_queues.read(part[0])} for part in tables[:3])
    assert {**old, **new} == both
    assert len(both) == len(old) + len(new) == 160
    assert set(new.values()) == set(tables.names)
    assert len(tables.names) == 2
    assert not set(old.values()) & set(tables.names)
    assert write_tables(data, data / "again", seed=3, num_new=2).names == tables.names
    names = {tuple(write_tables(data, data / "other", seed=seed, num_new=2).names) for seed in range(4)}
    assert len(names) > 1


def test_the_rate_is_chosen_on_validation() -> None:
    runs = {"old": {"run": "a", "val_macro_f1": 0.9}}
    runs["expand-0-5e-05"] = {"run": "b", "val_macro_f1": 0.5}
    runs["expand-0.8-5e-05"] = {"run": "c", "val_macro_f1": 0.7}
    runs["expand-0.8-0.0002"] = {"run": "d", "val_macro_f1": 0.8}
    found = chosen(runs)
    assert {name: result["run"] for name, result in found.items()} == {
        "old": "a", "expanded, 0 rehearsed": "b", "expanded, 0.8 rehearsed": "d"
    }  # fmt: skip
    assert found["expanded, 0.8 rehearsed"]["rate"] == "0.0002"


def test_accuracies_and_differences_are_shares_of_tickets() -> None:
    rows = {"1": ("a", "a"), "2": ("a", "b"), "3": ("b", "b"), "4": ("b", "b")}
    other = {"1": ("a", "b"), "2": ("a", "b"), "3": ("b", "b")}
    assert accuracy(rows, ["1", "2", "3", "4"]).startswith("0.750")
    assert difference(rows, other, ["1", "2", "3", "4"]).startswith("0.333")
    assert difference(rows, None, ["1"]) == accuracy(rows, []) == ""


@pytest.mark.slow
def test_all_parts_run(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for group in WORDS.values() for word in group] + ["train", "test"]
    encoder = make_encoder(data / "encoder", words, hidden=32)
    config = data / "old.yaml"
    config.write_text(f"model:\n  backbone: {encoder}\n  head_norm: batchnorm\ndata: {{batch_size: 8}}\n")
    for module in (new_queues, recipe_runs):
        monkeypatch.setattr(module, "ROOT", data)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = ["new_queues", "--data", str(data), "--out", str(data / "out"), "--num_new=2", f"--config={config}"]
    command += ["--rates", "0.01", "--shares", "0.5", "--", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    monkeypatch.setattr(sys, "argv", command)
    new_queues.main()
    first = capsys.readouterr().out
    assert [line.split(" |")[0] for line in first.splitlines() if line.startswith("| ")][1:] == [
        "| expanded, 0.5 rehearsed", "| joint", "| old"
    ]  # fmt: skip
    new_queues.main()
    again = capsys.readouterr().out
    assert "validation macro-F1" not in again
    assert again.splitlines()[-3:] == first.splitlines()[-3:]
