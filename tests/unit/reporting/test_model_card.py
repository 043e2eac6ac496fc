from pathlib import Path

import pytest
from make_run import make_fit, make_test

from lightning_transfer.errors import TransferError
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.model_card import model_card, write_model_card
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.verdict import verdict


def test_the_fit_says_what_it_knows_and_the_test_adds_its_scores(tmp_path: Path) -> None:
    run = make_fit(tmp_path / "run")
    before = write_model_card(run).read_text()
    assert "# Model card: run\n" in before
    assert "- train: 120 records in 40 groups" in before
    assert "Not measured yet." in before
    assert "- Not tested yet." in before
    assert "python -m recipes.vision test RUN" in before
    assert "non-commercial use only" in before
    make_test(run)
    after = write_model_card(run).read_text()
    assert "| macro-F1 | 0.700 \\[0.600, 0.800\\] | 60 | 30 |" in after
    assert "Better than the best baseline" in after
    assert "Not tested yet" not in after
    assert "Data check: 2 groups lie on both sides." in after


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    run = make_fit(tmp_path / "run")
    for name in ("plan", "data", "check", "environment"):
        (run / f"{name}.json").unlink()
    text = write_model_card(run).read_text()
    assert "The licence of the pretrained weights is not known here" in text
    assert "- Backbone: not known" in text
    assert "The data were not checked." in text
    assert "None" not in text


def test_a_folder_that_is_no_run_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="it is no run folder"):
        write_model_card(tmp_path)


def test_limits_are_those_of_the_numbers(tmp_path: Path) -> None:
    run = RunFiles.read(make_fit(tmp_path / "run"))
    few = {**run.data, "num_groups": {"train": 7}}
    for data, text in ((few, "come from 7 groups only"), ({**run.data, "num_groups": {}}, "Groups are unknown")):
        changed = RunFiles(**{**vars(run), "data": data})
        limits = model_card(changed, None, verdict(None, Forgetting()))["limits"]
        assert any(text in limit for limit in limits)
        assert any("another seed gives another model" in limit for limit in limits)
