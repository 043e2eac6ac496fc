from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from PIL import Image
from toy_recipe.data import ToyData

from lightning_transfer.cli.export_samples import samples_from_data, samples_from_folder, spread
from lightning_transfer.errors import DataError
from lightning_transfer.types import BackboneCard, Record

MODULE = SimpleNamespace(card=BackboneCard("toy", "toy"), schema=None)


def cli(data):
    trainer = Mock(lightning_module=MODULE, progress_bar_callback=None)
    return SimpleNamespace(datamodule=data, trainer=trainer)


def test_samples_are_spread_over_all_records():
    records = [Record(str(place), None) for place in range(100)]
    ids = [int(record.id) for record in spread(records, 5)]
    assert ids == [0, 25, 50, 74, 99]
    assert spread(records, 100) == spread(records, 1000) == records
    assert len({record.id for record in spread(records, 99)}) == 99


def test_samples_of_the_test_split_and_training_records_for_8_bits():
    data = ToyData()
    found = samples_from_data(cli(data), MODULE, 3)
    assert {record.split for record in found.records} == {"test"}
    assert len(found.records) == 3
    assert found.rule == f"3 of {len(data.records_for('test'))} records of the split `test`"
    assert list(found.test) == data.records_for("test")
    assert {record.split for record in found.training} == {"train"}


def test_without_a_test_split_the_calibration_split_is_taken_and_without_both_validation():
    found = samples_from_data(cli(ToyData(test_fraction=0.0)), MODULE, 200)
    assert {record.split for record in found.records} == {"calibration"}
    assert not found.test
    found = samples_from_data(cli(ToyData(test_fraction=0.0, calibration_fraction=0.0)), MODULE, 200)
    assert {record.split for record in found.records} == {"val"}


def test_data_that_are_gone_are_said_with_the_way_out():
    class Gone(ToyData):
        def read_records(self):
            raise DataError("The root `parts` does not exist.")

    with pytest.raises(DataError, match=r"The root `parts` does not exist\.\n.*`--samples FOLDER`"):
        samples_from_data(cli(Gone()), MODULE, 3)


def test_other_faults_of_the_data_are_not_hidden_by_a_missing_test_split():
    class Unlabelled(ToyData):
        def read_records(self):
            return [Record(f"p{place}", None, None, "test") for place in range(4)]

    with pytest.raises(DataError, match="no label"):
        samples_from_data(cli(Unlabelled()), MODULE, 3)


def test_samples_of_a_folder(tmp_path):
    for name in ("b/2.png", "a/1.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    found = samples_from_folder(tmp_path, 2)
    assert [record.id for record in found.records] == ["a/1.png", "c.png"]
    assert found.rule == f"2 of 3 images below `{tmp_path}`"
    assert not found.training
    with pytest.raises(DataError, match="none"):
        samples_from_folder(tmp_path / "none", 2)
