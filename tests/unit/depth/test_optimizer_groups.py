from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from lightning_transfer.depth import layer_decay_scales, resolve_depth, set_multipliers, split_param_groups
from tests.unit.depth.families import TIMM, PlainProject, build


@pytest.fixture
def project() -> PlainProject:
    torch.manual_seed(0)
    return PlainProject()


# Layers that timm's matcher leaves out, and its decay therefore takes for head: they were pretrained.
LEFT_OUT_BY_TIMM = {
    "timm_convnext_tiny": "head.norm.",
    "timm_mobilenetv3_large_100": "conv_head.",
    "timm_vgg16": "pre_logits.",
}


@pytest.mark.parametrize("family", TIMM)
def test_scales_are_those_of_timm(family: str) -> None:
    from timm.optim import param_groups_layer_decay

    model = build(family)
    names = {id(value): name for name, value in model.named_parameters()}
    expected = {
        names[id(value)]: group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.7)
        for value in group["params"]
    }
    scales = layer_decay_scales(resolve_depth(model), layer_decay=0.7)
    left_out = {name for name in expected if name.startswith(LEFT_OUT_BY_TIMM.get(family, "-"))}
    assert bool(left_out) == (family in LEFT_OUT_BY_TIMM)
    assert {expected[name] for name in left_out} <= {1.0}
    assert {scales[name] for name in left_out} <= {0.7}
    assert {n: s for n, s in scales.items() if n not in left_out} == pytest.approx(
        {n: s for n, s in expected.items() if n not in left_out}
    )


def test_scales_by_hand(project: PlainProject) -> None:
    depth_map = resolve_depth(project)
    scales = layer_decay_scales(depth_map, layer_decay=0.5, head_lr_multiplier=3)
    assert scales["head.bias"] == 3.0
    assert scales["model.norm.weight"] == scales["model.blocks.2.0.weight"] == 0.5
    assert scales["model.embed.weight"] == 0.5**4
    assert set(scales) == set(dict(project.named_parameters()))


def test_multipliers_stand_in_for_the_scales_of_what_they_name() -> None:
    """Coarse groups of a resnet hold several fine layers; names read off the parameters are the oracle."""
    model = build("timm_resnet50")
    depth_map = resolve_depth(model)
    ladder = layer_decay_scales(depth_map, layer_decay=0.9)
    given = {"layer3.2": 0.6, "stem": 0.01, "layer3": 0.5, "head": 2.0}
    for multipliers in (given, dict(reversed(given.items()))):
        scales = set_multipliers(depth_map, ladder, multipliers)
        assert scales.keys() == ladder.keys() == dict(model.named_parameters()).keys()
        for name, scale in scales.items():
            if name.startswith(("conv1.", "bn1.")):
                assert scale == 0.01
            elif name.startswith("layer3."):
                assert scale == (0.6 if name.startswith("layer3.2.") else 0.5)
            else:
                assert scale == (2.0 if name.startswith("fc.") else ladder[name])


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("layr4", r"'layr4', given in `multipliers`. Did you mean `layer4`\? Groups: stem, layer1, .*layer4, head"),
        ("layer3.9", r"Did you mean `layer3\.\d`\? .*Layers in them: .*layer4\.2"),
        ("", r"No layer is called ''"),
    ],
)
def test_a_wrong_name_in_multipliers_is_named_beside_what_exists(name: str, match: str) -> None:
    depth_map = resolve_depth(build("timm_resnet50"))
    with pytest.raises(ValueError, match=match):
        set_multipliers(depth_map, layer_decay_scales(depth_map, layer_decay=0.9), {"stem": 0.1, name: 1.0})


