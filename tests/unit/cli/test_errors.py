"""Messages are made from those of the real parser, so that a change of its wording is seen here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.cli import Recipe
from lightning_transfer.cli.errors import UsageError, explain, explain_instantiation, report
from lightning_transfer.errors import DataError

Toy = Callable[..., Any]
CALLBACKS = "lightning.pytorch.callbacks"

CASES = {
    "wrong key": ({"model": {"widht": 3}}, "Unknown key `model.widht`. Did you mean `model.width`?"),
    "far from any key": ({"model": {"xyzzy": 3}}, "Unknown key `model.xyzzy`. `model` takes: backbone, card,"),
    "wrong section": ({"modle": {"width": 3}}, "Unknown key `modle.width`. Did you mean `model.width`?"),
    "wrong key of the data": ({"data": {"batchsize": 3}}, "Did you mean `data.batch_size`?"),
    "wrong key of the trainer": ({"trainer": {"max_epoch": 3}}, "Did you mean `trainer.max_epochs`?"),
    "wrong type": ({"model": {"width": "wide"}}, "Expected `model.width` to be int, got `wide`."),
    "wrong type of a union": (
        {"trainer": {"max_epochs": "many"}},
        "Expected `trainer.max_epochs` to be int or null, got `many`.",
    ),
    "wrong choice": ({"model": {"size": "smal"}}, "got `smal`. Did you mean `small`?"),
    "unknown class": (
        {"trainer": {"callbacks": [{"class_path": f"{CALLBACKS}.EarlyStoping"}]}},
        f"No class `EarlyStoping` in `{CALLBACKS}`, asked for by `trainer.callbacks`. Did you mean `EarlyStopping`?",
    ),
    "unknown module": (
        {"trainer": {"callbacks": [{"class_path": "lightening.EarlyStopping"}]}},
        "No module `lightening` for the class path `lightening.EarlyStopping` of `trainer.callbacks`. "
        "Did you mean `lightning`?",
    ),
    "wrong argument of a class": (
        {"trainer": {"callbacks": [{"class_path": f"{CALLBACKS}.EarlyStopping", "init_args": {"monitro": "x"}}]}},
        "`EarlyStopping` in `trainer.callbacks` does not take `monitro`. Did you mean `monitor`?",
    ),
    "wrong value within a class": (
        {
            "trainer": {
                "callbacks": [
                    {"class_path": f"{CALLBACKS}.EarlyStopping", "init_args": {"monitor": "x", "patience": "z"}}
                ]
            }
        },
        "In `trainer.callbacks`, EarlyStopping: Expected `patience` to be int, got `z`.",
    ),
    "a class without its required argument": (
        {"trainer": {"callbacks": [{"class_path": f"{CALLBACKS}.EarlyStopping"}]}},
        "arguments are required: monitor",
    ),
    "unknown optimizer": (
        {"model": {"optimizer": {"class_path": "torch.optim.AdamX"}}},
        "No class `AdamX` in `torch.optim`, asked for by `model.optimizer`. Did you mean `Adam`?",
    ),
    "short name of an optimizer": ({"model": {"optimizer": "AdmW"}}, "No class `AdmW`"),
    "wrong argument of an optimizer": (
        {"model": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lrr": 1}}}},
        "`SGD` in `model.optimizer` does not take `lrr`. Did you mean `lr`?",
    ),
    "wrong value of an optimizer": (
        {"model": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": "fast"}}}},
        "In `model.optimizer`, SGD: Expected `lr` to be float or Tensor, got `fast`.",
    ),
    "a value that a callback refuses": (
        {
            "trainer": {
                "callbacks": [
                    {"class_path": "lightning_transfer.DiscriminativeLR", "init_args": {"total_ratio": -3}},
                ]
            }
        },
        "-3",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_config_says_key_value_expectation_and_what_was_near(name: str, toy: Toy, tmp_path: Path) -> None:
    content, message = CASES[name]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    done = toy("fit", "--config", path)
    assert message in done.err
    assert done.code == 2
    assert done.err.count("Error:") == 1
    assert "Traceback" not in done.err
    assert "Subtypes" not in done.err
    assert len(done.err.splitlines()) < 4
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs" / "toy").iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--model.widht", "3"], "Unknown option `--model.widht`. Did you mean `--model.width`?"),
        (["--model.widht=3"], "Unknown option `--model.widht`. Did you mean `--model.width`?"),
        (["--model.width", "wide"], "Expected `model.width` to be int, got `wide`."),
        (["--trainer.callbacks+=EarlyStoping"], "No class `EarlyStoping` for `trainer.callbacks`. Did you mean"),
        (["--model.width", "3", "stray"], "Unexpected word `stray`"),
        (["--trainer.devices", "-3"], "`devices`"),
        (["--data.batch_size", "0"], "Expected `batch_size` of at least 1"),
    ],
)
def test_a_wrong_option_is_explained(option: list[str], message: str, toy: Toy, small: str) -> None:
    done = toy("fit", "--config", small, *option)
    assert message in done.err
    assert done.code == 2


def test_a_missing_value_is_named() -> None:
    found = explain("the following arguments are required: data.root")
    assert found == "Missing `data.root`. Set it in the config, or on the command line: `--data.root VALUE`."


def test_an_unknown_message_is_shown_as_it_is() -> None:
    assert explain("something new\n") == "something new"
    assert explain_instantiation(ValueError("plain")) == "plain"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("use it so"), 2, "Error: use it so\n"),
        (DataError("a leak"), 2, "Error: a leak\n"),
        (MisconfigurationException("wired wrongly"), 2, "Error: wired wrongly\n"),
        (FileNotFoundError(2, "No such file or directory", "x.csv"), 2, "Error: No such file or directory: `x.csv`.\n"),
        (KeyError("odd"), 1, "Error: KeyError: 'odd'\nRun again with --debug to see where.\n"),
    ],
)
def test_each_kind_of_error(error: Exception, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe("toy", "toy_recipe", "a:B", "a:C")
    assert report(error, recipe) == code
    assert capsys.readouterr().err == message
