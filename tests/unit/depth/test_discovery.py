from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_transfer.depth.discovery import find_backbones, find_head
from lightning_transfer.depth.tree import build_tree
from tests.unit.depth.families import build


def _project(**children: nn.Module) -> nn.Module:
    root = nn.Module()
    for name, child in children.items():
        setattr(root, name, child)
    return root


def _backbone(root: nn.Module) -> str:
    return find_backbones(build_tree(root), None)[0].path


def _head(model: nn.Module) -> list[str]:
    found = find_head(build_tree(model), others_are_head=False)
    assert found.decided
    return [node.path for node in found.head]


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["backbone", "encoder", "model", "feature_extractor"])
def test_a_backbone_is_found_by_its_name(name: str) -> None:
    assert _backbone(_project(neck=nn.Linear(2, 2), **{name: _net()}, head=nn.Linear(2, 1))) == name


def test_a_backbone_is_found_by_the_library_that_made_it() -> None:
    assert _backbone(_project(vision=build("timm_resnet50"), projector=nn.Linear(2, 1))) == "vision"


def test_metrics_and_losses_are_no_backbones() -> None:
    root = _project(loss=nn.CrossEntropyLoss(), val_metrics=nn.ModuleDict(), classifier_net=_net())
    assert _backbone(root) == "classifier_net"
    assert _backbone(_project(perceptual_loss=build("torchvision_vgg16"), vision=build("timm_resnet50"))) == "vision"


def test_a_library_model_is_found_inside_a_users_class() -> None:
    inner = _project(encoder=build("timm_resnet50"), fc=nn.Linear(2, 1))
    assert _backbone(_project(model=inner)) == "model.encoder"
    assert _backbone(_project(model=nn.Sequential(build("bert"), nn.Linear(2, 1)))) == "model.0"


def test_a_bare_library_model_is_its_own_backbone() -> None:
    assert _backbone(build("timm_resnet50")) == ""


def test_two_names_are_ambiguous_unless_a_library_made_one() -> None:
    with pytest.raises(ValueError, match=r"`backbone` \(Sequential, 12 weights\), `model` .*pass `backbone=`"):
        _backbone(_project(backbone=_net(), model=_net()))
    assert _backbone(_project(encoder=_net(), model=build("bert"))) == "model"


def test_two_library_models_are_ambiguous_unless_one_is_tiny() -> None:
    with pytest.raises(ValueError, match=r"`vision` \(ResNet, 23,528,522 weights\)"):
        _backbone(_project(vision=build("timm_resnet50"), text=build("timm_vit_base_patch16_224")))
    assert _backbone(_project(vision=build("timm_resnet50"), text=build("bert"))) == "vision"


def test_wrong_names_are_refused() -> None:
    tree = build_tree(_project(backbone=_net(), relu=nn.ReLU()))
    with pytest.raises(ValueError, match=r"`bakbone`.*Did you mean `backbone`\?.*`backbone`, `relu`"):
        find_backbones(tree, "bakbone")
    with pytest.raises(ValueError, match=r"`relu` \(ReLU\) has no parameters"):
        find_backbones(tree, "relu")
    with pytest.raises(ValueError, match=r"`backbone\.0` lies inside the backbone `backbone`"):
        find_backbones(tree, ["backbone", "backbone.0"])
    with pytest.raises(ValueError, match=r"at least one name in `backbone`"):
        find_backbones(tree, [])


def test_a_compiled_backbone_answers_to_both_its_names() -> None:
    root = _project(backbone=torch.compile(_net()))
    assert [find_backbones(build_tree(root), name)[0].path for name in ("backbone", "backbone._orig_mod")] == [
        "backbone", "backbone",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("timm_convnext_tiny", ["head.fc"]),
        ("timm_vgg16", ["head.fc"]),
        ("torchvision_resnet18", ["fc"]),
        ("torchvision_squeezenet1_0", ["classifier"]),
        ("torchvision_vgg16", ["classifier.6"]),
        ("bert", []),
        ("bert_sequence_classification", ["classifier"]),
        ("deberta_v2_sequence_classification", ["pooler", "classifier"]),
        ("distilbert_sequence_classification", ["pre_classifier", "classifier"]),
        ("wav2vec2_ctc", ["lm_head"]),
        ("whisper_audio_classification", ["projector", "classifier"]),
        ("gpt2_lm", []),
    ],
)
def test_the_head_of_a_library_model(family: str, head: list[str]) -> None:
    assert _head(build(family)) == head


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("mobilenet_v3_small", ["classifier.3"]),
        ("convnext_tiny", ["classifier.2"]),
        ("efficientnet_b0", ["classifier"]),
        ("densenet121", ["classifier"]),
        ("vit_b_16", ["heads"]),
        ("swin_t", ["head"]),
        ("alexnet", ["classifier.6"]),
        ("inception_v3", ["fc", "AuxLogits.fc"]),
    ],
)
def test_the_head_of_a_torchvision_model(name: str, head: list[str]) -> None:
    import torchvision

    with torch.device("meta"):
        kwargs = {"init_weights": False} if name == "inception_v3" else {}
        assert _head(torchvision.models.get_model(name, weights=None, num_classes=3, **kwargs)) == head


def test_a_classifier_that_the_user_put_in_is_new_as_a_whole() -> None:
    vgg = build("torchvision_vgg16")
    vgg.classifier = nn.Sequential(nn.Linear(25088, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    assert _head(vgg) == ["classifier"]
    resnet = build("timm_resnet50")
    resnet.fc = nn.Sequential(nn.Linear(2048, 8), nn.ReLU(), nn.Linear(8, 2))
    assert _head(resnet) == ["fc"]


def test_a_timm_model_without_classes_has_no_head() -> None:
    import timm

    with torch.device("meta"):
        assert _head(timm.create_model("resnet18", num_classes=0)) == []


def test_a_timm_feature_extractor_has_no_head() -> None:
    import timm

    with torch.device("meta"):
        model = timm.create_model("resnet18", features_only=True)
    assert _head(model) == []
    assert _backbone(_project(trunk_of_mine=model, decoder=nn.Linear(2, 1))) == "trunk_of_mine"


def test_a_pretrained_part_beside_the_base_is_no_head() -> None:
    import transformers

    with torch.device("meta"):
        config = transformers.ModernBertConfig(num_hidden_layers=1, hidden_size=24, intermediate_size=8)
        assert _head(transformers.ModernBertForSequenceClassification(config)) == ["classifier"]


def test_timm_models_with_two_classifiers() -> None:
    import timm

    with torch.device("meta"):
        assert _head(timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3)) == ["head", "head_dist"]


def test_a_timm_model_in_transformers_clothes() -> None:
    import transformers

    config = transformers.TimmWrapperConfig(architecture="resnet18", num_labels=3)
    with torch.device("meta"):
        assert _head(transformers.TimmWrapperForImageClassification(config)) == ["timm_model.fc"]


def test_a_pretrained_output_layer_is_said_to_be_no_head() -> None:
    warnings = find_head(build_tree(build("bert_masked_lm")), others_are_head=False).warnings
    assert "`cls` was pretrained" in warnings[0]


def test_the_last_module_is_a_head_only_if_it_is_called_so() -> None:
    assert _head(_project(body=_net(), head=nn.Linear(2, 1))) == ["head"]
    for undecided in (_project(body=_net(), out=nn.Linear(2, 1)), _project(head=nn.Linear(2, 2), out=nn.Linear(2, 1))):
        assert not find_head(build_tree(undecided), others_are_head=False).decided
