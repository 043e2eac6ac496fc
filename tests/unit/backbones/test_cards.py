"""Card files: every wrong line is told."""

from pathlib import Path

import pytest
import yaml
from torch import nn

from lightning_transfer.backbones.cards import card_values, complete, find_card, front_matter, join, read_card
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import BackboneCard

CARD = BackboneCard(name="timm/x", architecture="timm/x", input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


def write(tmp_path: Path, **values: object) -> Path:
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_whole_card_survives_its_file(tmp_path):
    full = BackboneCard(
        name="a",
        architecture="timm/x",
        source="local",
        num_features=4,
        num_parameters=9,
        input_size=(3, 8, 8),
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 1.0, 1.0),
        pooling="cls",
        architecture_config={"depth": 2},
    )
    assert join(CARD, read_card(write(tmp_path, **full.to_dict()))) == full


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("license", "mit", "Unknown key `license`.*Did you mean `licence`"),
        ("padding", "same", "`padding`.*one of `torch`, `tf_same`, got `same`"),
        ("batchnorm", "foldet", "got `foldet`. Did you mean `folded`"),
        ("interpolation", "cubic", "got `cubic`. Did you mean `bicubic`"),
        ("input_size", [224, 224], r"three positive whole numbers.*got `\[224, 224\]`"),
        ("input_size", [3, 0, 224], r"got `\[3, 0, 224\]`"),
        ("input_size", [3, 8.5, 8], r"got `\[3, 8.5, 8\]`"),
        ("mean", 0.5, "a list of numbers.*got `0.5`"),
        ("mean", ["a", "b", "c"], "a list of numbers"),
        ("std", [0.2, 0.0, 0.2], r"positive numbers.*got `\[0.2, 0.0, 0.2\]`"),
        ("num_features", True, "positive whole number, got `True`"),
        ("licence", False, "a text, got `False`"),
        ("architecture_config", "depth=2", "a mapping, got `depth=2`"),
    ],
)
def test_each_wrong_line_names_key_value_and_what_was_expected(tmp_path, key, value, message):
    with pytest.raises(BackboneError, match=message):
        read_card(write(tmp_path, **{key: value}))


@pytest.mark.parametrize(
    ("content", "message"), [("- a\n- b\n", "found list"), ("a: [", "no valid YAML"), ("", "found NoneType")]
)
def test_files_that_are_no_card_are_refused(tmp_path, content, message):
    path = tmp_path / "card.yaml"
    path.write_text(content)
    with pytest.raises(BackboneError, match=message):
        read_card(path)


def test_a_missing_card_is_named(tmp_path):
    with pytest.raises(BackboneError, match=r"nocard\.yaml"):
        read_card(tmp_path / "nocard.yaml")


def test_objects_of_another_type_are_refused():
    with pytest.raises(TypeError, match="int"):
        card_values(3)


def test_the_file_of_the_same_name_wins_over_the_folders_card(tmp_path):
    weights = tmp_path / "net.safetensors"
    assert find_card(weights) is None
    folder_card = write(tmp_path)
    assert find_card(weights) == folder_card
    own = tmp_path / "net.yaml"
    own.touch()
    assert find_card(weights) == own


def test_counts_are_the_networks_own():
    card = complete(CARD, nn.Linear(3, 4), 4)
    assert (card.num_parameters, card.num_features) == (16, 4)
    assert complete(card, nn.Linear(3, 4), 4) == card


def test_a_card_of_another_network_is_told():
    card = join(CARD, {"num_parameters": 99})
    with pytest.raises(BackboneError, match=r"num_parameters: 99.*has 16"):
        complete(card, nn.Linear(3, 4), 4)


def test_mean_must_fit_the_channels():
    with pytest.raises(BackboneError, match=r"1 values in `mean`.*3 channels"):
        complete(join(CARD, {"mean": (0.5,)}), nn.Linear(3, 4), 4)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: mit\n---\n# Hello", "mit"),
        ("# Hello\n---\nlicense: mit\n---\n", None),
        ("---\n: : [\n---\n", None),
        ("", None),
    ],
)
def test_the_front_matter_of_a_model_card(tmp_path, text, licence):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    assert front_matter(readme).get("license") == licence
    assert front_matter(tmp_path / "none.md") == {}
