from pathlib import Path

import pytest

from lightning_transfer.cli import Recipe


def test_classes_and_configs_are_found_by_name() -> None:
    from toy_recipe.cli import RECIPE

    assert RECIPE.module_class().__name__ == "ToyModule"
    assert RECIPE.data_class().__name__ == "ToyData"
    assert {path.name for path in RECIPE.configs.iterdir()} == {"small.yaml", "gradual.yaml"}
    assert RECIPE.command == "python -m toy_recipe"


def test_a_recipe_cannot_be_changed() -> None:
    recipe = Recipe("toy", "toy_recipe", "a:B", "a:C")
    with pytest.raises(AttributeError, match="name"):
        recipe.name = "other"  # type: ignore[misc]


def test_a_package_without_folder_has_no_configs() -> None:
    assert Recipe("x", "no_such_package", "a:B", "a:C").configs == Path("configs")


def test_a_head_may_be_of_another_kind_than_its_recipe() -> None:
    recipe = Recipe("toy", "json", "json:a", "json:b", heads={"c": "json:c"}, kind="transcription",
                    head_kinds={"c": "classification"})  # fmt: skip
    assert [recipe.kind_of(head) for head in ("linear", "c")] == ["transcription", "classification"]
    assert Recipe("toy", "json", "json:a", "json:b").kind_of("linear") == "classification"
