"""The paper's width has the paper's number of parameters, nearly; any other number is met as well as a width can."""

import pytest
import torch

from lightning_transfer.modules.unet import UNet, unet_of_size


def _size(module: torch.nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


def test_the_papers_network_has_about_31_million_parameters() -> None:
    with torch.device("meta"):
        found = _size(UNet(1, 2, 64))
    assert 30e6 < found < 36e6  # without its transposed convolutions, but with what these halve


@pytest.mark.parametrize("wanted", [10_000, 500_000, 3_000_000])
def test_no_other_width_is_nearer(wanted: int) -> None:
    found = unet_of_size(3, 2, wanted)
    width = found.down[0][0].out_channels
    with torch.device("meta"):
        sizes = {other: _size(UNet(3, 2, other)) for other in range(max(2, width - 2), width + 3)}
    assert min(sizes, key=lambda other: abs(sizes[other] - wanted)) == width


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_it_draws_at_the_size_of_the_image(size: tuple[int, int]) -> None:
    assert UNet(3, 4, width=4)(torch.randn(2, 3, *size)).shape == (2, 4, *size)


def test_all_parameters_train() -> None:
    net = UNet(1, 2, width=4)
    net(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert all(item.grad is not None for item in net.parameters())
