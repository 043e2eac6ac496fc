"""Networks from their cards."""

import pytest
import torch
from torch import nn

from lightning_transfer.backbones.architectures import build, describe, finish, is_source_head, split
from lightning_transfer.backbones.weights_file import extract_head, fill
from lightning_transfer.errors import BackboneError

models = pytest.importorskip("torchvision.models")
timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("torchvison/resnet18", "`torchvison/resnet18`. Did you mean `torchvision`"),
        ("timm", "`timm`"),
        ("embedded/x", "timm, torchvision, hf"),
    ],
)
def test_unknown_libraries_are_told(architecture, message):
    with pytest.raises(BackboneError, match=message):
        split(architecture)


@pytest.mark.parametrize("architecture", ["timm/resnet10t", "torchvision/squeezenet1_1"])
def test_the_counts_are_true(architecture):
    built, card = finish(*(lambda card: (build(card), card))(describe(architecture, {})))
    assert card.num_parameters == sum(item.numel() for item in built.module.parameters())
    with torch.no_grad():
        assert built.module.eval()(torch.zeros(1, *card.input_size)).shape == (1, card.num_features)


def test_finish_returns_open_networks_in_train_mode():
    card = describe("torchvision/squeezenet1_1", {})
    built, _ = finish(build(card), card)
    assert all(module.training for module in built.module.modules())
    assert all(item.requires_grad for item in built.module.parameters())


def test_timms_own_same_padding_is_in_the_card():
    for model, padding in (("tf_efficientnet_b0", "tf_same"), ("efficientnet_b0", "torch")):
        card = describe(f"timm/{model}", {})
        assert finish(build(card), card)[1].padding == padding


def test_a_transformers_card_describes_itself():
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    card = describe("hf/bert", tiny)
    assert (card.modality, card.pooling) == ("text", "mean")
    assert finish(build(card), card)[1].num_features == 8


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("timm/resnet10t", True),
        ("timm/deit_tiny_distilled_patch16_224", False),
        ("torchvision/squeezenet1_1", False),
        pytest.param("torchvision/mobilenet_v2", True, marks=pytest.mark.slow),
    ],
)
def test_a_source_head_must_give_the_whole_networks_logits(architecture, expected):
    library, model = split(architecture)
    whole = timm.create_model(model) if library == "timm" else models.get_model(model, weights=None)
    for parameter in whole.parameters():
        # Fresh heads are near zero, and then all logits look alike.
        nn.init.kaiming_normal_(parameter) if parameter.ndim > 1 else None
    card = describe(architecture, {})
    built, card = finish(build(card), card)
    state = whole.state_dict()
    fill(built.module, state, origin="test", head=built.heads)
    head = extract_head(state, built.module, built.heads[:1])
    assert is_source_head(head, built, card, state) is expected
    if expected:
        with torch.no_grad():
            head.weight.mul_(1.5)
        assert not is_source_head(head, built, card, state)
