from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_transfer.depth import DepthMap, resolve_depth
from tests.unit.depth.families import FAMILIES, GOLDEN, PlainProject, build, table


def _named(depth_map: DepthMap) -> dict[str, tuple[int, ...]]:
    return {group.name: (group.depth, len(group.parameters)) for group in depth_map.groups}


def _assert_a_partition(root: nn.Module, depth_map: DepthMap) -> None:
    for layers in (depth_map.groups, depth_map.layers):
        whole = (*layers, depth_map.head)
        assert sorted(name for layer in whole for name in layer.parameters) == sorted(dict(root.named_parameters()))
        assert [layer.depth for layer in layers] == list(range(len(layers)))
        assert len({layer.name for layer in whole}) == len(whole)
    modules = [name for layer in (*depth_map.groups, depth_map.head) for name in layer.modules]
    assert sorted(modules) == sorted(dict(root.named_modules()))
    assert depth_map.head.depth == len(depth_map.groups)


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_table(family: str) -> None:
    root = build(family)
    depth_map = resolve_depth(root)
    _assert_a_partition(root, depth_map)
    assert table(depth_map) == (GOLDEN / f"{family}.txt").read_text(encoding="utf-8")


def test_there_is_no_golden_table_without_a_family() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(FAMILIES)


@pytest.mark.parametrize("family", ["timm_resnet50", "torchvision_vgg16", "bert_sequence_classification"])
def test_a_model_in_a_project_has_the_table_of_the_bare_model(family: str) -> None:
    project = nn.Module()
    project.model = build(family)
    bare, inside = resolve_depth(build(family)), resolve_depth(project)
    assert inside.backbones == ("model",)
    assert [(g.name, g.depth, tuple(f"model.{name}" for name in g.parameters)) for g in bare.groups] == [
        (g.name, g.depth, g.parameters) for g in inside.groups
    ]
    assert inside.head.parameters == tuple(f"model.{name}" for name in bare.head.parameters)


def test_an_example_of_a_plain_project_by_hand() -> None:
    depth_map = resolve_depth(PlainProject())
    assert _named(depth_map) == {"stem": (0, 2), "blocks.0": (1, 4), "blocks.1": (2, 4), "blocks.2": (3, 6)}
    assert depth_map.groups[3].parameters[-2:] == ("model.norm.weight", "model.norm.bias")
    assert depth_map.groups[1].modules == tuple(
        f"model.blocks{end}" for end in ("", ".0", ".0.0", ".0.1", ".0.2", ".0.3")
    )
    assert depth_map.head.parameters == ("head.weight", "head.bias")
    assert depth_map.head.modules == ("", "dropout", "head", "loss")


def test_layer_groups_come_before_all_other_evidence() -> None:
    root = build("timm_resnet50")
    depth_map = resolve_depth(root, layer_groups=["conv1|bn1", r"layer[12]\.", r"layer[34]\."])
    _assert_a_partition(root, depth_map)
    assert depth_map.evidence == "layer_groups argument"
    assert [len(group.parameters) for group in depth_map.groups] == [3, 69, 87]
    assert depth_map.layers == depth_map.groups


def test_layer_groups_are_shared_out_among_several_backbones() -> None:
    root = nn.Module()
    root.image, root.text = build("timm_resnet50"), build("bert")
    patterns = ["conv1|bn1|embeddings", "layer", "encoder|pooler"]
    depth_map = resolve_depth(root, backbone=["image", "text"], layer_groups=patterns)
    _assert_a_partition(root, depth_map)
    with pytest.raises(ValueError, match=r"No parameter matches `nothing`"):
        resolve_depth(root, backbone=["image", "text"], layer_groups=[*patterns, "nothing"])


