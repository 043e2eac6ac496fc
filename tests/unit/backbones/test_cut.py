"""The two halves of a network against the whole one: outputs bit by bit, and the gradients of what trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_transfer.backbones import load_backbone
from lightning_transfer.backbones.cut import Cut, Form
from lightning_transfer.backbones.find_cut import activations_of, find_cut
from lightning_transfer.depth import resolve_depth
from lightning_transfer.types import Activations
from tests.unit.backbones.cut_toys import SEQUENCES, image_backbone, with_head

IMAGES = ["torchvision/mobilenet_v2", "torchvision/densenet121", "torchvision/swin_t", "timm/test_resnet",
          "timm/test_vit", "timm/test_convnext", "timm/test_nfnet"]  # fmt: skip


def check_all_cuts(backbone: nn.Module, input: Any, every: int = 1) -> list[Cut]:
    """Cut behind each group, and compare the two halves with the whole network."""
    model = with_head(backbone)
    groups = resolve_depth(model, backbone="backbone").groups
    cuts = []
    for frozen in range(1, len(groups) + 1, every):
        depth_map = resolve_depth(model, backbone="backbone")
        above = [value for group in groups[frozen:] for _, value in depth_map.named_parameters(model, group)]
        cut = find_cut(backbone, input, {id(value) for value in above}, rows=2)
        backbone.eval().zero_grad(set_to_none=True)
        with torch.no_grad():
            kept = activations_of(cut, cut.prefix(backbone, input), input)
        whole, halves = backbone(input), cut.suffix(backbone, kept)
        for one, other in zip(Form.split(whole), Form.split(halves), strict=True):
            assert torch.equal(one, other)
        if above:
            wanted = torch.autograd.grad(_total(whole), above, allow_unused=True)
            found = torch.autograd.grad(_total(halves), above, allow_unused=True)
            for one, other in zip(wanted, found, strict=True):
                assert (one is None) == (other is None)
                assert one is None or torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))
        cuts.append(cut)
    return cuts


def _total(output: Any) -> Tensor:
    return sum((item**2).sum() for item in Form.split(output) if item.is_floating_point())  # type: ignore[return-value]


@pytest.mark.parametrize("name", IMAGES)
def test_the_halves_of_an_image_network_are_the_whole(name: str) -> None:
    backbone, size = image_backbone(name)
    cuts = check_all_cuts(backbone, torch.randn(2, *size), every=5 if "torchvision" in name else 1)
    assert all(not cut.is_whole for cut in cuts[:-1])


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_halves_of_a_network_for_sequences_are_the_whole(name: str) -> None:
    pytest.importorskip("transformers")
    backbone, input = SEQUENCES[name]()
    check_all_cuts(backbone, input)


def test_what_lies_before_the_cut_does_not_run() -> None:
    backbone, size = image_backbone("timm/test_resnet")
    images = torch.randn(2, *size)
    cut = find_cut(backbone, images, {id(value) for value in backbone.layer4.parameters()}, rows=2)
    kept = activations_of(cut, cut.prefix(backbone, images), images)
    ran: list[str] = []
    for name, part in backbone.named_modules():
        if next(part.children(), None) is None:
            part.register_forward_hook(lambda _, __, ___, name=name: ran.append(name))
    convolutions = {name for name, part in backbone.named_modules() if isinstance(part, nn.Conv2d)}
    cut.prefix(backbone, images)
    assert {name for name in ran if name.startswith("layer4")} == set()
    for part in backbone.modules():
        part.forward  # noqa: B018 - nothing of the instance's own is left behind
        assert "forward" not in part.__dict__
    ran.clear()
    runs: list[str] = []
    for name in convolutions:
        part = backbone.get_submodule(name)
        forward = part.forward
        part.forward = lambda *args, name=name, forward=forward: (runs.append(name), forward(*args))[1]  # type: ignore[method-assign]
    cut.suffix(backbone, kept)
    assert runs
    assert all(name.startswith("layer4") for name in runs)
    # Whoever had replaced a `forward` finds it again.
    assert all("forward" in backbone.get_submodule(name).__dict__ for name in convolutions)


def test_longer_and_shorter_batches_than_the_example_take_the_same_cut() -> None:
    pytest.importorskip("transformers")
    backbone, input = SEQUENCES["wav2vec2"]()
    cut = find_cut(backbone, input, {id(value) for value in backbone.model.encoder.layers[2].parameters()}, rows=2)
    assert cut.layers == ("model.encoder.layers.1",)
    for length in (700, 2600):
        mask = torch.zeros(3, length, dtype=torch.long)
        for row, count in enumerate((length, length - 150, length - 300)):
            mask[row, :count] = 1
        other = {"input_values": torch.randn(3, length) * mask, "attention_mask": mask}
        kept = activations_of(cut, cut.prefix(backbone, other), other)
        assert "input_values" not in kept.given
        assert torch.equal(cut.suffix(backbone, kept), backbone(other))


def test_a_stand_in_is_nan_so_that_a_leak_is_seen() -> None:
    form = Form.of({"a": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.long), "c": None})
    found = form.stand_in(5, None, torch.device("cpu"))
    assert found["a"].shape == (5, 3)
    assert bool(found["a"].isnan().all())
    assert (found["b"].shape, found["c"]) == ((5,), None)


def test_forms_are_taken_apart_and_put_together() -> None:
    output = (torch.ones(2, 1), [torch.zeros(2), None], {"x": 3})
    form, tensors = Form.of(output), Form.split(output)
    assert form.size == len(tensors) == 2
    again = form.join([tensors[0] + 1, tensors[1]])
    assert torch.equal(again[0], tensors[0] + 1)
    assert again[1][1] is None
    assert again[2] == {"x": 3}


def test_the_whole_backbone_needs_no_input() -> None:
    backbone, _ = load_backbone("timm/test_resnet", weights="random")
    images = torch.randn(2, 3, 32, 32)
    cut = find_cut(backbone, images, set(), rows=2)
    kept = activations_of(cut, cut.prefix(backbone.eval(), images), images)
    assert kept == Activations(kept.layers, {}, {})
    assert torch.equal(cut.suffix(backbone, kept), backbone(images))
    assert cut.describe() == "the features of the whole backbone"
