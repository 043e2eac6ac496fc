from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_transfer.depth import DepthMap, Freezer, Layer, is_norm, resolve_depth


class Block(nn.Module):
    """Linear, BatchNorm, dropout as a module, as a function, and in attention: all that eval mode must stop."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.norm(self.linear(x)))
        x = functional.dropout(x, 0.5, self.training)
        return x + self.attention(x[:, None], x[:, None], x[:, None], need_weights=False)[0][:, 0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def _freezer(net: nn.Module, **kwargs: object) -> Freezer:
    return Freezer(net, resolve_depth(net), **kwargs)


def _state(net: nn.Module) -> tuple[dict[str, bool], dict[str, bool], list[str]]:
    """Everything that a freezer may change."""
    return (
        {name: value.requires_grad for name, value in net.named_parameters()},
        {name: module.training for name, module in net.named_modules()},
        [name for name, module in net.named_modules() if "train" in module.__dict__],
    )


def _trainable(net: nn.Module) -> set[str]:
    return {name.rsplit(".", 1)[0] for name, value in net.named_parameters() if value.requires_grad}


def _modes(net: nn.Module) -> set[str]:
    return {name for name, module in net.named_modules() if module.training}


WAYS_TO_TRAIN: dict[str, Callable[[Net], object]] = {
    "root": lambda net: net.train(),
    "backbone": lambda net: net.backbone.train(),
    "block": lambda net: net.backbone[0].train(True),
    "leaf": lambda net: [module.train() for module in net.modules()],
    "eval and back": lambda net: (net.eval(), net.train()),
    "apply": lambda net: net.apply(lambda module: module.train()),
}


@pytest.mark.parametrize("way", WAYS_TO_TRAIN)
def test_frozen_features_equal_their_eval_values_whatever_calls_train(net: Net, way: str) -> None:
    x = torch.randn(8, 4)
    expected = copy.deepcopy(net).eval().backbone(x)
    _freezer(net).apply(0)
    WAYS_TO_TRAIN[way](net)
    assert torch.equal(net.backbone(x), expected)
    assert all(not module.training for module in net.backbone.modules())
    assert torch.equal(net.backbone[0].norm.running_mean, torch.zeros(4))


def test_modes_that_lightning_restores_stay_as_they_were(net: Net) -> None:
    from lightning.pytorch.utilities.model_helpers import _ModuleMode

    net.train()
    _freezer(net).apply(1)
    before = _modes(net)
    mode = _ModuleMode()
    mode.capture(net)
    net.eval()
    mode.restore(net)
    assert _modes(net) == before


def test_open_layers_follow_train_and_eval(net: Net) -> None:
    _freezer(net).apply(1)
    net.eval()
    assert _modes(net) == set()
    net.train()
    assert "backbone.2.attention.out_proj" in _modes(net)
    assert "backbone.1" not in _modes(net)
    assert {"", "head", "head.0"} <= _modes(net)


def test_the_head_and_the_open_groups_train(net: Net) -> None:
    freezer = _freezer(net)
    expected = {"head.1", "head.2"}
    blocks = [
        {f"backbone.{n}.{part}" for part in ("linear", "norm", "attention", "attention.out_proj")} for n in range(3)
    ]
    for count, opened in enumerate([set(), blocks[2], blocks[1], blocks[0]]):
        expected |= opened
        freezer.apply(count)
        assert _trainable(net) == expected
    freezer.apply(99)
    assert _trainable(net) == expected


def test_opening_gives_modules_the_mode_they_would_have(net: Net) -> None:
    freezer = _freezer(net)
    net.eval()
    freezer.apply(0)
    net.train()
    freezer.apply("all")
    assert _modes(net) == {name for name, _ in net.named_modules()}
    freezer.apply(0)
    net.eval()
    freezer.apply("all")
    assert _modes(net) == set()


def test_a_mode_that_the_user_set_on_one_module_comes_back(net: Net) -> None:
    freezer = _freezer(net)
    freezer.apply(0)
    net.train()
    net.backbone[1].norm.eval()
    freezer.apply("all")
    assert "backbone.1.norm" not in _modes(net)
    assert "backbone.1.linear" in _modes(net)


def test_restore_leaves_no_trace(net: Net) -> None:
    net.backbone[0].linear.weight.requires_grad_(False)
    net.backbone[1].norm.eval()
    before = _state(net)
    freezer = _freezer(net, bn_when_open="eval")
    for count in (0, 2, 1):
        freezer.apply(count)
        freezer.apply(count)
    assert _state(net) != before
    freezer.restore()
    assert _state(net) == before
    freezer.restore()
    assert _state(net) == before


def test_applying_again_changes_nothing(net: Net) -> None:
    freezer = _freezer(net)
    freezer.apply(1)
    before = _state(net)
    freezer.apply(1)
    assert _state(net) == before
    freezer.restore()
    assert _modes(net) == {name for name, _ in net.named_modules()}


def test_what_the_user_froze_stays_frozen(net: Net) -> None:
    net.backbone[2].linear.weight.requires_grad_(False)
    freezer = _freezer(net)
    freezer.apply(0)
    freezer.apply("all")
    assert not net.backbone[2].linear.weight.requires_grad
    assert net.backbone[2].linear.bias.requires_grad


def test_train_bn_lets_the_norms_of_frozen_groups_train(net: Net) -> None:
    x = torch.randn(8, 4)
    _freezer(net, train_bn=True).apply(0)
    net.train()
    assert _trainable(net) == {"head.1", "head.2", *(f"backbone.{n}.norm" for n in range(3))}
    assert {name for name in _modes(net) if name.startswith("backbone")} == {f"backbone.{n}.norm" for n in range(3)}
    net(x).sum().backward()
    assert net.backbone[0].norm.weight.grad is not None
    assert not torch.equal(net.backbone[0].norm.running_mean, torch.zeros(4))


def test_bn_when_open_keeps_the_statistics_of_opened_groups(net: Net) -> None:
    freezer = _freezer(net, bn_when_open="eval")
    freezer.apply(0)
    freezer.apply("all")
    net.train()
    net(torch.randn(8, 4))
    held = {name for name, module in net.named_modules() if not module.training}
    assert held == {f"backbone.{n}.norm" for n in range(3)}
    assert torch.equal(net.backbone[2].norm.running_mean, torch.zeros(4))
    assert net.backbone[2].norm.weight.requires_grad
    freezer.restore()
    assert net.backbone[2].norm.training


def test_copies_stay_frozen_and_know_nothing_of_the_original(net: Net) -> None:
    freezer = _freezer(net)
    freezer.apply(0)
    twin = copy.deepcopy(net)
    freezer.restore()
    twin.train()
    assert not any(module.training for module in twin.backbone.modules())
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])  # noqa: S301
def test_a_freezer_travels_with_its_module(net: Net, travel: Callable[[object], tuple[Net, Freezer]]) -> None:
    freezer = _freezer(net)
    freezer.apply(1)
    twin, its_freezer = travel((net, freezer))
    assert its_freezer.root is twin
    twin.train()
    assert _state(twin) == _state(net)
    its_freezer.restore()
    assert all(value.requires_grad for value in twin.parameters())
    assert all(module.training for module in twin.modules())
    assert not net.backbone[0].training


def test_saving_and_loading_the_weights_sees_no_holds(net: Net) -> None:
    keys = list(net.state_dict())
    _freezer(net).apply(0)
    assert list(net.state_dict()) == keys
    assert len(list(net.modules())) == len(list(Net().modules()))


@pytest.mark.parametrize("part", ["backbone", "backbone.0", "whole"])
def test_compiled_modules_freeze_and_open(net: Net, part: str) -> None:
    if part == "whole":
        net.backbone = torch.compile(net.backbone, backend="eager")
        net.backbone._orig_mod[1] = torch.compile(net.backbone._orig_mod[1], backend="eager")
    elif part == "backbone":
        net.backbone = torch.compile(net.backbone, backend="eager")
    else:
        net.backbone[0] = torch.compile(net.backbone[0], backend="eager")
    before = _state(net)
    x = torch.randn(8, 4)
    freezer = _freezer(net)
    freezer.apply(0)
    freezer.restore()
    assert _state(net) == before
    freezer.apply(0)
    net.train()
    assert not any(module.training for module in net.backbone.modules())
    net.eval()
    expected = net.backbone(x)
    net.train()
    assert torch.equal(net.backbone(x), expected)
    freezer.apply("all")
    assert _state(net) == before
    net.eval()
    assert _modes(net) == set()


def test_a_compilation_after_freezing_does_not_thaw(net: Net) -> None:
    freezer = _freezer(net)
    freezer.apply(0)
    net.backbone = torch.compile(net.backbone, backend="eager")
    net.train()
    assert not any(module.training for module in net.backbone.modules())
    freezer.restore()
    assert all(module.training for module in net.modules())
    assert all(value.requires_grad for value in net.parameters())


def test_a_train_method_of_the_users_is_still_called() -> None:
    class KeepsNormInEval(nn.Sequential):
        def train(self, mode: bool = True) -> KeepsNormInEval:
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()
            return self

    net = nn.Module()
    net.backbone = KeepsNormInEval(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net.head = nn.Linear(2, 1)
    freezer = _freezer(net)
    freezer.apply(0)
    net.train()
    assert not any(module.training for module in net.backbone.modules())
    freezer.apply("all")
    assert _modes(net) == {"", "head", "backbone", "backbone.0", "backbone.2"}


def test_a_train_attribute_of_the_users_comes_back(net: Net) -> None:
    def ignores(mode: bool = True) -> nn.Module:
        return net.backbone

    net.backbone.eval()
    net.backbone.train = ignores
    freezer = _freezer(net)
    freezer.apply(0)
    net.train()
    freezer.restore()
    assert net.backbone.train is ignores
    net.train()
    assert not net.backbone.training


def test_enforce_undoes_a_mode_that_was_written_without_calling_train(net: Net) -> None:
    freezer = _freezer(net)
    freezer.apply(0)
    for module in net.modules():
        module.training = True
    freezer.enforce()
    assert not any(module.training for module in net.backbone.modules())
    assert net.head.training


def test_a_frozen_backbone_needs_no_backward(net: Net) -> None:
    _freezer(net).apply(0)
    assert not net.backbone(torch.randn(2, 4)).requires_grad


def test_a_layer_can_be_frozen_by_itself(net: Net) -> None:
    freezer = _freezer(net)
    freezer.freeze(freezer.depth_map.groups[1])
    assert not net.backbone[1].linear.weight.requires_grad
    assert net.backbone[0].linear.weight.requires_grad
    freezer.open(freezer.depth_map.groups[1])
    assert net.backbone[1].linear.weight.requires_grad


def test_timm_drop_path_is_off_in_frozen_blocks() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=2, drop_path_rate=0.5)
    x = torch.randn(4, 3, 32, 32)
    expected = copy.deepcopy(model).eval().forward_features(x)
    _freezer(model).apply(0)
    model.train()
    assert torch.equal(model.forward_features(x), expected)


@pytest.mark.parametrize("family", ["bert_sequence_classification", "t5_encoder"])
def test_transformers_dropout_is_off_in_frozen_layers(family: str) -> None:
    from tests.unit.depth.families import FAMILIES

    torch.manual_seed(0)
    model = FAMILIES[family]()
    base = getattr(model, "bert", model)
    ids = torch.randint(0, 50, (2, 7))
    expected = copy.deepcopy(base).eval()(input_ids=ids, output_hidden_states=True).hidden_states
    freezer = _freezer(model)
    for open_groups in (0, 1):
        freezer.apply(open_groups)
        model.train()
        states = base(input_ids=ids, output_hidden_states=True).hidden_states
        assert len(states) == 4
        for layer in range(3):
            # Kernels differ by rounding where no gradient is needed; dropout differs by orders more.
            torch.testing.assert_close(states[layer], expected[layer], rtol=1e-5, atol=1e-5)


def test_wrong_arguments(net: Net) -> None:
    with pytest.raises(ValueError, match=r"`bn_when_open` to be 'train' or 'eval', got 'frozen'"):
        _freezer(net, bn_when_open="frozen")
    with pytest.raises(ValueError, match=r"got -1"):
        _freezer(net).apply(-1)
    empty = DepthMap((Layer("a", 0, ("gone",)),), (), Layer("head", 1), ("",), "structure")
    with pytest.raises(KeyError, match=r"gone"):
        Freezer(net, empty).apply(0)


def test_norms_of_other_libraries_are_norms() -> None:
    import timm
    import torchvision
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    norms = [
        nn.BatchNorm2d(2), nn.SyncBatchNorm(2), nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.InstanceNorm1d(2),
        nn.RMSNorm(2), T5LayerNorm(2), timm.layers.LayerNorm2d(2), timm.layers.BatchNormAct2d(2),
        timm.layers.GroupNorm1(2), timm.layers.GroupNormAct(32, 2), torchvision.ops.FrozenBatchNorm2d(2),
    ]  # fmt: skip
    assert [type(module).__name__ for module in norms if not is_norm(module)] == []
    others = [nn.Linear(2, 2), nn.Dropout(), torchvision.ops.Conv2dNormActivation(2, 2), timm.layers.ConvNormAct(2, 2)]
    assert [type(module).__name__ for module in others if is_norm(module)] == []


def test_what_others_open_is_closed_again_without_its_gradient(net: Net) -> None:
    (freezer := _freezer(net)).apply(1)
    for value in net.parameters():
        value.requires_grad_(True).grad = torch.ones_like(value)
    freezer.enforce_gradients()
    assert {name.split(".")[1] for name in _trainable(net) if "backbone" in name} == {"2"}
    assert all((value.grad is not None) == value.requires_grad for value in net.parameters())
