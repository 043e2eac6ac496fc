from __future__ import annotations

from torch import nn

from lightning_transfer.depth import resolve_depth
from tests.unit.depth.families import build


def _owner(root: nn.Module, **kwargs: str) -> dict[str, str]:
    depth_map = resolve_depth(root, **kwargs)
    return {module: group.name for group in (*depth_map.groups, depth_map.head) for module in group.modules}


def test_modules_without_parameters_join_the_layer_before() -> None:
    owner = _owner(build("timm_resnet50"))
    assert (owner["act1"], owner["maxpool"], owner["layer1.0.act1"]) == ("stem", "stem", "layer1")
    owner = _owner(build("bert_sequence_classification"))
    assert owner["bert.embeddings.dropout"] == "stem"
    assert owner["bert.encoder.layer.1.attention.self.dropout"] == "encoder.layer.1"
    assert owner["bert.encoder"] == "encoder.layer.0"


def test_dropout_before_the_classifier_is_the_classifiers() -> None:
    assert _owner(build("bert_sequence_classification"))["dropout"] == "head"
    assert _owner(build("torchvision_mobilenet_v2"))["classifier.0"] == "head"
    assert _owner(build("timm_vit_base_patch16_224"))["head_drop"] == "head"
    owner = _owner(build("torchvision_vgg16"))
    assert (owner["classifier.2"], owner["classifier.5"]) == ("classifier.0", "head")


def test_a_container_with_the_head_in_it_follows_the_user() -> None:
    assert _owner(build("timm_resnet50"))[""] == "head"
    assert _owner(build("bert_sequence_classification"))["bert"] == "stem"
    assert _owner(build("bert"))[""] == "stem"


def test_what_is_around_the_backbone_follows_the_user_even_without_a_head() -> None:
    root = nn.Module()
    root.model = build("bert")
    owner = _owner(root)
    assert (owner[""], owner["model"]) == ("head", "stem")


def test_a_lightning_module_follows_the_user_even_as_a_backbone_without_a_head() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)

        def layer_groups(self) -> list[nn.Module]:
            return [self.first, self.second]

    class Project(Bare):
        def training_step(self) -> None: ...

        def configure_optimizers(self) -> None: ...

    assert _owner(Bare())[""] == "first"
    assert _owner(Project())[""] == "head"


def test_dropout_that_is_used_at_both_ends_belongs_to_the_container() -> None:
    assert _owner(build("t5"))["encoder.dropout"] == "stem"


def test_what_lies_outside_the_backbone_is_the_heads() -> None:
    root = nn.Module()
    root.augment = nn.Dropout()
    root.head = nn.Linear(2, 1)
    root.backbone = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    root.metric = nn.Sequential(nn.Identity())
    owner = _owner(root)
    assert {owner[name] for name in ("", "augment", "head", "metric", "metric.0")} == {"head"}
    assert (owner["backbone"], owner["backbone.1"]) == ("0", "0")


def test_a_module_that_is_used_twice_belongs_to_its_lowest_layer() -> None:
    act = nn.Dropout()
    root = nn.Module()
    root.backbone = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), act), nn.Sequential(nn.Linear(2, 2), act)])
    root.head = nn.Linear(2, 1)
    owner = _owner(root)
    assert owner["backbone.0.1"] == "0"
    assert "backbone.1.1" not in owner
