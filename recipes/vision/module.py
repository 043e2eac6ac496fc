"""The vision recipe's module: classification, with the numbers a defects engineer watches while it trains."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics.classification import BinaryAveragePrecision, MulticlassRecall

from lightning_transfer.modules import ClassificationModule

__all__ = ["VisionModule"]


class VisionModule(ClassificationModule):
    """Classify images of surfaces; log recall per class and the average precision of "is there a defect?" as well.

    Adds ``val_recall_<class>`` to what `ClassificationModule` logs, and ``val_ap`` where the data name a negative
    class (``good``, ``free``).

    Args:
        backbone: As in `ClassificationModule`.
        **kwargs: All further arguments of `ClassificationModule`.
    """

    def __init__(self, backbone: str, **kwargs: Any) -> None:  # noqa: ANN401 - jsonargparse follows them
        super().__init__(backbone, **kwargs)
        self.val_recall: MulticlassRecall | None = None
        self.val_ap: BinaryAveragePrecision | None = None

    def configure_model(self) -> None:
        """Build the head, and the metrics for the classes of the schema, once."""
        if self.head is not None:
            return
        super().configure_model()
        schema = self.schema
        if schema is None:
            return
        if schema.task == "multiclass":
            self.val_recall = MulticlassRecall(schema.num_classes, average="none")
        if schema.task == "multiclass" and schema.negative_class is not None:
            self.val_ap = BinaryAveragePrecision()

    def update_validation(self, preds: Tensor, target: Tensor) -> None:
        """Update recall and average precision too; both are logged when the epoch's validation ends."""
        super().update_validation(preds, target)
        if self.val_recall is not None:
            self.val_recall.update(preds, target)
        if self.val_ap is not None:
            score, defect = self.defect_scores(preds, target)
            self.val_ap.update(score, defect)

    def on_validation_epoch_end(self) -> None:
        """Log recall per class; a class that the validation split lacks is left out, since its recall is undefined."""
        schema = self.schema
        if schema is None:
            return
        if self.val_recall is not None:
            present = (self.val_recall.tp + self.val_recall.fn) > 0
            for name, recall, known in zip(schema.classes, self.val_recall.compute(), present, strict=True):
                if known:
                    self.log(f"val_recall_{name}", recall)
            self.val_recall.reset()
        if self.val_ap is not None:
            self.log("val_ap", self.val_ap.compute())
            self.val_ap.reset()
