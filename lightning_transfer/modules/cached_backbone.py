"""What a module does where a cache stands in for the frozen layers of its backbone; part of `TransferModule`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_transfer.backbones.cut import Cut
from lightning_transfer.types import Activations

__all__ = ["CachedBackbone"]


class CachedBackbone:
    """The one way of a batch's input through the backbone: images, tokens and sound, or what a cache kept of them.

    A subclass calls `encode` where it would call the backbone, and says what else of an input it reads.
    """

    backbone: nn.Module
    cut: Cut | None = None
    """Where `FeatureCache` has cut the backbone; None while it is not at work."""

    def encode(self, input: Any, **options: Any) -> Any:  # noqa: ANN401 - as the backbone takes and gives it
        """Return what the backbone makes of a batch's input, in full or from what was kept of it.

        Args:
            input: Tensor or dict of tensors, or `Activations`.
            options: Further arguments of the backbone's ``forward``.
        """
        if not isinstance(input, Activations):
            return self.backbone(input, **options)
        if self.cut is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` was given stored activations, and no `FeatureCache` is at work. Take batches "
                "from the datamodule's own loaders."
            )
        return self.cut.suffix(self.backbone, input, **options)

    def kept_input(self, input: Any) -> dict[str, Tensor]:  # noqa: ANN401 - tensor or dict of tensors
        """Return the parts of an input that the module reads besides the backbone, by name; a tensor alone is ``""``.

        By default none.
        """
        return {}

    @property
    def read_layers(self) -> Sequence[str]:
        """Names of the backbone's layers whose outputs the module reads besides what the backbone returns."""
        return ()

    @property
    def cache_refusal(self) -> str:
        """Why what the frozen layers give may not be kept, as a clause; empty: it may."""
        return ""
