"""Which tickets are learnt from, which are kept apart, and what a batch of them looks like."""

from pathlib import Path

import pytest

from lightning_transfer.backbones import load_backbone
from lightning_transfer.errors import DataError
from recipes.nlp.data import TextDataModule
from tests.recipes.nlp.conftest import make_rows, write_rows


@pytest.fixture
def card(encoder: Path):
    return load_backbone(str(encoder))[1]


def module(file: Path, card, **options) -> TextDataModule:
    known = {"label_column": "queue", "group_column": "customer", "copies": "keep", "batch_size": 16}
    data = TextDataModule(str(file), **{**known, **options})
    data.use_card(card)
    return data


def test_what_belongs_nowhere_is_divided_and_kept_apart(tickets: Path, card) -> None:
    data = module(tickets, card, out_of_scope="none")
    data.setup("fit")
    assert "none" not in data.schema.classes
    kept = [record for split in ("train", "val", "calibration", "test") for record in data.out_of_scope_for(split)]
    assert len(kept) == sum(row["queue"] == "none" for row in make_rows())
    assert {record.label for record in kept} == {"none"}
    groups = {
        split: {record.group for record in (*data.records_for(split), *data.out_of_scope_for(split))}
        for split in ("train", "test")
    }
    assert not groups["train"] & groups["test"]
    batches = list(data.out_of_scope_dataloader("test"))
    assert sum(len(batch.index) for batch in batches) == len(data.out_of_scope_for("test"))
    assert all(batch.target is None for batch in batches)


def test_an_unknown_label_of_what_belongs_nowhere_is_an_error(tickets: Path, card) -> None:
    with pytest.raises(DataError, match=r"No row of .* has the label `nones`.*Did you mean `none`"):
        module(tickets, card, out_of_scope="nones").setup("fit")


def test_time_divides_where_it_is_asked_for(tickets: Path, card) -> None:
    data = module(tickets, card, time_column="created", split_by_time="time", group_column=None)
    data.setup("fit")
    last = max(record.meta["time"] for record in data.records_for("train"))
    assert last < min(record.meta["time"] for record in data.records_for("test"))
    assert "time-split" in {finding.code for finding in data.findings}


def test_levels_of_labels_are_cut(tickets: Path, card) -> None:
    data = module(tickets, card, label_level=1, out_of_scope="none")
    data.setup("fit")
    assert data.schema.classes == ("billing", "delivery", "technical")


def test_a_second_file_is_the_test(tmp_path: Path, card) -> None:
    train = write_rows(tmp_path / "train.csv", make_rows(90))
    test = write_rows(tmp_path / "test.csv", make_rows(45, seed=1))
    data = module(train, card, test_file=str(test), group_column=None, val_fraction=0.2, calibration_fraction=0.2)
    data.setup("fit")
    # The ids of the two files are the same, and stay apart.
    assert [record.id for record in data.records_for("test")] == [f"test T{number:03}" for number in range(45)]
    assert len(data.records) == 135


def test_copies_go_before_the_division_and_are_counted(tmp_path: Path, card) -> None:
    rows = make_rows(90)
    again = [{**row, "id": f"again {row['id']}", "body": row["body"].upper() + "!"} for row in rows[:20]]
    file = write_rows(tmp_path / "tickets.csv", rows + again)
    kept = module(file, card)
    kept.setup("fit")
    data = module(file, card, copies="exact")
    data.setup("fit")
    # The toy's own texts are few words, so some of them are the same as well.
    assert len(data.records) == len({" ".join(record.input.lower().strip("!").split()) for record in kept.records})
    assert "copies-removed" in {finding.code for finding in data.findings}


def test_batches_hold_texts_of_like_length(tickets: Path, card) -> None:
    data = module(tickets, card)
    data.setup("fit")
    spread = [batch.input["attention_mask"].sum(dim=1) for batch in data.train_dataloader()]
    full = [lengths for lengths in spread if len(lengths) == 16]
    assert max(int(lengths.max() - lengths.min()) for lengths in full) <= 2
    assert {int(lengths.min()) for lengths in spread} != {int(spread[0].min())}  # there are short and long ones
    ordered = [int(batch.input["attention_mask"].sum(dim=1).max()) for batch in data.test_dataloader()]
    assert ordered == sorted(ordered)


def test_what_is_cut_is_said(tickets: Path, card) -> None:
    data = module(tickets, card, max_length=8)
    data.setup("fit")
    (finding,) = [item for item in data.audit_inputs(data.records, near=False) if item.code == "long-texts"]
    long = sum(len(row["body"].split()) + 2 > 8 for row in make_rows())
    assert finding.count == long
    assert f"{long} of {len(data.records)} texts" in finding.message
    assert "their beginning and their end are read" in finding.message


def test_prediction_reads_every_row(tmp_path: Path, card) -> None:
    rows = make_rows(30)
    rows[3]["body"], rows[5]["body"], rows[7]["id"] = "", "Out of office: I am back on Monday.", "T001"
    file = write_rows(tmp_path / "new.csv", [{**row, "queue": "unheard"} for row in rows])
    data = module(file, card)
    data.use_schema(_schema(card, tmp_path))
    data.setup("predict")
    skipped = data.list_skipped("predict")
    assert [skip.position for skip in skipped] == [3, 7]
    assert len(data.predict_records) == 28
    assert data.predict_records[4].id == "T005"  # what a program wrote has its row too


def _schema(card, folder: Path):
    known = module(write_rows(folder / "known.csv", make_rows()), card)
    known.setup("fit")
    return known.schema


def test_no_label_at_all_is_an_error(tmp_path: Path, card) -> None:
    file = write_rows(tmp_path / "tickets.csv", [{**row, "queue": ""} for row in make_rows(9)])
    with pytest.raises(DataError, match=r"None of the 9 rows .* has a label in `queue`"):
        module(file, card).setup("fit")
