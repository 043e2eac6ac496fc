"""Route texts before there are examples to learn from: by how near a text is to the description of each class."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_transfer.modules.classification import ClassificationModule
from lightning_transfer.modules.descriptions import (
    Descriptions,
    complete_descriptions,
    embed_descriptions,
    read_descriptions,
)
from lightning_transfer.types import Batch, Schema

__all__ = ["ZeroShotModule"]


class ZeroShotModule(ClassificationModule):
    """Classify texts by the cosine to the embedding of each class's description; nothing is trained.

    The cold start: where there are no labelled tickets yet but a few to calibrate on, a sentence encoder and a sentence
    for each queue make a first router. A fit embeds the descriptions before its first step, passes over the data once
    without learning, and calibrates: test, predict, report and export are those of every other module.

    Labels that exclude each other only. Descriptions are cleaned as tickets are.

    Args:
        backbone: See `TransferModule`; an encoder that was trained to compare sentences, such as all-MiniLM-L6-v2.
        weights: See `TransferModule`.
        card: See `TransferModule`.
        descriptions: Class -> description or list of descriptions, or a YAML file of these; a class without takes its
            name, with ``_``, ``-`` and ``/`` as spaces. Several count together: the mean of their directions. Three
            questions as customers put them told banking77's 77 intents much better than the names (see
            ``benchmarks/README.md``).
        scale: Factor of the cosines, so that a softmax over them says something; 20 is what sentence encoders were
            trained with (Reimers and Gurevych 2019). Calibration corrects it by a temperature.

    Raises:
        ValueError: If ``scale`` is not positive.
        DataError: If the descriptions cannot be read.
    """

    monitor = None
    learns_from = "descriptions"

    def __init__(
        self,
        backbone: str,
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        descriptions: dict[str, str | list[str]] | str | None = None,
        scale: float = 20.0,
    ) -> None:
        if scale <= 0:
            raise ValueError(f"Expected `scale` above 0, got {scale}. Sentence encoders were trained with 20.")
        given = read_descriptions(descriptions)  # refuses them before the backbone is read
        super().__init__(backbone, weights=weights, card=card, head_norm="unit")
        self.backbone.requires_grad_(False).eval()
        self.automatic_optimization = False
        self.descriptions: Descriptions = given
        self.scale = scale

    def build_head(self, schema: Schema) -> nn.Module:
        """Return the head of cosines, empty until a fit, or `describe`, embeds the descriptions.

        Raises:
            MisconfigurationException: If a text may have several labels.
            DataError: If a description belongs to no class.
        """
        if schema.task == "multilabel":
            raise MisconfigurationException(
                f"`{type(self).__name__}` chooses the nearest of classes that exclude each other, and the data are "
                "multi-label. Use `model.head: linear`."
            )
        self.descriptions = complete_descriptions(self.descriptions, schema.classes)
        return super().build_head(schema).requires_grad_(False)

    def describe(self) -> Tensor:
        """Embed the descriptions and write them into the head; return their directions ``(num_classes, F)``."""
        if self.schema is None or self.head is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` has no head yet: call `use_schema` and `configure_model` first."
            )
        each, owners = embed_descriptions(self.backbone, self.card, self.schema, self.descriptions)
        total = each.new_zeros(len(self.schema.classes), each.shape[1]).index_add(0, owners.to(each.device), each)
        directions = nn.functional.normalize(total, dim=1)
        rows = directions if len(directions) == self.schema.num_logits else directions[1:] - directions[:1]
        linear: nn.Linear = self.head[-1]  # type: ignore[index] # a Sequential: see the base
        with torch.no_grad():
            # The layer before gives features the length sqrt(F), so that the product is the cosine times the scale.
            linear.weight.copy_(rows * (self.scale / rows.shape[1] ** 0.5))
            nn.init.zeros_(linear.bias)
        return directions

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's long union
        """Return no optimizer: nothing is trained."""
        return []

    def train(self, mode: bool = True) -> ZeroShotModule:
        """Keep the frozen backbone in eval mode, whoever asks."""
        super().train(mode)
        self.backbone.eval()
        return self

    def plan_notes(self) -> list[str]:
        """Say what a fit will do, for the verb ``plan``."""
        return [
            "nothing is trained: each class is the embedding of its descriptions",
            *(f"{name}: {' / '.join(texts)}" for name, texts in self.descriptions.items()),
        ]

    def on_fit_start(self) -> None:
        """Embed the descriptions."""
        super().on_fit_start()
        self.describe()
        own = sum(texts != self._names[name] for name, texts in self.descriptions.items())
        rank_zero_info(
            f"{len(self.descriptions)} classes by their descriptions, {len(self.descriptions) - own} of them by their "
            "names alone (`model.descriptions`)."
        )

    @property
    def _names(self) -> Descriptions:
        return complete_descriptions({}, list(self.descriptions))

    @property
    def cache_refusal(self) -> str:
        """Nothing is run twice."""
        return "nothing trains"

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override] # no loss
        """Do nothing."""

    def on_train_epoch_end(self) -> None:
        """End the fit: there is nothing to learn."""
        self.trainer.should_stop = True

    def rebuild_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, with every class's description."""
        return {"backbone": self.card.name, "descriptions": dict(self.descriptions), "scale": self.scale}
