"""Shapes, widths, and which map reaches the result."""

import pytest
import torch

from lightning_transfer.modules.unet_decoder import TokenPyramid, UNetDecoder


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (5, 64)])
@pytest.mark.parametrize("strides", [(2, 4, 8), (4, 8), (1, 2, 4), (2, 4.7, 9.1)])
def test_any_size_and_stride_ends_at_the_size_of_the_image(size: tuple[int, int], strides: tuple[float, ...]) -> None:
    decoder = UNetDecoder([4] * len(strides), strides, 3, 1).eval()
    maps = [torch.randn(2, 4, *(max(1, int(side // stride)) for side in size)) for stride in strides]
    assert decoder(maps, torch.randn(2, 1, *size)).shape == (2, 3, *size)


def test_every_map_and_the_image_have_a_say() -> None:
    decoder = UNetDecoder([4, 6, 8], [2, 4, 8], 2, 3).eval()
    items = [torch.randn(1, 4, 16, 16), torch.randn(1, 6, 8, 8), torch.randn(1, 8, 4, 4), torch.randn(1, 3, 32, 32)]
    items = [item.requires_grad_(True) for item in items]
    decoder(items[:3], items[3]).square().sum().backward()
    assert all(item.grad is not None and item.grad.abs().sum() > 0 for item in items)


def test_a_border_can_be_found_at_its_pixel() -> None:
    """The result depends on single pixels of the image, though the finest map has a step of four."""
    decoder = UNetDecoder([4, 8], [4, 8], 2, 1).eval()
    maps, image = [torch.zeros(1, 4, 8, 8), torch.zeros(1, 8, 4, 4)], torch.zeros(1, 1, 32, 32)
    other = image.clone()
    other[..., 13, 13] = 5.0
    changed = (decoder(maps, other) != decoder(maps, image))[0, 0].nonzero()
    assert len(changed)
    assert changed.min() >= 13 - 4
    assert changed.max() <= 13 + 4


def test_tokens_become_four_resolutions_as_in_dpt() -> None:
    pyramid = TokenPyramid([64] * 4, width=16)
    maps = pyramid([torch.randn(1, 64, 10, 10)] * 4)
    assert [tuple(item.shape[1:]) for item in maps] == [(16, 40, 40), (32, 20, 20), (64, 10, 10), (64, 5, 5)]


def test_a_transformer_decodes() -> None:
    decoder = UNetDecoder([64] * 4, [16.0] * 4, 2, 3, is_flat=True).eval()
    assert decoder([torch.randn(1, 64, 10, 10)] * 4, torch.randn(1, 3, 160, 160)).shape == (1, 2, 160, 160)


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected 3 `decoder_widths`.*got \[8\]"):
        UNetDecoder([4, 6, 8], [2, 4, 8], 2, 3, widths=[8])
