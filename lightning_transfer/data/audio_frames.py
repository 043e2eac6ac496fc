"""Count the frames that a network makes of sound, from its settings alone: CTC needs one for each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["FrameLayer", "count_frames", "frame_layers"]

_MEL_WINDOW, _MEL_HOP = 400, 160
"""Samples of a mel frame, and from one to the next: fixed in transformers' SeamlessM4TFeatureExtractor."""


class FrameLayer(NamedTuple):
    """A convolution that shortens its input."""

    kernel: int
    stride: int
    padding: int = 0

    def length(self, size: int) -> int:
        """Return the length of its output."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


def frame_layers(config: Mapping[str, Any]) -> tuple[FrameLayer, ...]:
    """Return what shortens the input of a network, by transformers' settings of wav2vec2 and its kin.

    Example:
        >>> frame_layers({"conv_kernel": [10, 3], "conv_stride": [5, 2]})
        (FrameLayer(kernel=10, stride=5, padding=0), FrameLayer(kernel=3, stride=2, padding=0))
    """
    strides = config.get("conv_stride") or ()
    kernels = config.get("conv_kernel") or ()
    layers = [FrameLayer(int(kernel), int(stride)) for kernel, stride in zip(kernels, strides, strict=True)]
    if config.get("add_adapter"):
        kernel = int(config.get("adapter_kernel_size", 3))
        adapter = FrameLayer(kernel, int(config.get("adapter_stride", 2)), kernel // 2)
        layers += [adapter] * int(config.get("num_adapter_layers", 0))
    return tuple(layers)


def count_frames(samples: int, extractor: Mapping[str, Any], layers: Sequence[FrameLayer]) -> int:
    """Return how many frames a network makes of some samples.

    Args:
        samples: At the network's rate.
        extractor: Settings of transformers' feature extractor.
        layers: Of the network behind it.

    Example:
        >>> wav2vec2 = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
        >>> count_frames(16_000, {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, frame_layers(wav2vec2))
        49
    """
    size = samples
    if extractor.get("feature_extractor_type") == "SeamlessM4TFeatureExtractor":
        size = FrameLayer(_MEL_WINDOW, _MEL_HOP).length(samples) // int(extractor.get("stride", 2))
    for layer in layers:
        size = layer.length(size)
    return max(0, size)
