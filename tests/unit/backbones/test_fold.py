"""Folded norms against the network itself: the bound of the error, and what must not be folded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_transfer.backbones.fold import folded_copy
from lightning_transfer.depth import Freezer, resolve_depth
from tests.unit.backbones.cut_toys import image_backbone, with_head
from tests.unit.callbacks.cache_toys import stir


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@pytest.mark.parametrize(
    ("name", "left"),
    [("torchvision/mobilenet_v2", 0), ("torchvision/resnet18", 0), ("timm/test_resnet", 0),
     ("timm/test_efficientnet", 0), ("torchvision/densenet121", 62)],
)  # fmt: skip
def test_the_error_is_that_of_rounding(name: str, left: int) -> None:
    """The documented bound is 1e-5 of the largest number; in double precision 1e-13: it is the same function."""
    backbone, size = image_backbone(name)
    stir(backbone)
    images = torch.randn(2, *size)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        network, given = backbone.to(dtype), images.to(dtype)
        folded, count = folded_copy(network, given)
        with torch.no_grad():
            expected, found = network(given), folded(given)
        assert norms(folded) == left == norms(network) - count
        assert count > 0
        assert float((found - expected).abs().max()) <= bound * float(expected.abs().max())


def test_the_network_itself_stays_as_it_is() -> None:
    backbone, size = image_backbone("timm/test_resnet")
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    folded_copy(backbone, torch.randn(2, *size))
    assert list(backbone.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_held_modes_of_the_original_are_not_touched() -> None:
    backbone, size = image_backbone("timm/test_resnet")
    model = with_head(backbone.train())
    freezer = Freezer(model, resolve_depth(model, backbone="backbone"))
    freezer.apply(0)
    folded_copy(backbone, torch.randn(2, *size))
    freezer.restore()
    assert all(part.training for part in backbone.modules())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.conv(x)))


class Between(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.relu(self.conv(x)))


@pytest.mark.parametrize("kind", [Twice, Between])
def test_what_is_no_convolution_followed_by_its_norm_is_left(kind: type[Twice]) -> None:
    net = kind().eval()
    stir(net)
    folded, count = folded_copy(net, torch.randn(2, 3, 4, 4))
    assert count == 0
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(folded(images), net(images))


def test_a_convolution_whose_output_is_wanted_is_left() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).eval()
    assert folded_copy(net, torch.randn(1, 3, 4, 4), keep=["0"])[1] == 0
