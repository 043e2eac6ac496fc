from pathlib import Path

import pytest

from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.heads import find_head
from lightning_transfer.cli.recipe import Recipe

RECIPE = Recipe("toy", "json", "json:a", "json:b", heads={"normal_only": "json.decoder:JSONDecoder"})


@pytest.mark.parametrize(
    ("configs", "words", "head"),
    [
        ([], [], "linear"),
        (["model: {head: normal_only}"], [], "normal_only"),
        (["model: {head: normal_only}", "model: {backbone: x}"], [], "normal_only"),
        (["model: {head: normal_only}", "model: {head: linear}"], [], "linear"),
        (["model: {head: normal_only}"], ["--model.head", "linear"], "linear"),
        ([], ["--model.head=linear", "--x", "1", "--model.head=normal_only"], "normal_only"),
        (["model: {head: null}"], [], "linear"),
        (["data: {root: x}"], ["--model.headless", "y"], "linear"),
    ],
)
def test_the_last_one_counts(tmp_path: Path, configs: list[str], words: list[str], head: str) -> None:
    paths = []
    for number, text in enumerate(configs):
        paths.append(str(tmp_path / f"{number}.yaml"))
        Path(paths[-1]).write_text(text)
    assert find_head(RECIPE, paths, words) == head


def test_a_checkpoints_own_config_comes_as_json() -> None:
    assert find_head(RECIPE, ['{"model": {"head": "normal_only"}, "data": {}}'], []) == "normal_only"


def test_an_unknown_head_is_named_with_what_exists() -> None:
    with pytest.raises(UsageError, match=r"No head `normal_onyl`.*Did you mean `normal_only`.*linear, normal_only"):
        find_head(RECIPE, [], ["--model.head", "normal_onyl"])


def test_a_recipe_gives_the_class_of_a_head() -> None:
    assert RECIPE.module_class("normal_only").__name__ == "JSONDecoder"
