"""The features that a backbone had before any fine-tuning, read once for all that a test asks of them."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from lightning_transfer.errors import BackboneError
from lightning_transfer.evaluation import Outputs, collect_features
from lightning_transfer.types import Split

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["FrozenFeatures"]


class FrozenFeatures:
    """Loads the backbone when it is first asked for, and keeps what it said of each split.

    False where the backbone cannot be loaded, which is said once.

    Args:
        cli: After its trainer's ``test``.
    """

    def __init__(self, cli: TransferCLI) -> None:
        self.cli = cli
        self._kept: dict[Split, Outputs] = {}

    def __bool__(self) -> bool:
        return self._backbone is not None

    def read(self, split: Split, only: Collection[int] | None = None) -> Outputs:
        """Return features and labels of a split, or of some positions in it.

        Raises:
            BackboneError: If there is no backbone.
        """
        wanted = set(range(len(self.cli.datamodule.records_for(split))) if only is None else only)
        kept = self._kept.get(split)
        if kept is None or not wanted <= set(kept.index.tolist()):
            kept = self._kept[split] = self._collect(split, only)
        return kept if len(kept) == len(wanted) else kept.only(wanted)

    def _collect(self, split: Split, only: Collection[int] | None) -> Outputs:
        if self._backbone is None:
            raise BackboneError("There is no frozen backbone to ask.")
        cli = self.cli
        loader = cli.datamodule.ordered_dataloader(split, only)
        bar = cli.trainer.progress_bar_callback is not None
        return collect_features(self._backbone, loader, cli.trainer.strategy.root_device, bar)

    @cached_property
    def _backbone(self) -> nn.Module | None:
        from lightning_transfer.backbones import load_backbone

        model = self.cli.resolved["model"]
        given = {key: model[key] for key in ("weights", "card", "in_channels") if model.get(key) is not None}
        try:
            backbone: nn.Module = load_backbone(model["backbone"], **given)[0]
        except BackboneError as error:
            rank_zero_warn(f"The probes and baselines on the frozen backbone are left out: {error}")
            return None
        return backbone
