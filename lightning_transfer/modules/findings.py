"""Findings in medical images: AUROC of each while training, losses for rare and uncertain labels, averaged views."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_transfer.errors import listing
from lightning_transfer.metrics.label_auroc import LabelAUROC
from lightning_transfer.modules.classification import ClassificationModule
from lightning_transfer.modules.losses import asymmetric_loss, balanced_label_weights
from lightning_transfer.modules.views import check_views, mean_logits, views_of
from lightning_transfer.types import Batch, ModelOutput, Schema

__all__ = ["FindingsModule"]


class FindingsModule(ClassificationModule):
    """Tell which findings a picture shows: several at once (multi-label), or one against none, or one of several.

    Logs ``val_auroc`` and ``val_auroc_<finding>`` beside what `ClassificationModule` logs, and keeps the epoch with the
    highest ``val_auroc``: the mean over the findings that have both positives and negatives in the validation split.
    The other findings are left out, where a mean with zeros would only measure how rare they are. For classes that
    exclude each other a finding's AUROC is that against the rest; with a negative class ``val_auroc`` is that of
    anything against it.

    Args:
        backbone: As in `ClassificationModule`.
        loss: ``asymmetric`` turns away from easy negatives (Ridnik et al. 2021): for many findings that most
            records do not have. Not for classes that exclude each other.
        gamma_negative: Exponent of the negatives in the asymmetric loss; the paper's choice.
        gamma_positive: Exponent of the positives; 0 is the paper's choice.
        margin: Probability up to which a negative costs nothing in the asymmetric loss; the paper's choice.
        class_weights: ``balanced`` lets positives and negatives of each finding weigh the same, as far as
            ``max_positive_weight`` allows; a list gives one factor for the positives of each.
        max_positive_weight: Largest factor between a positive and a negative that ``balanced`` gives.
        test_time_views: Further views of each picture over which predictions are averaged: ``shift``, ``rotate``,
            ``scale``, ``horizontal_flip``; see `VIEWS`. Temperature and thresholds are fitted on the average, so the
            checkpoint keeps them. A prediction takes 2 to 10 times as long. Validation while training uses none.
        **kwargs: Every further argument of `ClassificationModule`.

    Example:
        >>> module = FindingsModule("timm/test_resnet", weights="random", loss="asymmetric", in_channels=1)
        >>> module.use_schema(Schema(task="multilabel", classes=("Edema", "Effusion")))
        >>> module.configure_model()
        >>> target = torch.tensor([[1.0, float("nan")], [0.7, 0.0]])  # unknown, and uncertain
        >>> module.loss(module(torch.zeros(2, 1, 64, 64)), target).ndim
        0
    """

    monitor: str | None = "val_auroc"
    monitor_mode = "max"

    def __init__(
        self,
        backbone: str,
        loss: Literal["cross_entropy", "focal", "asymmetric"] = "cross_entropy",
        gamma_negative: float = 4.0,
        gamma_positive: float = 0.0,
        margin: float = 0.05,
        class_weights: Literal["balanced"] | list[float] | None = None,
        max_positive_weight: float = 50.0,
        test_time_views: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        if gamma_negative < 0 or gamma_positive < 0:
            raise ValueError(
                "Expected `gamma_negative` and `gamma_positive` of at least 0, got "
                f"{gamma_negative} and {gamma_positive}. The paper uses 4 and 0."
            )
        if not 0.0 <= margin < 1.0:
            raise ValueError(f"Expected `margin` in [0, 1), got {margin}. The paper uses 0.05.")
        if max_positive_weight < 1:
            raise ValueError(f"Expected `max_positive_weight` of at least 1, got {max_positive_weight}. 50 is usual.")
        views = check_views(test_time_views or ())
        super().__init__(
            backbone, loss="focal" if loss == "focal" else "cross_entropy", class_weights=class_weights, **kwargs
        )
        self.loss_name = loss
        self.gamma_negative = gamma_negative
        self.gamma_positive = gamma_positive
        self.margin = margin
        self.max_positive_weight = max_positive_weight
        self.test_time_views = views
        self.finding_auroc: LabelAUROC | None = None

    @property
    def findings(self) -> tuple[str, ...]:
        """The classes that are findings: all but the one that means none."""
        if self.schema is None:
            return ()
        if self.schema.task == "binary":
            return self.schema.classes[1:]
        return tuple(name for name in self.schema.classes if name != self.schema.negative_class)

    @property
    def _has_score(self) -> bool:
        """Leave the parent's AUROC out: it says 0 where it is undefined."""
        return False

    def configure_model(self) -> None:
        """Build head, loss and metrics from the schema, once."""
        if self.head is not None:
            return
        super().configure_model()
        if self.schema is None:
            return
        if self.loss_name == "asymmetric" and (self.schema.task == "multiclass" or self.label_smoothing):
            why = (
                "label smoothing" if self.label_smoothing else f"{self.schema.task} data, whose classes exclude others"
            )
            raise MisconfigurationException(
                f"`loss: asymmetric` is not defined with {why}. Use `loss: focal`, or leave that out."
            )
        self.finding_auroc = LabelAUROC()

    def _weights(self, schema: Schema) -> Tensor | None:
        if self.class_weights != "balanced" or schema.task != "multilabel":
            return super()._weights(schema)
        positives, negatives = schema.train_counts, schema.negatives
        if not positives:
            return None  # restored for prediction, with data that have no training split
        lacking = [name for name in schema.classes if not positives.get(name) or not negatives.get(name)]
        if lacking:
            raise MisconfigurationException(
                f"`class_weights: balanced` needs training records with and without each finding; that is not so for "
                f"{listing(f'`{name}`' for name in lacking)}. Leave such findings out, or set `class_weights: null`."
            )
        have, lack = ([int(table[name]) for name in schema.classes] for table in (positives, negatives))
        return balanced_label_weights(have, lack, max_positive_weight=self.max_positive_weight)

    def loss(self, preds: Tensor, target: Tensor) -> Tensor:
        """Return the training loss of logits ``(N, num_logits)``; missing labels are NaN, uncertain ones soft."""
        if self.loss_name != "asymmetric":
            return super().loss(preds, target)
        return asymmetric_loss(
            preds if (shift := self._buffers.get("_adjustment")) is None else preds + shift,
            target.reshape(preds.shape).to(preds.dtype),
            weight=self._buffers.get("_weight"),
            gamma_positive=self.gamma_positive,
            gamma_negative=self.gamma_negative,
            margin=self.margin,
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> ModelOutput:
        """Return logits and features, averaged over the views."""
        if not self.test_time_views:
            return super().predict_step(batch, batch_idx)
        if not isinstance(batch.input, Tensor) or batch.input.ndim != 4:
            raise MisconfigurationException(
                f"`test_time_views: {list(self.test_time_views)}` needs pictures of shape (N, channels, H, W)."
            )
        seen = [self.features(view) for view in views_of(batch.input, self.test_time_views)]
        logits = torch.stack([self._classify(features) for features in seen])
        task = "binary" if self.schema is None else self.schema.task
        return ModelOutput(mean_logits(logits, task), torch.stack(seen).mean(dim=0), batch.target, batch.index)

    def update_validation(self, preds: Tensor, target: Tensor) -> None:
        """Collect scores and labels of the findings as well."""
        super().update_validation(preds, target)
        if self.finding_auroc is not None:
            self.finding_auroc.update(*self._columns(preds, target))

    def _columns(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and labels of the findings; with a negative class, of anything against it in a last column."""
        schema = self.schema
        if schema is None or schema.task != "multiclass":
            return preds, target.reshape(preds.shape)
        # By log-odds: a probability rounds to 1, and records that tie there could be told apart.
        places = [schema.classes.index(name) for name in self.findings]
        columns = [(_log_odds(preds, [place]), target == place) for place in places]
        if schema.negative_class is not None:
            columns.append((_log_odds(preds, places), target != schema.classes.index(schema.negative_class)))
        labels = torch.stack([label for _, label in columns], dim=1).float()
        labels[target < 0] = torch.nan
        return torch.stack([score for score, _ in columns], dim=1), labels

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation that was broken off has collected."""
        super().on_validation_epoch_start()
        if self.finding_auroc is not None:
            self.finding_auroc.reset()

    def on_validation_epoch_end(self) -> None:
        """Log the AUROC of each finding where it is defined, and their mean."""
        super().on_validation_epoch_end()
        if self.finding_auroc is None or not self.finding_auroc.preds:
            return
        # On the module's device, where Lightning keeps what is logged; in float32, since some devices have no other.
        found = self.finding_auroc.compute().reshape(-1).float().to(self.device)
        self.finding_auroc.reset()
        single = found[: len(self.findings)]
        for name, value in zip(self.findings, single, strict=True):
            if not value.isnan() and len(single) > 1:
                self.log(f"val_auroc_{name}", value)
        whole = found[-1] if len(found) > len(single) else single.nanmean()
        if whole.isnan() and not self.trainer.sanity_checking:
            rank_zero_warn(
                "`val_auroc` is undefined: in the validation split no finding has both positives and negatives. The "
                "epoch to keep is then not chosen by it; enlarge `data.val_fraction`."
            )
        self.log("val_auroc", whole, prog_bar=True)

    def rebuild_arguments(self) -> dict[str, Any]:
        """Add the loss's constants and the views, which a prediction needs."""
        return {
            **super().rebuild_arguments(),
            "gamma_negative": self.gamma_negative,
            "gamma_positive": self.gamma_positive,
            "margin": self.margin,
            "max_positive_weight": self.max_positive_weight,
            "test_time_views": list(self.test_time_views),
        }


def _log_odds(preds: Tensor, places: list[int]) -> Tensor:
    """Return the log-odds of some classes together against all others, of logits ``(N, C)``: ``(N,)``."""
    chosen = torch.zeros(preds.shape[1], dtype=torch.bool, device=preds.device)
    chosen[places] = True
    return preds[:, chosen].logsumexp(dim=1) - preds[:, ~chosen].logsumexp(dim=1)
