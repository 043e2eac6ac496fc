"""The one way of an input through the backbone."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.backbones.find_cut import activations_of, find_cut
from lightning_transfer.modules import TransferModule
from lightning_transfer.types import Activations, Schema


def test_what_was_kept_gives_the_logits_of_the_input() -> None:
    module = TransferModule("timm/test_resnet", weights="random")
    module.use_schema(Schema(task="multiclass", classes=("a", "b")))
    module.configure_model()
    module.eval()
    images = torch.randn(3, 3, 32, 32)
    for above in (set(), {id(value) for value in module.backbone.layer4.parameters()}):
        module.cut = None
        expected = module(images)
        module.cut = find_cut(module.backbone, images, above, rows=3)
        kept = activations_of(module.cut, module.cut.prefix(module.backbone, images), images)
        assert torch.equal(module(kept), expected)
        assert torch.equal(module(images), expected)  # inputs go on to be taken, as monitors give them


def test_what_was_kept_by_somebody_else_is_refused() -> None:
    module = TransferModule("timm/test_resnet", weights="random")
    with pytest.raises(MisconfigurationException, match="no `FeatureCache` is at work"):
        module.encode(Activations((torch.zeros(1, 2),), {}, {}))


def test_by_default_nothing_else_is_read() -> None:
    module = TransferModule("timm/test_resnet", weights="random")
    assert (module.kept_input(torch.zeros(1)), tuple(module.read_layers), module.cache_refusal) == ({}, (), "")
