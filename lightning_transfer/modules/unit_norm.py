"""Scale feature vectors to one length."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["UnitNorm"]


class UnitNorm(nn.Module):
    """Give each feature vector the length ``sqrt(F)``, so that its entries are of the size of 1; no parameters.

    What counts is then the direction alone, as in the cosine that sentence encoders are trained with (Reimers and
    Gurevych 2019, arXiv 1908.10084).

    Example:
        >>> import torch
        >>> round(UnitNorm()(torch.tensor([[3.0, 4.0]])).norm().item() ** 2, 5)
        2.0
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return features ``(N, F)``, scaled; a vector of zeros stays."""
        scaled: Tensor = nn.functional.normalize(features, dim=1) * features.shape[1] ** 0.5
        return scaled
