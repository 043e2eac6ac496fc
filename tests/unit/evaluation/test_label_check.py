from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.evaluation import check_labels, format_suspects, label_indices, write_suspects
from lightning_transfer.types import Record, Schema

SCHEMA = Schema(task="multiclass", classes=("free", "pit", "crack"))


def data(n=90, spread=0.3, copies=1, seed=0):
    """Records of three well told classes, in groups of `copies` that are nearly alike."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n // copies)
    points = np.eye(3)[truth] * 3 + spread * rng.normal(size=(n // copies, 3))
    features = np.repeat(points, copies, axis=0) + 1e-3 * rng.normal(size=(n, 3))
    labels = np.repeat(truth, copies)
    records = [
        Record(f"{i}.png", Path(f"/data/{i}.png"), SCHEMA.classes[label], group=f"t{i // copies}")
        for i, label in enumerate(labels)
    ]
    return records, features


def relabel(record, label, **changes):
    return Record(**{**vars(record), "label": label, **changes})


def other(record):
    return "pit" if record.label != "pit" else "crack"


def test_a_wrong_label_is_the_first_row_and_a_note():
    records, features = data()
    right = records[5].label
    records[5] = relabel(records[5], other(records[5]))
    check = check_labels(records, features, SCHEMA)
    assert check.suspects[0] == {
        "id": "5.png", "path": "/data/5.png", "label": records[5].label, "suggested": right, "score": 1.0,
        "likely": True,
    }  # fmt: skip
    (finding,) = check.findings
    assert (finding.code, finding.severity, finding.count) == ("label-suspects", "note", 1)
    assert finding.message == "1 of 90 labels are contradicted by the nearest records in feature space."
    assert finding.examples == (f"5.png ({records[5].label}, probably {right})",)
    # 5% are listed, so that who looks further finds the next ones.
    assert len(check.suspects) == 4
    assert [row["likely"] for row in check.suspects] == [True, False, False, False]


def test_right_labels_make_no_finding():
    check = check_labels(*data(), SCHEMA)
    assert check.findings == ()
    assert format_suspects(check) == "Suspected label errors: none of 90 labels likely"


def test_a_group_that_is_wrong_as_a_whole_has_its_own_finding():
    records, features = data(120, copies=4)
    right = records[8].label
    for place in range(8, 12):
        records[place] = relabel(records[place], other(records[place]))
    check = check_labels(records, features, SCHEMA)
    (finding,) = [item for item in check.findings if item.code == "label-suspects-of-groups"]
    assert finding.count == 1
    assert finding.examples == (f"t2 ({records[8].label}, probably {right}, 4 records)",)
    assert not any(row["likely"] for row in check.suspects if row["id"] in {f"{i}.png" for i in range(8, 12)})


def test_features_that_tell_new_groups_poorly_do_not_accuse_them():
    records, features = data(120, spread=8.0, copies=4)
    (finding,) = check_labels(records, features, SCHEMA).findings
    assert (finding.code, finding.count) == ("label-suspects-of-groups", 0)
    assert "could not be told" in finding.message


def test_records_without_label_are_left_out():
    records, features = data()
    records[3] = relabel(records[3], None)
    assert label_indices(records[3:4], SCHEMA).tolist() == [-1]
    assert check_labels(records, features, SCHEMA).num_labels == 89


def test_each_class_of_a_multi_label_record_is_judged_where_it_is_known():
    schema = Schema(task="multilabel", classes=("pit", "crack"))
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (80, 2))
    features = np.concatenate([6 * truth, rng.normal(size=(80, 1)) * 0.3], axis=1) + 0.3 * rng.normal(size=(80, 3))
    labels = [tuple(float(value) for value in row) for row in truth]
    labels[7] = (1.0 - truth[7, 0], float(truth[7, 1]))
    labels[9] = (None, float(truth[9, 1]))
    records = [Record(str(i), None, label) for i, label in enumerate(labels)]
    check = check_labels(records, features, schema)
    assert check.num_labels == 159
    names = ("not pit", "pit")
    assert check.suspects[0]["id"] == "7"
    assert check.suspects[0]["label"] == names[int(labels[7][0])]
    assert check.suspects[0]["suggested"] == names[truth[7, 0]]
    assert check.suspects[0]["path"] == ""


def test_formulas_in_ids_paths_and_labels_are_harmless_in_the_table(tmp_path):
    schema = Schema(task="multiclass", classes=("=cmd|' /C calc'!A0", "@SUM(1+1)", "crack"))
    records, features = data()
    records = [
        relabel(item, schema.classes[SCHEMA.classes.index(item.label)], id=f"=1+{i}", input=f"+cmd {i}")
        for i, item in enumerate(records)
    ]
    records[5] = relabel(records[5], next(name for name in schema.classes if name != records[5].label))
    path = write_suspects(tmp_path / "suspects.csv", check_labels(records, features, schema).suspects)
    with path.open(newline="") as stream:
        header, *rows = list(csv.reader(stream))
    assert header == ["id", "path", "label", "suggested", "score", "likely"]
    assert rows[0][0] == "'=1+5"
    assert rows[0][1] == "'+cmd 5"
    assert not any(cell.startswith(("=", "+", "@", "-")) for row in rows for cell in row)


def test_a_text_is_shown_itself_and_stays_one_line():
    records, features = data()
    records = [
        relabel(item, item.label, id=f"row {i}", input=f"Is it\x1b[31m {i}\n?") for i, item in enumerate(records)
    ]
    records[5] = relabel(records[5], other(records[5]))
    said = format_suspects(check_labels(records, features, SCHEMA))
    assert "Is it [31m 5 ?" in said
    assert len(said.splitlines()) == 2 + 4


def test_the_list_on_the_terminal_is_short():
    records, features = data(300)
    for place in range(0, 60, 20):
        records[place] = relabel(records[place], other(records[place]))
    check = check_labels(records, features, SCHEMA)
    assert sum(row["likely"] for row in check.suspects) == 3
    lines = format_suspects(check, limit=4).splitlines()
    assert len(lines) == 2 + 4
    assert {line.split()[0] for line in lines[2:5]} == {"0.png", "20.png", "40.png"}
    assert [line.split()[-1] for line in lines[2:]] == ["yes", "yes", "yes", "no"]


def test_features_of_other_records_are_refused():
    records, features = data()
    with pytest.raises(ValueError, match="each of 90 records, got 89"):
        check_labels(records, features[:-1], SCHEMA)