def test_the_models_own_layer_groups_come_before_structure() -> None:
    class Net(nn.Sequential):
        def layer_groups(self) -> list[nn.Module]:
            return [self[0], nn.ModuleList([self[1], self[2]])]

    root = nn.Module()
    root.backbone = Net(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    root.head = nn.Linear(2, 1)
    depth_map = resolve_depth(root)
    assert depth_map.evidence == "module.layer_groups()"
    assert [len(group.parameters) for group in depth_map.groups] == [2, 4]


class Unordered(nn.Module):
    """Registered in another order than it runs in, and without any list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.first = nn.Conv1d(1, 1, 1)
        self.second = nn.Bilinear(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.norm(self.last(self.second(x, x)))


def _unordered() -> nn.Module:
    root = nn.Module()
    root.backbone, root.head = Unordered(), nn.Linear(4, 2)
    return root


def test_execution_order_is_read_where_there_is_an_example() -> None:
    root = _unordered()
    depth_map = resolve_depth(root, example_input=torch.zeros(2, 1, 3))
    assert depth_map.evidence == "execution order"
    assert _named(depth_map) == {"first": (0, 2), "second": (1, 2), "last": (2, 4)}
    assert not depth_map.warnings


def test_registration_order_is_the_last_resort_and_says_so() -> None:
    depth_map = resolve_depth(_unordered())
    assert depth_map.evidence == "registration order"
    assert list(_named(depth_map)) == ["last", "first", "second"]
    assert "`backbone` was read off the order in which its children are registered" in depth_map.warnings[0]


def test_structure_needs_no_example() -> None:
    assert resolve_depth(PlainProject(), example_input=torch.zeros(1)).evidence == "structure"


def test_several_backbones_share_depths() -> None:
    root = nn.Module()
    root.image, root.text, root.head = build("timm_resnet50"), build("bert"), nn.Linear(2, 2)
    depth_map = resolve_depth(root, backbone=["image", "text"], head=["head", "image.fc"])
    _assert_a_partition(root, depth_map)
    assert depth_map.backbones == ("image", "text")
    assert [group.name for group in depth_map.groups] == [
        "image.stem + text.stem",
        "image.layer1 + text.encoder.layer.0",
        "image.layer2",
        "image.layer3 + text.encoder.layer.1",
        "image.layer4 + text.encoder.layer.2",
    ]
    assert depth_map.evidence == "timm group_matcher, structure"


def test_tied_tensors_are_named_once_at_their_lowest_depth() -> None:
    root = nn.Module()
    root.head = nn.Linear(4, 7, bias=False)
    root.backbone = nn.Module()
    root.backbone.embed = nn.Embedding(7, 4)
    root.backbone.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(2))
    root.backbone.embed.weight = root.head.weight
    depth_map = resolve_depth(root)
    _assert_a_partition(root, depth_map)
    assert depth_map.groups[0].parameters == ("head.weight",)
    assert depth_map.head.parameters == ()


def test_blocks_that_share_all_their_weights_are_one_group() -> None:
    block = nn.Sequential(nn.Linear(4, 4))
    root = nn.Module()
    root.backbone = nn.ModuleList([nn.Sequential(nn.Linear(4, 4)), block, block])
    root.head = nn.Linear(4, 1)
    depth_map = resolve_depth(root)
    _assert_a_partition(root, depth_map)
    assert _named(depth_map) == {"0": (0, 2), "1": (1, 2)}


def test_a_compiled_model_has_the_same_layers() -> None:
    project = PlainProject()
    plain = resolve_depth(project)
    project.model = torch.compile(project.model)
    compiled = resolve_depth(project)
    _assert_a_partition(project, compiled)
    assert _named(compiled) == _named(plain)
    assert compiled.backbones == ("model",)
    assert compiled.groups[0].parameters == ("model._orig_mod.embed.weight", "model._orig_mod.embed.bias")
    assert {id(v) for _, v in plain.named_parameters(project, plain.groups[0])} == {
        id(v) for _, v in compiled.named_parameters(project, compiled.groups[0])
    }


def test_a_compiled_block_has_the_same_layers() -> None:
    project = PlainProject()
    plain = resolve_depth(project)
    project.model.blocks[1] = torch.compile(project.model.blocks[1])
    depth_map = resolve_depth(project)
    _assert_a_partition(project, depth_map)
    assert _named(depth_map) == _named(plain)


def test_a_data_parallel_model_has_the_same_layers() -> None:
    project = PlainProject()
    plain = resolve_depth(project)
    project.model = nn.DataParallel(project.model)
    depth_map = resolve_depth(project)
    _assert_a_partition(project, depth_map)
    assert _named(depth_map) == _named(plain)


def test_a_users_attribute_called_module_is_not_a_wrapper() -> None:
    root = nn.Module()
    root.backbone = nn.Module()
    root.backbone.module = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
    root.head = nn.Linear(2, 1)
    assert list(_named(resolve_depth(root))) == ["module.0", "module.1"]


def _peft(kind: str) -> nn.Module:
    import peft

    project = nn.Module()
    base = copy.deepcopy(_bert())
    config = {
        "lora": lambda: peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "dense"]),
        "ia3": lambda: peft.IA3Config(
            task_type="SEQ_CLS",
            target_modules=["key", "intermediate.dense"],
            feedforward_modules=["intermediate.dense"],
        ),
        "prompt": lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4),
    }[kind]()
    project.model = peft.get_peft_model(base, config)
    return project


def _bert() -> nn.Module:
    import transformers

    from tests.unit.depth.families import TEXT

    return transformers.BertForSequenceClassification(transformers.BertConfig(**TEXT))


@pytest.mark.parametrize("kind", ["lora", "ia3", "prompt"])
def test_under_peft_the_depth_is_the_full_models(kind: str) -> None:
    project, plain = _peft(kind), resolve_depth(_bert())
    depth_map = resolve_depth(project)
    _assert_a_partition(project, depth_map)
    assert [group.name for group in depth_map.groups] == [group.name for group in plain.groups]
    assert depth_map.backbones == ("model",)
    for group in depth_map.groups:
        layer = group.name.split(".")[-1]
        if layer != "stem":
            assert all(f"encoder.layer.{layer}." in name or "pooler" in name for name in group.parameters)
    assert any("modules_to_save" in name for name in depth_map.head.parameters)
    assert any("prompt_encoder" in name for name in depth_map.head.parameters) == (kind == "prompt")


def test_a_prompt_encoder_beside_a_bare_model_is_the_head() -> None:
    import peft

    config = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4)
    depth_map = resolve_depth(peft.get_peft_model(_bert().bert, config))
    assert depth_map.head.parameters == ("prompt_encoder.default.embedding.weight",)
    assert depth_map.backbones == ("",)


def test_adapters_on_timm_have_the_depth_of_their_host() -> None:
    import peft
    import timm

    project = nn.Module()
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=3)
    project.model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["qkv"], modules_to_save=["head"]))
    depth_map = resolve_depth(project)
    _assert_a_partition(project, depth_map)
    assert depth_map.evidence == "timm group_matcher"
    assert [group.name for group in depth_map.groups] == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    adapters = [name for name, value in project.named_parameters() if "lora_" in name]
    assert len(adapters) == 6
    for name in adapters:
        owner = next(group.name for group in depth_map.groups if name in group.parameters)
        assert f".{owner}." in name
    assert all(".head." in name for name in depth_map.head.parameters)


def test_resolving_changes_nothing() -> None:
    root = _unordered()
    root.backbone.norm.eval()
    before = {name: (module.training, dict(module.__dict__)) for name, module in root.named_modules()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    resolve_depth(root, example_input=torch.zeros(2, 1, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in root.named_modules()} == {
        name: mode for name, (mode, _) in before.items()
    }
    assert all(not module._forward_pre_hooks for module in root.modules())


def test_a_head_that_is_the_whole_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Nothing is left of the backbone `model`: `head='model'`"):
        resolve_depth(PlainProject(), head="model")


def test_an_undecided_head_lists_the_children() -> None:
    root = nn.Module()
    root.net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"new head.*`net\.0` \(Linear\), `net\.2` \(Linear\).*Pass `head=`"):
        resolve_depth(root)
    assert resolve_depth(root, head="net.2").head.parameters == ("net.2.weight", "net.2.bias")


def test_a_single_parameter_can_be_the_head() -> None:
    root = PlainProject()
    root.model.prompt = nn.Parameter(torch.zeros(3))
    depth_map = resolve_depth(root, head=["model.prompt", "head"])
    assert depth_map.head.parameters == ("model.prompt", "head.weight", "head.bias")


def test_a_classifier_inside_counts_as_pretrained_beside_a_head_outside() -> None:
    root = nn.Module()
    root.backbone, root.head = build("timm_resnet50"), nn.Linear(10, 2)
    depth_map = resolve_depth(root)
    assert depth_map.head.parameters == ("head.weight", "head.bias")
    assert "backbone.fc.weight" in depth_map.groups[-1].parameters
    assert "`backbone.fc` inside the backbone `backbone` counts as pretrained" in depth_map.warnings[0]


def test_a_loss_with_weights_does_not_make_the_classifier_inside_old() -> None:
    class CentreLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres = nn.Parameter(torch.zeros(2, 10))

    root = nn.Module()
    root.model, root.centre_loss, root.log_scale = build("timm_resnet50"), CentreLoss(), nn.Parameter(torch.ones(()))
    assert set(resolve_depth(root).head.parameters) == {
        "model.fc.weight", "model.fc.bias", "centre_loss.centres", "log_scale",
    }  # fmt: skip