@pytest.mark.parametrize("family", ["timm_resnet50", "plain_user_module", "t5_sequence_classification"])
def test_the_total_ratio_does_not_depend_on_the_depth(family: str) -> None:
    depth_map = resolve_depth(build(family))
    scales = layer_decay_scales(depth_map, total_ratio=0.01)
    assert scales[depth_map.layers[0].parameters[0]] / scales[depth_map.head.parameters[0]] == pytest.approx(0.01)
    steps = [scales[layer.parameters[0]] for layer in (*depth_map.layers, depth_map.head)]
    ratios = {round(upper / lower, 9) for lower, upper in pairwise(steps)}
    assert len(ratios) == 1


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"layer_decay": 1.5}, r"`layer_decay` in \(0, 1\], got 1\.5"),
        ({"total_ratio": 0.0}, r"`total_ratio` in \(0, 1\], got 0\.0"),
        ({"layer_decay": float("nan")}, r"got nan"),
        ({}, r"got layer_decay=None and total_ratio=None"),
        ({"layer_decay": 0.5, "total_ratio": 0.1}, r"got layer_decay=0\.5 and total_ratio=0\.1"),
        ({"layer_decay": 0.5, "head_lr_multiplier": -2}, r"`head_lr_multiplier` above 0, got -2"),
    ],
)
def test_wrong_rates(project: PlainProject, kwargs: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        layer_decay_scales(resolve_depth(project), **kwargs)


def _split(optimizer: torch.optim.Optimizer, root: nn.Module, **kwargs: bool):
    depth_map = resolve_depth(root)
    return split_param_groups(optimizer, root, depth_map, layer_decay_scales(depth_map, layer_decay=0.5), **kwargs)


def test_one_group_becomes_one_for_each_layer(project: PlainProject) -> None:
    optimizer = torch.optim.AdamW(project.parameters(), lr=0.1, weight_decay=0.3, betas=(0.8, 0.9))
    held = optimizer.param_groups
    splits = _split(optimizer, project)
    assert optimizer.param_groups is held
    assert [group["name"] for group in held] == [split.name for split in splits]
    assert [split.name for split in splits] == [
        "stem-depth0", "blocks.0-depth1", "blocks.1-depth2", "blocks.2-depth3", "head-depth4",
    ]  # fmt: skip
    assert [split.scale for split in splits] == [0.5**4, 0.5**3, 0.5**2, 0.5, 1.0]
    assert [split.depth for split in splits] == [0, 1, 2, 3, 4]
    assert {split.source for split in splits} == {0}
    assert all((g["lr"], g["weight_decay"], g["betas"]) == (0.1, 0.3, (0.8, 0.9)) for g in held)
    assert held[0]["params"][0] is project.model.embed.weight


def test_no_parameter_is_lost_or_doubled_and_equal_values_are_told_apart(project: PlainProject) -> None:
    with torch.no_grad():
        for value in project.parameters():
            value.zero_()
    optimizer = torch.optim.SGD(project.parameters(), lr=0.1)
    _split(optimizer, project)
    ids = [id(value) for group in optimizer.param_groups for value in group["params"]]
    assert sorted(ids) == sorted(id(value) for value in project.parameters())


def test_the_users_own_groups_keep_their_options(project: PlainProject) -> None:
    optimizer = torch.optim.SGD(
        [
            {"params": project.model.parameters(), "lr": 0.01, "momentum": 0.5, "name": "body"},
            {"params": [project.head.weight], "lr": 0.1},
            {"params": [project.head.bias], "lr": 0.1, "weight_decay": 0.2},
        ],
        lr=1.0,
    )
    splits = _split(optimizer, project)
    assert [split.name for split in splits] == [
        "stem-depth0-body", "blocks.0-depth1-body", "blocks.1-depth2-body", "blocks.2-depth3-body",
        "head-depth4-pg2", "head-depth4-pg3",
    ]  # fmt: skip
    assert [split.source for split in splits] == [0, 0, 0, 0, 1, 2]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.5] * 4 + [0, 0]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0] * 5 + [0.2]


