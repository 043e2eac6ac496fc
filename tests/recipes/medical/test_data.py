"""Which images are learnt from, by whom they are divided, and what is known of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data.deidentification import PUBLIC_KEY, Pseudonyms
from lightning_transfer.errors import DataError
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import BackboneCard
from recipes.medical.data import MedicalDataModule
from tests.recipes.medical.conftest import NAME, write_table

CARD = BackboneCard("toy", "toy", input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.25,) * 3)


def module(root: Path, stage: str = "fit", **options) -> MedicalDataModule:
    data = MedicalDataModule(str(root), **{"findings": ["edema", "mass"], "batch_size": 8, **options})
    data.use_card(CARD)
    data.setup(stage)
    return data


def codes(data: MedicalDataModule) -> set[str]:
    return {finding.code for finding in [*data.findings, *data.audit_inputs(data.records, near=False)]}


def test_patients_stay_on_one_side(drawn: Path) -> None:
    data = module(drawn)
    sides: dict[str, set[str]] = {}
    for record in data.records:
        sides.setdefault(record.group, set()).add(record.split)
    assert len(sides) == 32
    assert all(len(splits) == 1 for splits in sides.values())
    assert data.schema.task == "multilabel"
    assert data.schema.classes == ("edema", "mass")


def test_every_fold_tests_other_patients(drawn: Path) -> None:
    tested = [
        {record.group for record in module(drawn, num_folds=5, fold=fold).records_for("test")} for fold in range(5)
    ]
    assert len(set.union(*tested)) == sum(map(len, tested)) == 32


def test_a_patient_on_both_sides_is_an_error_without_the_name(chests: Path, edit) -> None:
    edit(lambda rows: [row.update(split=("train", "val", "calibration", "test")[i % 4]) for i, row in enumerate(rows)])
    with pytest.raises(DataError, match=r"groups are in more than one split: `[0-9a-f]{12}`") as caught:
        module(chests)
    assert NAME not in str(caught.value)


def test_images_without_a_patient_are_an_error(chests: Path, edit) -> None:
    edit(lambda rows: [row.update(PatientID=row.pop("patient")) for row in rows])
    with pytest.raises(DataError, match="`PatientID` looks like it"):
        module(chests)
    assert len(module(chests, patient_column="PatientID").schema.num_groups) == 4
    data = module(chests, unknown_patients="each_image")
    assert "unknown-patients" in codes(data)
    found = module(chests, patient_pattern="/([^/]+)/[0-9]+.png")
    assert {record.group for record in found.records} == {record.group for record in module(
        chests, patient_column="PatientID").records}  # fmt: skip


def test_nothing_that_comes_out_names_anybody(drawn: Path) -> None:
    data = module(drawn)
    for record in data.records:
        assert NAME not in f"{record.id} {record.group} {dict(record.meta)}"
        assert isinstance(record.input, ImagePart)
        assert set(record.meta) == {"study", "site", "view", "age", "sex"}
    assert NAME not in str(data.schema)
    said = [finding.to_dict() for finding in [*data.findings, *data.audit_inputs(data.records, near=True)]]
    assert NAME not in str(said)
    assert "public-pseudonyms" in {finding["code"] for finding in said}


def test_names_stay_where_that_is_wanted(drawn: Path) -> None:
    data = module(drawn, deidentify=False)
    assert data.records[0].id.startswith(f"north/{NAME}")
    assert data.records[0].meta["note"] == f"seen by {NAME}"
    assert "public-pseudonyms" not in codes(data)


def test_columns_can_be_kept(drawn: Path) -> None:
    assert "note" in module(drawn, keep_columns=["note"]).records[0].meta
    with pytest.raises(DataError, match=r"No column `notes`.*Did you mean `note`"):
        module(drawn, keep_columns=["notes"])


def test_a_key_of_ones_own_gives_other_pseudonyms(drawn: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123")
    data = module(drawn, pseudonym_key_file=str(key), pseudonym_table=str(tmp_path / "whose.csv"))
    names = Pseudonyms("0123456789abcdef0123")
    assert {record.group for record in data.records} == {names.of(f"{NAME} {i:03}") for i in range(32)}
    assert names.of(f"{NAME} 000") != Pseudonyms(PUBLIC_KEY).of(f"{NAME} 000")
    assert "public-pseudonyms" not in codes(data)
    with (tmp_path / "whose.csv").open(newline="") as stream:
        whose = {row["id"]: row for row in csv.DictReader(stream)}
    assert set(whose) == {record.id for record in data.records}
    record = data.records[0]
    assert str(drawn / whose[record.id]["path"]) == record.input.path


def test_other_sites_are_the_test(drawn: Path) -> None:
    data = module(drawn, external_sites=["south"])
    assert {record.meta["site"] for record in data.records_for("test")} == {"south"}
    assert len(data.records_for("test")) == 24
    assert {record.meta["site"] for split in ("train", "val", "calibration") for record in data.records_for(split)} == {
        "north"
    }
    assert "external-test" in codes(data)
    again = module(drawn, external_sites=["south"], given_splits="ignore")
    assert again.schema.fingerprint == data.schema.fingerprint
    with pytest.raises(ValueError, match="`num_folds` 5 exclude each other"):
        module(drawn, external_sites=["south"], num_folds=5)


def test_a_patient_of_two_sites_is_no_external_test(chests: Path, edit) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["patient"] = str(int(row["patient"].split()[1]) // 4)

    edit(change)
    with pytest.raises(DataError, match="8 groups are in more than one split"):
        module(chests, external_sites=["south"])
    data = module(chests, external_sites=["south"], patients_by_site=True)
    assert len({record.group for record in data.records}) == 16


def test_uncertain_findings_follow_the_policy_in_training_alone(chests: Path, edit) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for number, row in enumerate(rows):
            if number % 4 == 0:
                row["edema"] = "-1"
            if number % 4 == 1:
                row["mass"] = "-1"

    edit(change)
    data = module(chests, uncertain={"default": "ignore", "edema": "ones", "mass": 0.7})
    unsure = {record.id for record in data.records if data._uncertain.get(record.id) == (0,)}
    assert len(unsure) == 24
    for record in data.records:
        if record.id in unsure:
            assert record.label[0] == (1.0 if record.split == "train" else None)
    soft = [batch.target[:, 1] for batch in data.train_dataloader()]
    values = torch.cat(soft)
    expected = sum(record.split == "train" and data._uncertain.get(record.id) == (1,) for record in data.records)
    assert int((values == 0.7).sum()) == expected > 0
    # What other readers of the training split see is what is known.
    known = torch.cat([batch.target[:, 1] for batch in data.ordered_dataloader("train")])
    assert int(known.isnan().sum()) == expected
    assert not (known == 0.7).any()
    assert "uncertain-labels" in codes(data)


def test_one_finding_is_two_classes_and_unlabelled_images_are_counted(chests: Path, edit) -> None:
    edit(lambda rows: [row.update(edema="") for row in rows[:6]] + [rows[6].update(edema="-1")])
    data = module(chests, findings=["edema"])
    assert data.schema.classes == ("no edema", "edema")
    assert (data.schema.task, data.schema.negative_class) == ("binary", "no edema")
    assert len(data.records) == 96 - 7
    [found] = [finding for finding in data.findings if finding.code == "unlabelled"]
    assert found.count == 7
    with pytest.raises(ValueError, match="a single finding is a class"):
        module(chests, findings=["edema"], uncertain="soft")
    with pytest.raises(DataError, match="`uncertain` names `oedema`"):
        module(chests, uncertain={"oedema": "ones"})


def test_a_label_column_of_classes(chests: Path, edit) -> None:
    edit(lambda rows: [row.update(kind="abc"[i % 3]) for i, row in enumerate(rows)])
    data = module(chests, findings=None, label_column="kind")
    assert data.schema.classes == ("a", "b", "c")
    with pytest.raises(ValueError, match="Leave one out"):
        module(chests, label_column="kind")


def test_views_are_chosen(drawn: Path) -> None:
    data = module(drawn, views=["PA"])
    assert {record.meta["view"] for record in data.records} == {"PA"}
    with pytest.raises(DataError, match=r"No image is of the view `lateral` .*`PA` 64"):
        module(drawn, views=["lateral"])


def test_a_second_table_is_the_test(chests: Path, edit) -> None:
    with (chests / "manifest.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    write_table(chests / "first.csv", rows[:72])
    write_table(chests / "second.csv", rows[72:])
    data = module(chests, table="first.csv", test_table="second.csv")
    assert len(data.records_for("test")) == 24
    write_table(chests / "second.csv", rows[60:])
    with pytest.raises(DataError, match="12 images are in the table and in the `test_table`"):
        module(chests, table="first.csv", test_table="second.csv")


def test_sixteen_bits_reach_the_tensor(drawn: Path) -> None:
    data = module(drawn, image_size=64)
    value = data.load_input(data.records[0])
    assert value.shape == (3, 64, 64)
    assert len(np.unique(value.numpy())) > 256


def test_the_check_says_that_a_site_tells_a_label(chests: Path, edit) -> None:
    edit(lambda rows: [row.update(edema=str(int(row["site"] == "south"))) for row in rows])
    data = module(chests)
    [told] = [f for f in data.audit_inputs(data.records, near=False) if "`site` alone" in f.message]
    assert told.examples[0].startswith("edema: AUROC 1.00")


def test_a_flip_is_said(drawn: Path) -> None:
    assert "horizontal-flip" in codes(module(drawn, augmentations=["horizontal_flip"]))
    assert "horizontal-flip" not in codes(module(drawn, augmentations=["brightness"]))


def test_prediction_needs_neither_labels_nor_patients(chests: Path, edit, drawn: Path) -> None:
    schema = module(drawn).schema
    edit(lambda rows: [[row.pop(name) for name in ("patient", "edema", "mass")] for row in rows])
    data = MedicalDataModule(str(chests), findings=["edema", "mass"])
    data.use_card(CARD)
    data.use_schema(schema)
    data.image_size = None
    data.setup("predict")
    assert len(data.predict_records) == 96
    (chests / "manifest.csv").unlink()
    again = MedicalDataModule(str(chests), findings=["edema", "mass"])
    again.use_card(CARD)
    again.use_schema(schema)
    again.setup("predict")
    assert {record.id for record in again.predict_records} == {record.id for record in data.predict_records}
