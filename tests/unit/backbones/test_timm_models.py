"""timm backbones against timm itself."""

import pytest
import torch
from safetensors.torch import save_file

from lightning_transfer.backbones import timm_models
from lightning_transfer.errors import BackboneError

timm = pytest.importorskip("timm")
huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.mark.parametrize(
    "model",
    [
        "resnet10t",
        "test_vit",
        "test_convnext",
        "mobilenetv3_small_050",
        "test_efficientnet",
        pytest.param("vgg11", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow),
        pytest.param("levit_128s", marks=pytest.mark.slow),
    ],
)
def test_features_are_timms_own(model):
    oracle = timm.create_model(model, num_classes=0).eval()
    built = timm_models.build(model, {})
    built.module.load_state_dict(oracle.state_dict())
    image = torch.rand(1, *oracle.pretrained_cfg["input_size"])
    with torch.no_grad():
        features = built.module.eval()(image)
        torch.testing.assert_close(features, oracle(image))
    assert features.shape == (1, built.num_features)


def test_the_heads_cover_all_that_timm_removes():
    for model in ("levit_128s", "resnet10t", "test_convnext"):
        whole = timm.create_model(model)
        built = timm_models.build(model, {})
        extra = set(whole.state_dict()) - set(built.module.state_dict())
        assert extra
        assert all(key.startswith(tuple(f"{name}." for name in built.heads)) for key in extra)


def test_the_card_repeats_timms_configuration():
    for model in ("resnet18.a1_in1k", "vit_base_patch16_clip_224.openai", "tf_efficientnet_b0.ns_jft_in1k"):
        settings = timm.get_pretrained_cfg(model)
        card = timm_models.describe(model, {})
        assert card.architecture == f"timm/{model}"
        assert card.input_size == tuple(settings.input_size)
        assert card.mean == tuple(settings.mean)
        assert card.std == tuple(settings.std)
        assert card.interpolation == settings.interpolation
        assert card.licence == (settings.license or "unknown")


def test_the_default_weights_are_named_in_the_architecture():
    assert timm_models.describe("resnet18", {}).architecture == "timm/resnet18.a1_in1k"


def test_a_model_without_weights_has_no_tag_and_says_so():
    assert timm_models.describe("mixer_s32_224", {}).architecture == "timm/mixer_s32_224"
    with pytest.raises(BackboneError, match=r"no pretrained weights for `mixer_s32_224`.*--model.weights PATH"):
        timm_models.pretrained_state("mixer_s32_224", {}, "timm/mixer_s32_224")


def test_other_channels_leave_the_normalisation_open():
    card = timm_models.describe("test_vit", {"in_chans": 1, "img_size": 64})
    assert (card.input_size, card.mean, card.std) == ((1, 64, 64), None, None)
    assert timm_models.build("test_vit", {"in_chans": 1, "img_size": 64}).module(torch.zeros(1, 1, 64, 64)).ndim == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet81", "no model `resnet81`. Did you mean `resnet18`"),
        ("resnet18.a1_in2k", "no weights `a1_in2k` of `resnet18`. Did you mean `a1_in1k`"),
    ],
)
def test_unknown_names_get_the_closest_match(model, message):
    with pytest.raises(BackboneError, match=message):
        timm_models.describe(model, {})


def test_a_refused_configuration_is_shown():
    with pytest.raises(BackboneError, match=r"cannot build `resnet10t`.*blocks_per_stage"):
        timm_models.build("resnet10t", {"blocks_per_stage": 3})


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Point the hub's cache at an empty folder, and cut the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # The download functions hold the cache's folder as the default of an argument.
    fetch = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *args, **kwargs: fetch(*args, cache_dir=tmp_path / "hub", **kwargs)
    )
    return tmp_path / "hub"


def test_without_cache_and_network_the_way_out_is_named(offline):
    with pytest.raises(BackboneError, match=rf"`timm/test_vit`.*{offline}.*does not exist.*--model\.weights PATH"):
        timm_models.pretrained_state("test_vit", {}, "timm/test_vit")


def test_the_hubs_cache_is_read_without_a_network(offline, monkeypatch):
    settings = timm.get_pretrained_cfg("test_vit")
    snapshot = offline / f"models--{settings.hf_hub_id.replace('/', '--')}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    references = snapshot.parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text("0" * 40)
    (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    oracle = timm.create_model("test_vit")
    save_file(oracle.state_dict(), snapshot / "model.safetensors")

    def ask_the_hub(*args, **kwargs):
        raise AssertionError("timm itself tries the network for most of a minute, even for what is in the cache")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", ask_the_hub)
    state = timm_models.pretrained_state("test_vit", {}, "timm/test_vit")
    assert set(state) == set(oracle.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in oracle.state_dict().items())


def test_the_licence_comes_from_the_model_card_in_the_cache(monkeypatch, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("---\nlicense: apache-2.0\n---\n")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(readme))
    assert timm_models.licence_of("test_vit") == "apache-2.0"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert timm_models.licence_of("test_vit") is None


def test_without_the_pool_of_the_stem_maps_are_twice_as_fine():
    config = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16], "stem_width": 8}
    coarse = timm_models.build("resnet10t", config).module
    fine = timm_models.build("resnet10t", {**config, "stem_pool": False}).module
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 64, 64)
    assert coarse.forward_features(image).shape[-2:] == (2, 2)
    assert fine.forward_features(image).shape[-2:] == (4, 4)
    whole = timm_models.build_whole("resnet10t", {**config, "stem_pool": False}, 5)
    assert isinstance(whole.maxpool, torch.nn.Identity)


def test_pools_that_double_the_features_are_counted():
    built = timm_models.build("resnet10t", {"channels": [8, 8, 8, 16], "stem_width": 8, "global_pool": "catavgmax"})
    assert built.num_features == built.module.eval()(torch.zeros(1, 3, 64, 64)).shape[1] == 32


def test_a_network_without_a_pool_after_its_stem_says_so():
    with pytest.raises(BackboneError, match=r"`stem_pool: false` needs a network .* `test_convnext` has none"):
        timm_models.build("test_convnext", {"stem_pool": False})
