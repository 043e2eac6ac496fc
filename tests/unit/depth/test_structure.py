from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_transfer.depth.discovery import find_head
from lightning_transfer.depth.structure import Order, by_registration, by_structure, interleave
from lightning_transfer.depth.tree import Node, build_tree


def _order(module: nn.Module, new: set[str] = frozenset()) -> Order | None:  # type: ignore[assignment]
    tree = build_tree(module)
    return by_structure(tree, tree, set(new))


def _sizes(layers: list[tuple[str, list[str]]]) -> list[tuple[str, int]]:
    return [(name, len(paths)) for name, paths in layers]


def _block() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU())


class Attention(nn.Module):
    """A block of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(2, 2), nn.Linear(2, 2)


def test_norms_join_the_layer_before_them() -> None:
    order = _order(
        nn.Sequential(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1), nn.ReLU(), nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1))
    )
    assert order is not None
    assert order.groups == order.layers
    assert _sizes(order.groups) == [("0", 4), ("3", 4)]


def test_stacks_side_by_side_are_stages_of_blocks() -> None:
    net = nn.Module()
    net.conv = nn.Conv1d(1, 1, 1)
    net.layer1 = nn.Sequential(Attention(), Attention())
    net.layer2 = nn.Sequential(Attention(), Attention(), Attention())
    order = _order(net)
    assert order is not None
    assert _sizes(order.groups) == [("stem", 2), ("layer1", 8), ("layer2", 12)]
    assert _sizes(order.layers)[1:3] == [("layer1.0", 4), ("layer1.1", 4)]


def test_stages_in_one_list_are_stages_of_blocks() -> None:
    order = _order(nn.Sequential(nn.Sequential(Attention(), Attention()), nn.Sequential(Attention())))
    assert order is not None
    assert _sizes(order.groups) == [("0", 8), ("1", 4)]
    assert _sizes(order.layers) == [("0.0", 4), ("0.1", 4), ("1.0", 4)]


def test_stages_of_a_users_class_are_looked_into_but_experts_are_not() -> None:
    class Stage(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.add_module(name, nn.ModuleList([Attention(), Attention()]))

    for name, layers in (("blocks", ["0.blocks.0", "0.blocks.1", "1.blocks.0", "1.blocks.1"]), ("experts", ["0", "1"])):
        order = _order(nn.Sequential(Stage(name), Stage(name)))
        assert order is not None
        assert [layer for layer, _ in order.layers] == layers
        assert [group for group, _ in order.groups] == ["0", "1"]


def test_serial_stacks_of_other_parents_are_joined() -> None:
    net = nn.Module()
    net.features = nn.Module()
    net.features.convolutions = nn.ModuleList([_block(), _block()])
    net.features_norm = nn.LayerNorm(2)
    net.context = nn.Module()
    net.context.position = nn.Conv1d(2, 2, 1)
    net.context.layers = nn.ModuleList([Attention(), Attention()])
    order = _order(net)
    assert order is not None
    assert _sizes(order.groups) == [
        ("features.convolutions.0", 2), ("features.convolutions.1", 6),
        ("context.layers.0", 4), ("context.layers.1", 4),
    ]  # fmt: skip


def _encoder_decoder(encoder: int, decoder: int) -> nn.Module:
    net = nn.Module()
    net.encoder, net.decoder = nn.Module(), nn.Module()
    net.encoder.conv = nn.Conv1d(1, 1, 1)
    net.encoder.layers = nn.ModuleList(Attention() for _ in range(encoder))
    net.encoder.norm = nn.LayerNorm(2)
    net.decoder.proj = nn.Linear(2, 2)
    net.decoder.embed = nn.Embedding(3, 2)
    net.decoder.layers = nn.ModuleList(Attention() for _ in range(decoder))
    net.decoder.norm = nn.LayerNorm(2)
    return net


def test_encoder_and_decoder_are_interleaved_by_relative_depth() -> None:
    order = _order(_encoder_decoder(4, 2))
    assert order is not None
    assert _sizes(order.groups) == [
        ("stem", 5), ("encoder.layers.0", 4), ("encoder.layers.1", 4), ("decoder.layers.0", 4), ("encoder.layers.2", 4),
        ("encoder.layers.3", 6), ("decoder.layers.1", 6),
    ]  # fmt: skip


def test_what_leads_to_the_decoder_is_stem_and_not_the_encoders_top() -> None:
    order = _order(_encoder_decoder(2, 2))
    assert order is not None
    assert [path for path in order.groups[0][1] if path.startswith("decoder")] == [
        "decoder.proj.weight", "decoder.proj.bias", "decoder.embed.weight",
    ]  # fmt: skip


def test_towers_of_two_modalities_are_interleaved() -> None:
    net = nn.Module()
    net.text_model, net.vision_model = (nn.Sequential(Attention(), Attention()) for _ in range(2))
    order = _order(net)
    assert order is not None
    assert [name for name, _ in order.groups] == ["text_model.0", "vision_model.0", "text_model.1", "vision_model.1"]


def test_lists_inside_repeated_attributes_are_no_blocks() -> None:
    class Inception(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch1, self.branch2 = nn.Linear(1, 1), nn.Sequential(_block(), _block())

    net = nn.Module()
    net.inception1, net.inception2, net.inception3 = Inception(), Inception(), Inception()
    assert _order(net) is None


def test_children_of_a_torchvision_model_in_a_row() -> None:
    import torchvision

    with torch.device("meta"):
        net = nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-1])
    order = _order(net)
    assert order is not None
    assert _sizes(order.groups) == [("stem", 3), ("4", 12), ("5", 15), ("6", 15), ("7", 15)]
    assert len(order.layers) == 9


def test_embeddings_are_stem_wherever_they_are_registered_and_their_norm_with_them() -> None:
    net = nn.Module()
    net.layers = nn.ModuleList([Attention(), Attention()])
    net.relative = nn.Embedding(3, 2)
    net.relative_norm = nn.LayerNorm(2)
    order = _order(net)
    assert order is not None
    assert _sizes(order.groups) == [("stem", 3), ("layers.0", 4), ("layers.1", 4)]


def test_lone_parameters_are_no_layer() -> None:
    net = nn.Module()
    net.token = nn.Parameter(torch.zeros(1))
    net.layers = nn.ModuleList([Attention(), Attention()])
    order = _order(net)
    assert order is not None
    assert _sizes(order.groups) == [("layers.0", 5), ("layers.1", 4)]


def test_members_of_a_list_are_equals_though_types_alternate() -> None:
    net = nn.ModuleList([Attention(), _block(), Attention(), _block(), Attention()])
    order = _order(net)
    assert order is not None
    assert [name for name, _ in order.groups] == ["0", "1", "2", "3", "4"]


def test_a_list_of_one_block_is_taken_where_there_is_no_other() -> None:
    net = nn.Module()
    net.embed = nn.Linear(2, 2)
    net.layers = nn.ModuleList([Attention()])
    order = _order(net)
    assert order is not None
    assert _sizes(order.groups) == [("stem", 2), ("layers.0", 4)]


def test_layers_of_the_head_are_no_blocks() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    order = _order(net, {"2.weight", "2.bias"})
    assert order is not None
    assert _sizes(order.groups) == [("0", 2), ("1", 2)]


def test_no_lists_no_structure() -> None:
    assert _order(Attention()) is None
    assert _order(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))) is None


@pytest.mark.parametrize(
    ("name", "groups", "layers"),
    [
        ("resnet50", 5, 17),
        ("vgg16_bn", 15, 15),
        ("convnext_tiny", 8, 22),
        ("efficientnet_b0", 8, 17),
        ("swin_t", 5, 13),
        ("vit_b_16", 13, 13),
        ("densenet121", 5, 5),
        ("mobilenet_v3_small", 12, 12),
        ("maxvit_t", 5, 12),
    ],
)
def test_torchvision_models_have_their_papers_number_of_blocks(name: str, groups: int, layers: int) -> None:
    import torchvision

    with torch.device("meta"):
        model = torchvision.models.get_model(name, weights=None)
    tree = build_tree(model)
    new = {path for node in find_head(tree, False).head for path, _, _ in node.all_parameters()}
    order = by_structure(tree, tree, new)
    assert order is not None
    assert (len(order.groups), len(order.layers)) == (groups, layers), [name for name, _ in order.layers]


def test_interleaving_keeps_each_order_and_lets_the_first_win_a_tie() -> None:
    first = [Node(f"a{number}", "", nn.Identity()) for number in range(3)]
    second = [Node(f"b{number}", "", nn.Identity()) for number in range(3)]
    assert [node.path for node in interleave([first, second])] == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert [node.path for node in interleave([first[:1], second])] == ["b0", "b1", "a0", "b2"]


def test_registration_takes_children_and_looks_into_a_single_one() -> None:
    net = nn.Module()
    net.inner = nn.Module()
    net.inner.conv, net.inner.norm, net.inner.fc = nn.Conv1d(1, 1, 1), nn.LayerNorm(1), nn.Linear(1, 1)
    tree = build_tree(net)
    assert _sizes(by_registration(tree, tree, set()).groups) == [("inner.conv", 4), ("inner.fc", 2)]


def test_a_single_layer_is_a_group() -> None:
    tree = build_tree(nn.Linear(1, 1))
    assert _sizes(by_registration(tree, tree, set()).groups) == [("backbone", 2)]
