from pathlib import Path

import pytest

from lightning_transfer.cli.arguments import check_config, split_arguments
from lightning_transfer.cli.errors import UsageError


def test_configs_are_sorted_before_options_wherever_they_stand() -> None:
    words = ["fit", "--model.width", "3", "-c", "a.yaml", "--config=b.yaml", "--trainer.max_epochs=2"]
    found = split_arguments(words)
    assert found.configs == ("a.yaml", "b.yaml")
    assert found.rest == ("--model.width", "3", "--trainer.max_epochs=2")
    assert found.command == tuple(words)


def test_places_stand_directly_behind_the_verb() -> None:
    found = split_arguments(["test", "runs/a", "--ckpt_path", "x.ckpt", "--debug"])
    assert (found.places, found.ckpt_path, found.debug, found.rest) == (("runs/a",), "x.ckpt", True, ())


@pytest.mark.parametrize(
    "words", [["fit", "--config"], ["fit", "--config", "--model.x"], ["test", "--ckpt_path"], ["test", "--baselines"]]
)
def test_an_option_without_its_file_is_named(words: list[str]) -> None:
    with pytest.raises(UsageError, match=words[1]):
        split_arguments(words)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--baselines", "scratch"], "[scratch]"),
        (["--baselines=majority,scratch"], "[majority,scratch]"),
        (["--baselines", "[majority, scratch]"], "[majority, scratch]"),
        (["--baselines", "[]"], "[]"),
    ],
)
def test_baselines_are_short_for_the_option_of_the_evaluation(words: list[str], value: str) -> None:
    assert split_arguments(["test", "runs/a", *words, "--x", "1"]).rest == (
        f"--evaluation.baselines={value}",
        "--x",
        "1",
    )


def _check(path: Path) -> None:
    from toy_recipe.cli import RECIPE

    check_config(str(path), RECIPE)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"trainer: [1, 2\nmodel: {", r"bad\.yaml` is not valid YAML: line 2, column 6"),
        (b"a:\n\t- b", r"line 2, column 1"),
        (b"\xff\xfe\x00\x01", "byte 0 is not UTF-8"),
        (b"", "found nothing"),
        (b"just words", "found str `just words`"),
        (b"- 1\n- 2", "found list"),
        (b"model: 3", "Expected keys below `model`.*got `3`"),
    ],
)
def test_an_unusable_config_says_where_and_what(content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=match):
        _check(path)


def test_a_missing_config_names_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: {}")
    with pytest.raises(UsageError, match=r"min\.yaml`\. Did you mean `mine\.yaml`"):
        _check(tmp_path / "min.yaml")
    with pytest.raises(UsageError, match=r"Did you mean `.*toy_recipe/configs/small\.yaml`"):
        _check(tmp_path / "small.yaml")
    with pytest.raises(UsageError, match="python -m toy_recipe configs"):
        _check(tmp_path / "elsewhere" / "xyzzy.yaml")
    with pytest.raises(UsageError, match=r"got the folder.*Configs in it: mine\.yaml"):
        _check(tmp_path)
