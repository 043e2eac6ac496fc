"""TensorFlow's ``SAME`` padding for networks whose weights were trained with it."""

from __future__ import annotations

import logging

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SameConv2d", "uses_same_padding", "with_same_padding"]

_log = logging.getLogger(__name__)


class SameConv2d(nn.Conv2d):
    """Convolve as TensorFlow's ``SAME`` does: the output has ``ceil(size / stride)`` pixels.

    An odd number of padding pixels puts the extra one at the bottom and right, where torch would pad all sides
    alike. For a 3x3 kernel, stride 2 and an even size this is a pad of ``(0, 1, 0, 1)``.

    Example:
        >>> import torch
        >>> SameConv2d(3, 8, kernel_size=3, stride=2)(torch.zeros(1, 3, 224, 224)).shape[-2:]
        torch.Size([112, 112])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pad by the input's size, then convolve."""
        height, width = (
            _total_padding(size, kernel, stride, dilation)
            for size, kernel, stride, dilation in zip(
                input.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True
            )
        )
        padded = functional.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d) -> SameConv2d:
        """Make a convolution with the same parameters (the objects themselves) and ``SAME`` padding."""
        same = cls(
            conv.in_channels,
            conv.out_channels,
            (conv.kernel_size[0], conv.kernel_size[1]),
            stride=(conv.stride[0], conv.stride[1]),
            dilation=(conv.dilation[0], conv.dilation[1]),
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        same.weight, same.bias = conv.weight, conv.bias
        same.train(conv.training)
        return same


def with_same_padding(module: nn.Module) -> nn.Module:
    """Replace every strided, padded convolution by its ``SAME`` twin, in place.

    Names, parameters and parameter order stay as they were, so weights load and depth rules hold. Strided pooling
    is left alone, and named in a warning.

    Args:
        module: The network, before or after its weights are loaded.

    Returns:
        The same module.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1))
        >>> type(with_same_padding(net)[0]).__name__
        'SameConv2d'
    """
    pools = []
    for name, child in list(module.named_modules()):
        if type(child) is nn.Conv2d and max(child.stride) > 1 and max(child.kernel_size) > 1:
            if not name:
                raise ValueError("A lone convolution cannot be replaced in place. Pass the module that holds it.")
            parent, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(parent), attribute, SameConv2d.from_conv(child))
        elif isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and child.padding not in (0, (0, 0)):
            pools.append(name)
    if pools:
        _log.warning("Padding `tf_same` changes convolutions only. These pools keep torch's padding: %s.", pools)
    return module


def uses_same_padding(module: nn.Module) -> bool:
    """Tell whether a network pads as TensorFlow does; timm's ``tf_`` models bring it themselves."""
    return any(isinstance(child, SameConv2d) or type(child).__name__ == "Conv2dSame" for child in module.modules())


def _total_padding(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Return the pixels that TensorFlow adds on both sides together."""
    return max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
