"""Masks over time and features while a speech model trains (Park et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["SpecAugment"]


@dataclass(frozen=True)
class SpecAugment:
    """Hide stretches of time and bands of features, so that no single one is relied on.

    arXiv 1904.08779, section 2: each mask's width is uniform between none and the largest, its place uniform in the
    recording. In networks like wav2vec 2.0 the masks lie on the projected features, and hidden frames get the vector
    that stood for them in pretraining, as its authors fine-tune; in mel features they are zero, which is their mean.
    Padding is never counted as time. All numbers come from torch's global state on the CPU, so that runs repeat.

    Attributes:
        time_masks: Masks over time in each recording.
        time_width: Frames of the widest of them.
        time_share: Share of a recording that one of them may hide at most (the paper's ``p``); short ones need it.
        feature_masks: Masks over features in each recording.
        feature_width: Share of all features that the widest of them hides.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> masks = SpecAugment(time_masks=1, time_width=4, feature_masks=0)
        >>> masks(torch.ones(1, 20, 3), torch.tensor([20]), torch.zeros(3)).sum().item()
        54.0
    """

    time_masks: int = 2
    time_width: int = 20
    time_share: float = 0.2
    feature_masks: int = 1
    feature_width: float = 0.1

    def __post_init__(self) -> None:
        for name in ("time_masks", "time_width", "feature_masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"Expected `spec_augment.{name}` of at least 0, got {getattr(self, name)}.")
        for name in ("time_share", "feature_width"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"Expected `spec_augment.{name}` in [0, 1], got {getattr(self, name)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, options: SpecAugment | Mapping[str, Any] | None) -> SpecAugment | None:
        """Return options given as such, as the plain values of a checkpoint, or not at all."""
        return cls(**options) if isinstance(options, Mapping) else options

    def __call__(self, features: Tensor, lengths: Tensor, mark: Tensor) -> Tensor:
        """Return features with masks.

        Args:
            features: ``(N, T, F)``.
            lengths: Frames of each recording, ``(N,)``.
            mark: What a hidden frame becomes, ``(F,)``.
        """
        time, bands = self.draw(lengths.cpu(), features.shape[1], features.shape[2])
        hidden = torch.where(time.to(features.device)[:, :, None], mark.to(features.dtype), features)
        return hidden.masked_fill(bands.to(features.device)[:, None, :], 0.0)

    def draw(self, lengths: Tensor, num_frames: int, num_features: int) -> tuple[Tensor, Tensor]:
        """Draw masks: over time ``(N, T)`` and over features ``(N, F)``, True where something is hidden.

        Args:
            lengths: Frames of each recording, ``(N,)``, on the CPU.
            num_frames: ``T``.
            num_features: ``F``.
        """
        widest = torch.minimum(
            torch.full_like(lengths, self.time_width, dtype=torch.float32), self.time_share * lengths.float()
        ).floor()
        time = _masks(self.time_masks, widest, lengths.float(), num_frames)
        whole = torch.full_like(widest, float(num_features))
        bands = _masks(self.feature_masks, (self.feature_width * whole).floor(), whole, num_features)
        return time, bands


def _masks(count: int, widest: Tensor, sizes: Tensor, total: int) -> Tensor:
    """Draw ``count`` masks for each row: widths from 0 to ``widest``, anywhere within the first ``sizes`` places."""
    rows = len(sizes)
    # Both draws are made whatever comes of them: how many numbers a batch takes depends on its size alone.
    width = (torch.rand(rows, count) * (widest[:, None] + 1)).floor()
    start = (torch.rand(rows, count) * (sizes[:, None] - width + 1)).floor()
    places = torch.arange(total)[None, None, :]
    inside = (places >= start[:, :, None]) & (places < (start + width)[:, :, None])
    return inside.any(dim=1)
