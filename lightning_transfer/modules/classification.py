"""Classification on any backbone: multi-class, binary, and multi-label with missing labels."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelF1Score,
)

from lightning_transfer.errors import listing
from lightning_transfer.modules.expansion import Expansion, start_new_rows
from lightning_transfer.modules.losses import balanced_class_weights, binary_loss, log_prior, multiclass_loss
from lightning_transfer.modules.transfer import TransferModule
from lightning_transfer.types import Batch, ModelOutput, Schema

__all__ = ["ClassificationModule"]


class ClassificationModule(TransferModule):
    """Classify with a pretrained backbone and a linear head; the schema of the data says which kind of task.

    Logged: ``train_loss``, ``val_loss``, ``val_macro_f1``, ``val_accuracy``, and ``val_auroc`` where the schema names
    a negative class or the task is binary (defect against none). The numbers with intervals come from
    `lightning_transfer.evaluation`, not from here.

    Args:
        backbone: See `TransferModule`.
        loss: ``focal`` turns attention to what is still wrong (Lin et al. 2017).
        focal_gamma: Exponent of the focal loss; 2 is the paper's choice. Unused with ``cross_entropy``.
        class_weights: ``balanced`` weighs each class by ``n / (C * n_c)`` of the training split; a list gives one
            factor a class (multi-label: of its positives). Not together with a weighted sampler: rare classes would
            be counted twice.
        logit_adjustment: ``tau`` of Menon et al. 2021: adds ``tau * log prior`` to the logits while training, so that
            the plain arg max is balanced. 0 switches it off, 1 is the paper's choice.
        label_smoothing: Share of the target spread over all classes.
        expand_from: A finished run, or its checkpoint, that gets more classes: backbone, head and preprocessing are
            those of the run, its classes stay in their order, and what else the data have comes after them. Its logits
            are the same bit for bit until a step is made.
        **kwargs: Every further argument of `TransferModule`.

    Example:
        >>> from lightning_transfer.types import Batch, Schema
        >>> module = ClassificationModule("timm/test_resnet", weights="random", loss="focal")
        >>> module.use_schema(Schema(task="multiclass", classes=("good", "bad"), negative_class="good"))
        >>> module.configure_model()
        >>> batch = Batch(torch.zeros(2, 3, 64, 64), torch.tensor([0, 1]), torch.arange(2))
        >>> module.loss(module(batch.input), batch.target).ndim
        0
    """

    monitor: str | None = "val_macro_f1"
    monitor_mode = "max"

    def __init__(
        self,
        backbone: str,
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        focal_gamma: float = 2.0,
        class_weights: Literal["balanced"] | list[float] | None = None,
        logit_adjustment: float = 0.0,
        label_smoothing: float = 0.0,
        expand_from: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"Expected `label_smoothing` in [0, 1), got {label_smoothing}. Use 0.0 for none.")
        if focal_gamma < 0:
            raise ValueError(f"Expected `focal_gamma` of at least 0, got {focal_gamma}. The paper uses 2.0.")
        expansion = None if expand_from is None else Expansion.read(expand_from)
        source_head = bool(kwargs.get("keep_source_head"))
        if expansion is not None:
            kwargs.update(expansion.arguments(backbone, kwargs))
        super().__init__(backbone, **kwargs)
        if expansion is not None:
            expansion.load_backbone(self, keep_source_head=source_head)
        self._expansion = expansion
        self._rows_to_start = expansion is not None
        self.loss_name: str = loss  # subclasses know further ones
        self.focal_gamma = focal_gamma
        self.class_weights = class_weights
        self.logit_adjustment = logit_adjustment
        self.label_smoothing = label_smoothing
        self.val_metrics: MetricCollection | None = None
        self.test_outputs: list[ModelOutput] = []

    def configure_model(self) -> None:
        """Build the head, the loss's constants and the validation metrics from the schema, once."""
        if self.head is not None:
            return
        super().configure_model()
        if self.schema is None:
            return
        self.val_metrics = _metrics(self.schema, self._has_score)
        self.register_buffer("_weight", self._weights(self.schema), persistent=False)
        self.register_buffer("_adjustment", self._prior(self.schema), persistent=False)

    def build_head(self, schema: Schema) -> nn.Module:
        """Return a linear head, or the head of the model that is expanded, with rows for the new classes."""
        if self._expansion is None or self.head_sizes:
            return super().build_head(schema)
        self.head_sizes = self._expansion.sizes(schema)
        return self._expansion.load_head(self)

    @property
    def expands(self) -> Schema | None:
        """The schema of the model that this one gets more classes than; the data keep its order of classes."""
        return None if self._expansion is None else self._expansion.schema

    def on_fit_start(self) -> None:
        """Start the rows of new classes from their training records, once; a fit that goes on has them."""
        super().on_fit_start()
        if self._rows_to_start and self.trainer.ckpt_path is None:
            start_new_rows(self)
        self._rows_to_start = False

    @property
    def _has_score(self) -> bool:
        schema = self.schema
        return schema is not None and (schema.task == "binary" or schema.negative_class is not None)

    def _weights(self, schema: Schema) -> Tensor | None:
        if self.class_weights is None:
            return None
        if schema.sampling == "weighted":
            raise MisconfigurationException(
                f"`class_weights: {self.class_weights}` and `sampler: weighted` both correct the class imbalance, "
                "and together rare classes would count twice. Set one of them to null."
            )
        if self.class_weights == "balanced":
            if schema.task == "multilabel":
                raise MisconfigurationException(
                    "`class_weights: balanced` is not defined for multi-label data, whose labels may be missing. "
                    f"Give the factor of the positives of each class as a list of {schema.num_classes} numbers."
                )
            train = schema.train_counts
            if not all(train.get(name, 0) for name in schema.classes):
                if self._expansion is not None:
                    absent = [name for name in schema.classes if not train.get(name, 0)]
                    raise MisconfigurationException(
                        f"`class_weights: balanced` needs training records of every class; there are none of "
                        f"{listing(absent)}. Rehearse old records of them, or set `class_weights: null`."
                    )
                # Restored for prediction, with data that have no training split: the loss is not used.
                return None
            weight = balanced_class_weights([train[name] for name in schema.classes])
        else:
            weight = torch.tensor(self.class_weights)
            if len(weight) != schema.num_classes:
                raise MisconfigurationException(
                    f"`class_weights` has {len(weight)} numbers, and there are {schema.num_classes} classes: "
                    f"{list(schema.classes)}."
                )
        if schema.task == "multiclass":
            return weight
        if schema.task == "binary":
            return weight[None, :]
        return torch.stack([torch.ones_like(weight), weight], dim=1)

    def _prior(self, schema: Schema) -> Tensor | None:
        if not self.logit_adjustment:
            return None
        if schema.task == "multilabel":
            raise MisconfigurationException(
                f"`logit_adjustment: {self.logit_adjustment}` needs classes that exclude each other. Set it to 0."
            )
        prior = self.logit_adjustment * log_prior(schema.train_counts, schema.classes)
        return prior if schema.task == "multiclass" else (prior[1] - prior[0])[None]

    def loss(self, preds: Tensor, target: Tensor) -> Tensor:
        """Return the training loss of logits ``(N, num_logits)`` for a batch's target, as a scalar."""
        options: dict[str, Any] = {
            "weight": self._buffers.get("_weight"),
            "adjustment": self._buffers.get("_adjustment"),
            "label_smoothing": self.label_smoothing,
            "focal_gamma": self.focal_gamma if self.loss_name == "focal" else 0.0,
        }
        if self.schema is not None and self.schema.task == "multiclass":
            return multiclass_loss(preds, target, **options)
        return binary_loss(preds, target.reshape(preds.shape).to(preds.dtype), **options)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log it as ``train_loss``."""
        loss = self.loss(self(batch.input), _labelled(batch))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.index))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val_loss`` and update the validation metrics."""
        target = _labelled(batch)
        preds = self(batch.input)
        self.log("val_loss", self.loss(preds, target), prog_bar=True, batch_size=len(batch.index), sync_dist=True)
        self.update_validation(preds, target)

    def update_validation(self, preds: Tensor, target: Tensor) -> None:
        """Update and log the validation metrics with the logits ``(N, num_logits)`` of a batch; recipes add theirs."""
        for name, metric in (self.val_metrics or {}).items():
            self._update(name, metric, preds, target)
            self.log(f"val_{name}", metric, prog_bar=name == "macro_f1", batch_size=len(preds))

    def _update(self, name: str, metric: Metric, preds: Tensor, target: Tensor) -> None:
        schema = self.schema
        if schema is None or schema.task != "multiclass":
            shaped = target.reshape(preds.shape)
            # Missing labels, and soft ones, say nothing that could be right or wrong.
            known = torch.where((shaped == 0) | (shaped == 1), shaped, torch.full_like(shaped, -1)).long()
            scores = torch.sigmoid(preds)
            two_sided = schema is not None and schema.task == "binary" and name != "auroc"
            metric.update(
                (scores >= 0.5).long().flatten() if two_sided else scores, known.reshape(-1) if two_sided else known
            )
        elif name == "auroc":
            metric.update(*self.defect_scores(preds, target))
        else:
            metric.update(preds, target)

    def defect_scores(self, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``1 - p(negative class)`` and whether the target is another class, both ``(N,)``, for multi-class."""
        if self.schema is None or self.schema.negative_class is None:
            raise MisconfigurationException(
                "The schema names no `negative_class`, so no score tells defects from none."
            )
        negative = self.schema.classes.index(self.schema.negative_class)
        return 1.0 - torch.softmax(preds, dim=1)[:, negative], (target != negative).long()

    def on_test_epoch_start(self) -> None:
        """Forget the outputs of an earlier test."""
        self.test_outputs = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep the outputs; `lightning_transfer.evaluation` computes the numbers, with intervals, from all of them."""
        output = self.predict_step(batch, batch_idx)
        target = None if output.target is None else output.target.cpu()
        self.test_outputs.append(ModelOutput(output.logits.cpu(), output.features.cpu(), target, output.index.cpu()))

    def rebuild_arguments(self) -> dict[str, Any]:
        """Add the loss, so that a restored module reports the same ``val_loss``."""
        return {
            **super().rebuild_arguments(),
            "loss": self.loss_name,
            "focal_gamma": self.focal_gamma,
            "class_weights": self.class_weights,
            "logit_adjustment": self.logit_adjustment,
            "label_smoothing": self.label_smoothing,
        }


def _labelled(batch: Batch) -> Tensor:
    if batch.target is None:
        raise MisconfigurationException(
            "This batch has no labels, so there is nothing to learn from or to compare with. Give the label column, "
            "or use `predict`."
        )
    return batch.target


def _metrics(schema: Schema, has_score: bool) -> MetricCollection:
    metrics: dict[str, Metric]
    if schema.task == "multiclass":
        classes = schema.num_classes
        metrics = {
            "macro_f1": MulticlassF1Score(classes, average="macro"),
            "accuracy": MulticlassAccuracy(classes, average="micro"),
        }
    elif schema.task == "binary":
        metrics = {
            "macro_f1": MulticlassF1Score(2, average="macro", ignore_index=-1),
            "accuracy": MulticlassAccuracy(2, average="micro", ignore_index=-1),
        }
    else:
        metrics = {"macro_f1": MultilabelF1Score(schema.num_classes, average="macro", ignore_index=-1)}
    if has_score and schema.task != "multilabel":
        metrics["auroc"] = BinaryAUROC(ignore_index=-1)
    # Compute groups would share state between metrics that are updated with different inputs.
    return MetricCollection(metrics, compute_groups=False)