def test_state_stays_and_training_goes_on_as_without_the_split() -> None:
    results = []
    for split_after in (None, 2):
        torch.manual_seed(0)
        project = PlainProject()
        optimizer = torch.optim.AdamW(project.parameters(), lr=0.1)
        for step in range(4):
            if step == split_after:
                state = dict(optimizer.state)
                _split(optimizer, project)
                assert dict(optimizer.state) == state
            optimizer.zero_grad()
            x = torch.ones(3, 4) * (step + 1)
            x = project.model.embed(x)
            for block in project.model.blocks:
                x = block[0](x)
            project.head(project.model.norm(x)).square().sum().backward()
            optimizer.step()
        results.append({name: value.detach().clone() for name, value in project.named_parameters()})
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_saved_state_fits_an_optimizer_split_the_same_way(project: PlainProject) -> None:
    optimizers = [torch.optim.AdamW(project.parameters(), lr=0.1) for _ in range(2)]
    for optimizer in optimizers:
        _split(optimizer, project)
    for value in project.parameters():
        value.grad = torch.ones_like(value)
    optimizers[0].step()
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    for value in project.parameters():
        assert torch.equal(optimizers[0].state[value]["exp_avg"], optimizers[1].state[value]["exp_avg"])


def test_names_of_parameters_stay_beside_them(project: PlainProject) -> None:
    optimizer = torch.optim.SGD(project.named_parameters(), lr=0.1)
    _split(optimizer, project)
    names = {id(value): name for name, value in project.named_parameters()}
    for group in optimizer.param_groups:
        assert group["param_names"] == [names[id(value)] for value in group["params"]]


def test_a_rate_that_is_a_tensor_is_not_shared(project: PlainProject) -> None:
    optimizer = torch.optim.Adam(project.parameters(), lr=torch.tensor(0.1), capturable=False, foreach=False)
    _split(optimizer, project)
    optimizer.param_groups[0]["lr"].fill_(7.0)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.1)


def test_norms_and_biases_can_be_spared_from_decay(project: PlainProject) -> None:
    optimizer = torch.optim.AdamW(project.parameters(), lr=0.1, weight_decay=0.3)
    splits = _split(optimizer, project, no_decay_norm_and_bias=True)
    assert len({split.name for split in splits}) == len(splits) == 10
    decayed = {id(v) for group in optimizer.param_groups if group["weight_decay"] for v in group["params"]}
    assert {name for name, value in project.named_parameters() if id(value) in decayed} == {
        name for name, value in project.named_parameters() if value.ndim > 1
    }
    assert [split.name for split in splits][:2] == ["stem-depth0", "stem-depth0-no_decay"]


def test_biases_of_any_shape_and_lone_parameters(project: PlainProject) -> None:
    project.head.position_bias = nn.Parameter(torch.zeros(2, 2))
    project.head.token = nn.Parameter(torch.zeros(1, 1, 2))
    optimizer = torch.optim.AdamW(project.parameters(), lr=0.1)
    _split(optimizer, project, no_decay_norm_and_bias=True)
    undecayed = {id(v) for group in optimizer.param_groups if not group["weight_decay"] for v in group["params"]}
    assert id(project.head.position_bias) in undecayed
    assert id(project.head.token) not in undecayed


def test_parameters_of_other_modules_and_empty_groups_keep_their_place(project: PlainProject) -> None:
    other = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([{"params": [other, project.head.bias]}, {"params": []}], lr=0.1)
    splits = _split(optimizer, project)
    assert [(split.name, split.scale, split.depth) for split in splits] == [
        ("other-pg1", 1.0, None), ("head-depth4-pg1", 1.0, 4), ("empty-pg2", 1.0, None),
    ]  # fmt: skip
    assert optimizer.param_groups[0]["params"][0] is other
    assert optimizer.param_groups[2]["params"] == []


def test_names_are_unique_for_the_learning_rate_monitor(project: PlainProject) -> None:
    optimizer = torch.optim.SGD(
        [{"params": [project.head.bias], "name": "x"}, {"params": [project.head.weight], "name": "x"}], lr=0.1
    )
    assert [split.name for split in _split(optimizer, project)] == ["head-depth4-x", "head-depth4-x-2"]
