from __future__ import annotations

import json

import pytest
import torch

from lightning_transfer.data import Skipped
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation import RoutingPolicy, decide, write_decisions
from lightning_transfer.types import Record, Schema

SCHEMA = Schema(task="multiclass", classes=("billing", "technical"))


def decisions(ids):
    logits = torch.tensor([[3.0, 0.0]] * len(ids))
    return decide(logits, torch.ones(len(ids), 2), ids, SCHEMA, 1.0, RoutingPolicy(0.9, 0.5))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_input_has_its_line_in_order(tmp_path):
    records = [Record(key, "text", label) for key, label in (("b", "billing"), ("d", None))]
    # Given out of order; the rows of the input were a, b, c, d, e.
    skipped = [
        Skipped(Record("e", ""), "the text is empty", 4),
        Skipped(Record("a", "", "technical"), "the text is empty", 0),
        Skipped(Record("c", ""), "no text", 2),
        Skipped(Record("z", ""), "was no row"),
    ]
    path = write_decisions(tmp_path / "new" / "predictions.jsonl", records, decisions(["b", "d"]), skipped)
    rows = lines(path)
    assert [row["id"] for row in rows] == ["a", "b", "c", "d", "e", "z"]
    assert [row["decision"] for row in rows] == ["unreadable", "route", "unreadable", "route", *["unreadable"] * 2]
    assert rows[0] == {
        "id": "a", "queues": [], "decision": "unreadable", "queue": None, "confidence": None, "margin": None,
        "out_of_scope_score": None, "nearest": None, "label": "technical", "reason": "the text is empty",
    }  # fmt: skip
    assert [row["label"] for row in rows] == ["technical", "billing", None, None, None, None]


def test_text_of_any_kind_stays_one_line(tmp_path):
    records = [Record('Ticket\n"ü"\u2028', "text")]
    path = write_decisions(tmp_path / "p.jsonl", records, decisions([records[0].id]))
    [line] = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert json.loads(line)["id"] == 'Ticket\n"ü"\u2028'
    assert "ü" in line


def test_nothing_to_decide_is_an_empty_file(tmp_path):
    assert write_decisions(tmp_path / "p.jsonl", [], []).read_text() == ""


def test_a_file_is_not_written_over_and_rows_must_belong(tmp_path):
    (tmp_path / "p.jsonl").touch()
    with pytest.raises(DataError, match=r"p\.jsonl` exists"):
        write_decisions(tmp_path / "p.jsonl", [], [])
    with pytest.raises(ValueError, match="decision of `a` stands where that of `b` belongs"):
        write_decisions(tmp_path / "q.jsonl", [Record("b", "text")], decisions(["a"]))
    assert not (tmp_path / "q.jsonl").exists()
