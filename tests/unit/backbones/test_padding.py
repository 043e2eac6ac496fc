"""TensorFlow's padding, against its definition and against an explicit pad."""

import logging

import pytest
import torch
from torch import nn

from lightning_transfer.backbones.padding import SameConv2d, uses_same_padding, with_same_padding


@pytest.mark.parametrize("size", [8, 9, 15, 224])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (7, 3, 1), (3, 2, 2), (1, 2, 1)])
def test_it_is_timms_same_convolution(size, kernel, stride, dilation):
    timm_layers = pytest.importorskip("timm.layers")
    arguments = {"kernel_size": kernel, "stride": stride, "dilation": dilation}
    oracle = timm_layers.Conv2dSame(2, 4, **arguments)
    ours = SameConv2d(2, 4, **arguments)
    ours.load_state_dict(oracle.state_dict())
    image = torch.rand(1, 2, size, size + 3)
    torch.testing.assert_close(ours(image), oracle(image))


def test_even_sizes_are_padded_at_the_bottom_and_right():
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    explicit = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 5, 3, stride=2))
    explicit[1].load_state_dict(conv.state_dict())
    image = torch.rand(2, 3, 32, 48)
    same = SameConv2d.from_conv(conv)
    torch.testing.assert_close(same(image), explicit(image))
    assert not torch.allclose(same(image), conv(image))


def test_parameters_stay_the_same_objects_in_the_same_order():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, bias=False), nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, groups=4)))
    before = list(net.named_parameters())
    net.eval()
    with_same_padding(net)
    assert [(name, id(item)) for name, item in net.named_parameters()] == [(name, id(item)) for name, item in before]
    assert isinstance(net[1][0], SameConv2d)
    assert net[1][0].groups == 4
    assert not net[0].training


def test_unstrided_and_pointwise_convolutions_are_left_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1, stride=2))
    with_same_padding(net)
    assert not uses_same_padding(net)


def test_padded_pools_are_named(caplog):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.MaxPool2d(3, 2, padding=1))
    with caplog.at_level(logging.WARNING):
        with_same_padding(net)
    assert "['1']" in caplog.text


def test_a_lone_convolution_is_refused():
    with pytest.raises(ValueError, match="lone convolution"):
        with_same_padding(nn.Conv2d(3, 4, 3, stride=2))
