"""torchvision backbones against torchvision itself."""

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import torchvision_models
from lightning_transfer.backbones.weights_file import fill
from lightning_transfer.errors import BackboneError

models = pytest.importorskip("torchvision.models")
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "head", "width"),
    [
        ("resnet18", "fc", 512),
        ("mobilenet_v2", "classifier.1", 1280),
        ("mobilenet_v3_small", "classifier.3", 1024),
        ("squeezenet1_1", "classifier.1", 512),
        pytest.param("vgg11", "classifier.6", 4096, marks=SLOW),
        pytest.param("densenet121", "classifier", 1024, marks=SLOW),
        pytest.param("vit_b_16", "heads.head", 768, marks=SLOW),
        pytest.param("swin_t", "head", 768, marks=SLOW),
        pytest.param("maxvit_t", "classifier.5", 512, marks=SLOW),
        pytest.param("mnasnet0_5", "classifier.1", 1280, marks=SLOW),
    ],
)
def test_only_the_last_classifier_layer_goes(model, head, width):
    whole = models.get_model(model, weights=None).eval()
    built = torchvision_models.build(model, {})
    assert built.heads == (head,)
    assert built.num_features == width
    report = fill(built.module, whole.state_dict(), origin=model, head=built.heads)
    assert set(report.head) == {key for key in whole.state_dict() if key.startswith(f"{head}.")}
    # The oracle is what the whole network hands to its own classifier.
    seen = []
    layer = whole.get_submodule(head)
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        whole(image)
        features = built.module.eval()(image)
    oracle = seen[0].mean(dim=(2, 3)) if seen[0].ndim == 4 else seen[0]
    assert features.shape == (2, width)
    torch.testing.assert_close(features, oracle)


def test_names_stay_torchvisions():
    whole, built = models.mobilenet_v2(), torchvision_models.build("mobilenet_v2", {})
    names = dict(built.module.named_modules())
    assert set(names) == set(dict(whole.named_modules()))
    assert isinstance(names["classifier.1"], nn.Identity)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "auxiliary"), [("googlenet", ("aux1", "aux2")), ("inception_v3", ("AuxLogits",))])
def test_auxiliary_heads_go_too_and_are_reported(model, auxiliary):
    whole = models.get_model(model, weights=None, init_weights=False, transform_input=True, aux_logits=True).eval()
    card = torchvision_models.describe(model, {})
    built = torchvision_models.build(model, card.architecture_config)
    report = fill(built.module, whole.state_dict(), origin=model, head=built.heads)
    assert {key.partition(".")[0] for key in report.head} == {"fc", *auxiliary}
    image = torch.rand(1, *card.input_size)
    with torch.no_grad():
        torch.testing.assert_close(whole.fc(built.module.eval()(image)), whole(image))
    # In train mode the whole network returns a tuple; a backbone never does.
    assert isinstance(built.module.train()(image.repeat(2, 1, 1, 1)), torch.Tensor)


def test_the_card_repeats_torchvisions_transforms():
    for model in ("resnet50", "efficientnet_b1", "vit_b_16.IMAGENET1K_SWAG_E2E_V1", "inception_v3"):
        base, _, tag = model.partition(".")
        enum = models.get_model_weights(base)
        weights = enum[tag] if tag else enum.DEFAULT
        preset = weights.transforms()
        card = torchvision_models.describe(model, {})
        assert card.architecture == f"torchvision/{base}"
        assert card.input_size == (3, preset.crop_size[0], preset.crop_size[0])
        assert card.mean == tuple(preset.mean)
        assert card.std == tuple(preset.std)
        assert card.interpolation == preset.interpolation.value
        assert weights.name in card.pretraining


def test_swag_weights_are_non_commercial_and_change_the_image_size():
    card = torchvision_models.describe("vit_b_16.IMAGENET1K_SWAG_E2E_V1", {})
    assert card.licence == "CC-BY-NC-4.0"
    assert card.architecture_config == {"image_size": 384}
    assert torchvision_models.describe("vit_b_16", {}).licence == "unknown"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet81", "no classification model `resnet81`. Did you mean `resnet18`"),
        ("fasterrcnn_resnet50_fpn", "no classification model `fasterrcnn_resnet50_fpn`"),
        ("resnet18.IMAGENET1K_V9", "no weights `IMAGENET1K_V9` of `resnet18`. Did you mean `IMAGENET1K_V1`"),
    ],
)
def test_unknown_names_get_the_closest_match(model, message):
    with pytest.raises(BackboneError, match=message):
        torchvision_models.describe(model, {})


def test_a_refused_configuration_is_shown():
    with pytest.raises(BackboneError, match=r"cannot build `resnet18`.*depht"):
        torchvision_models.build("resnet18", {"depht": 3})


def test_old_densenet_keys_are_renamed_as_torchvision_does():
    key = "features.denseblock1.denselayer1.norm.1.weight"
    assert list(torchvision_models.convert("densenet121", {key: torch.ones(1)})) == [key.replace("norm.1", "norm1")]
    assert list(torchvision_models.convert("resnet18", {key: torch.ones(1)})) == [key]


def test_the_cache_is_read_safely_and_without_a_network(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    whole = models.squeezenet1_1()
    file = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir()
    torch.save(whole.state_dict(), file)
    state = torchvision_models.pretrained_state("squeezenet1_1", "torchvision/squeezenet1_1")
    assert all(torch.equal(state[key], tensor) for key, tensor in whole.state_dict().items())
    torch.save({"code": Foreign()}, file)
    with pytest.raises(BackboneError, match=r"`torchvision/squeezenet1_1`.*squeezenet1_1-b8a52dc0\.pth"):
        torchvision_models.pretrained_state("squeezenet1_1", "torchvision/squeezenet1_1")


def test_without_cache_and_network_the_way_out_is_named(monkeypatch, tmp_path):
    def unreachable(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "none"))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    with pytest.raises(BackboneError, match=r"no network in this test.*none/checkpoints.*--model\.weights PATH"):
        torchvision_models.pretrained_state("resnet18", "torchvision/resnet18")


class Foreign:
    """A class that no weights file should hold."""
