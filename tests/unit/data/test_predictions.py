import csv
import json
from pathlib import Path

import pytest
import torch
from scipy.special import softmax

from lightning_transfer.data.predictions import write_predictions
from lightning_transfer.data.tables import Skipped
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation.predictions import predictions
from lightning_transfer.types import Calibration, Prediction, Record, Schema

SCHEMA = Schema(task="multiclass", classes=("free", "crack", "fray"), negative_class="free")
RECORDS = [
    Record("a.png", Path("/data/a.png"), "crack"),
    Record("b.png", Path("/data/b.png")),
    Record("=c", None, "free"),
]
LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.5, 0.0, 0.4], [-1.0, 0.0, 3.0]])


def _write(path: Path, records, logits: torch.Tensor, schema: Schema, calibration=None, **options) -> Path:
    calibration = calibration or Calibration()
    found = predictions(logits, [record.id for record in records], schema, calibration)
    return write_predictions(path, records, found, schema, calibration, **options)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_skipped_inputs_have_rows_at_their_places(tmp_path: Path) -> None:
    skipped = [
        Skipped(Record("last", Path("x"), "free"), "the file is empty", 4),
        Skipped(Record("first", None), "no input", 0),
        Skipped(Record("somewhere", None), "no row", None),
    ]
    path = _write(tmp_path / "p.csv", RECORDS, LOGITS, SCHEMA, skipped=skipped)
    rows = _read(path)
    assert [row["id"] for row in rows] == ["first", "a.png", "b.png", "'=c", "last", "somewhere"]
    assert rows[4]["decision"] == "unreadable"
    assert rows[4]["reason"] == "the file is empty"
    assert rows[4]["label"] == "free"
    assert rows[4]["path"] == "x"
    assert rows[4]["nearest_path"] == rows[4]["nearest_distance"] == ""
    assert rows[4]["predicted"] == rows[4]["score"] == rows[4]["probability_free"] == ""
    assert rows[1]["reason"] == ""


def test_json_lines(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.jsonl", RECORDS, LOGITS, SCHEMA)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[2]["id"] == "=c"
    assert rows[1]["label"] is None
    assert rows[0]["probability_crack"] == pytest.approx(softmax(LOGITS[0].numpy())[1], abs=1e-6)


def test_predictions_are_not_written_over(tmp_path: Path) -> None:
    path = _write(tmp_path / "p.csv", RECORDS, LOGITS, SCHEMA)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"p\.csv` exists"):
        _write(path, RECORDS, (-LOGITS), SCHEMA)
    assert path.read_bytes() == before


def test_a_prediction_of_another_record(tmp_path: Path) -> None:
    found = predictions(LOGITS, ["a.png", "x.png", "=c"], SCHEMA, Calibration())
    with pytest.raises(ValueError, match=r"`x.png` stands where that of `b.png` belongs"):
        write_predictions(tmp_path / "p.csv", RECORDS, found, SCHEMA)
    assert list(tmp_path.iterdir()) == []


def test_tables_for_a_spreadsheet_run_nothing(tmp_path: Path) -> None:
    """What a file name or a class could start, stands behind an apostrophe, in the predictions and in the escapes."""
    names = ['=HYPERLINK("http://x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]
    records = [Record(id=name, input=name, label=name) for name in names]
    found = [Prediction(name, name, {name: 1.0 for name in names}, 0.5, name) for name in names]
    schema = Schema(task="multiclass", classes=tuple(names))
    path = write_predictions(tmp_path / "escapes.csv", records, found, schema)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == 1 + len(names)
    for row in rows:
        assert not [cell for cell in row if cell.lstrip()[:1] in ("=", "+", "-", "@")]
        assert len(row) == len(rows[0])
