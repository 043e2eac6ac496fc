from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from lightning_transfer.depth.discovery import find_head
from lightning_transfer.depth.evidence import by_matcher, by_method, by_regexes, matches
from lightning_transfer.depth.tree import Node, build_tree
from tests.unit.depth.families import TIMM, build


def _new(tree: Node) -> set[str]:
    found = find_head(tree, others_are_head=True)
    return {path for node in found.head for path, _, _ in node.all_parameters()}


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("family", TIMM)
def test_numbers_are_those_of_timm(family: str, coarse: bool) -> None:
    from timm.models import group_parameters

    model = build(family)
    expected = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    tree = build_tree(model)
    order = by_matcher(tree, _new(tree))
    found = {path: depth for depth, (_, paths) in enumerate(order.groups if coarse else order.layers) for path in paths}
    top = max(expected.values())
    assert max(found.values()) == top - 1
    # What timm does not match shares its last number with the classifier; here it joins the layer before.
    assert found == {name: min(depth, top - 1) for name, depth in expected.items() if name in found}
    assert {expected[name] for name in set(expected) - set(found)} == {top}


def test_what_timm_does_not_match_before_the_first_block_is_stem() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.relative = nn.Linear(1, 1), nn.Linear(1, 1)
            self.blocks, self.neck = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)]), nn.Linear(1, 1)

        def group_matcher(self, coarse: bool) -> dict[str, Any]:
            return {"stem": "^patch", "blocks": r"^blocks\.(\d+)"}

    order = by_matcher(build_tree(Net()), set())
    assert [(name, len(paths)) for name, paths in order.groups] == [("stem", 4), ("blocks.0", 2), ("blocks.1", 4)]


class Declares(nn.Sequential):
    """A model with an answer of its own."""

    def __init__(self, answer: Callable[[Declares], Any]) -> None:
        super().__init__(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.LayerNorm(1), nn.Linear(1, 1))
        self.answer = answer

    def layer_groups(self) -> Any:
        return self.answer(self)


@pytest.mark.parametrize(
    ("answer", "names", "sizes"),
    [
        (lambda net: [net[0], net[2], net[4]], ["0", "2", "4"], [2, 4, 2]),
        (lambda net: [[net[0], net[2]], [net[4]]], ["0", "4"], [6, 2]),
        (lambda net: [[*net[0].parameters(), *net[2].parameters()], net[3].parameters()], ["0", "3"], [4, 4]),
        (lambda net: {"low": [net[0].weight], "high": net[4]}, ["low", "high"], [6, 2]),
        (lambda net: ["0|2", "4"], ["0", "4"], [6, 2]),
        (lambda net: {"low": "0|2", "high": "4"}, ["low", "high"], [6, 2]),
        (lambda net: (net[2], net[4]), ["2", "4"], [6, 2]),
    ],
)
def test_a_models_own_answer(answer: Callable[[Declares], Any], names: list[str], sizes: list[int]) -> None:
    tree = build_tree(Declares(answer))
    order = by_method(tree, tree, set())
    assert [(name, len(paths)) for name, paths in order.groups] == list(zip(names, sizes, strict=True))


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda net: [3], "returned 3"),
        (lambda net: [], "is empty"),
        (lambda net: [net[0], nn.Linear(1, 1)], r"group 1 .*not in the model"),
    ],
)
def test_a_wrong_answer_is_refused(answer: Callable[[Declares], Any], match: str) -> None:
    tree = build_tree(Declares(answer))
    with pytest.raises(TypeError, match=rf"Declares\.layer_groups\(\) .*{match}"):
        by_method(tree, tree, set())


def _tree() -> Node:
    root = nn.Module()
    root.backbone = nn.Module()
    root.backbone.token = nn.Parameter(nn.Linear(1, 1).weight)
    root.backbone.embed = nn.Linear(1, 1)
    root.backbone.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(4))
    root.backbone.norm = nn.LayerNorm(1)
    root.backbone.fc = nn.Linear(1, 1)
    return build_tree(root).children[0]


HEAD = {"backbone.fc.weight", "backbone.fc.bias"}


def test_patterns_match_at_the_start_of_names_relative_to_the_backbone() -> None:
    order = by_regexes(_tree(), ["embed", r"blocks\.[01]", r"blocks\."], HEAD)
    assert [(name, paths[-1], len(paths)) for name, paths in order.groups] == [
        ("embed", "backbone.embed.bias", 3),
        ("blocks", "backbone.blocks.1.bias", 4),
        ("blocks", "backbone.norm.bias", 6),
    ]
    assert order.layers == order.groups


@pytest.mark.parametrize(
    ("patterns", "match"),
    [
        (["embed", r"blocks\.12"], r"No parameter matches `blocks\\\.12`.*`backbone`.*`embed`, `blocks`, `norm`, `fc`"),
        (["embed", "locks"], r"No parameter matches `locks`"),
        (["embed", "backbone"], r"No parameter matches `backbone`"),
        (["embed", "blocks", "fc"], r"`fc` matches parameters of the head alone"),
        (["embed", "blocks", r"blocks\.3"], r"`blocks\\\.3` matches is matched by an earlier pattern"),
        (["embed", "blocks("], r"'blocks\(', which is no regular expression"),
        ([], r"list of regular expressions, got \[\]"),
        ("embed", r"list of regular expressions, got 'embed'"),
    ],
)
def test_wrong_patterns_are_refused(patterns: list[str], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        by_regexes(_tree(), patterns, HEAD)


def test_matches() -> None:
    assert matches(_tree(), "blocks", HEAD)
    assert not matches(_tree(), "fc", HEAD)
    assert not matches(_tree(), "(", HEAD)
