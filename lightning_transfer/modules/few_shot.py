"""Learn from 5 to 20 examples a class: contrast them in the encoder, and fit a head on what it sees (after SetFit)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_transfer.backbones import LoraOptions
from lightning_transfer.modules.classification import ClassificationModule
from lightning_transfer.modules.descriptions import (
    Descriptions,
    complete_descriptions,
    embed_descriptions,
    read_descriptions,
)
from lightning_transfer.modules.losses import supervised_contrastive_loss
from lightning_transfer.types import Batch, Schema

__all__ = ["FewShotModule"]

_MANY = 20
"""Examples a class above which tuning by cross-entropy is the better way."""


class FewShotModule(ClassificationModule):
    """Adapt an encoder to few examples by contrast, under a logistic regression that is fitted anew each epoch.

    As in SetFit (Tunstall et al. 2022, arXiv 2209.11055), examples of a class are pulled together and classes pushed
    apart, and the head is a logistic regression on the embeddings of all training examples. It is fitted before the
    first step, and again before each validation and at the end of each epoch; no optimizer has it. So validation shows
    what the encoder at hand can do, and every checkpoint of an epoch's end holds a head that fits it.

    Unlike SetFit, which regresses the cosine of drawn pairs, every example must find its partners among all others of
    its batch (`supervised_contrastive_loss`), and must be told by the head of the epoch's beginning (cross-entropy),
    which knows all classes, where a batch holds a few. ``benchmarks/README.md`` compares the losses. The datamodule
    makes batches of several classes with ``examples_per_class`` of each.

    Freezing schedules that open layers from the start fit: ``full``, ``partial``. Classes that exclude each other only;
    one process only. Logged: as `ClassificationModule`, with the sum of both losses as ``train_loss``.

    Args:
        backbone: See `TransferModule`; best an encoder that was trained to compare, such as all-MiniLM-L6-v2.
        weights: See `TransferModule`.
        card: See `TransferModule`.
        contrast: Weight of the contrastive loss beside the cross-entropy; 0 leaves it out.
        temperature: Of the contrastive loss; smaller looks at the hardest pairs alone.
        examples_per_class: Of one class in a batch, at least 2; ``data.batch_size`` is a multiple of it.
        inverse_penalty: Inverse strength of the head's ridge penalty, scikit-learn's ``C``, on features of length 1.
        descriptions: Each description of a class is one more example for the head: ``names`` takes the classes' names,
            a mapping or a YAML file gives better ones, one or several a class; null for none. Questions as customers
            put them help most, and most below 10 examples (see ``benchmarks/README.md``). Texts only.
        keep_source_head: See `TransferModule`.
        lora: See `TransferModule`.
        optimizer: Of the encoder; the head is not among its parameters.
        scheduler: See `TransferModule`.
        scheduler_interval: See `TransferModule`.
        scheduler_monitor: See `TransferModule`.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        backbone: str,
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        contrast: float = 0.3,
        temperature: float = 0.1,
        examples_per_class: int = 4,
        inverse_penalty: float = 30.0,
        descriptions: dict[str, str | list[str]] | str | None = None,
        keep_source_head: bool = False,
        lora: LoraOptions | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-4, weight_decay=0.01),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str = "val_loss",
    ) -> None:
        if contrast < 0:
            raise ValueError(f"Expected `contrast` of at least 0, got {contrast}. 0.3 is a good start.")
        if temperature <= 0:
            raise ValueError(f"Expected `temperature` above 0, got {temperature}. 0.1 is a good start.")
        if examples_per_class < 2:
            raise ValueError(
                f"Expected `examples_per_class` of at least 2, got {examples_per_class}: an example is compared with "
                "others of its class. 4 is a good start."
            )
        if inverse_penalty <= 0:
            raise ValueError(f"Expected `inverse_penalty` above 0, got {inverse_penalty}. 30 is a good start.")
        given = None if descriptions is None else read_descriptions(None if descriptions == "names" else descriptions)
        super().__init__(
            backbone,
            weights=weights,
            card=card,
            head_norm="unit",
            keep_source_head=keep_source_head,
            lora=lora,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            scheduler_monitor=scheduler_monitor,
        )
        self.contrast = contrast
        self.temperature = temperature
        self.examples_per_class = examples_per_class
        self.inverse_penalty = inverse_penalty
        self.descriptions: Descriptions | None = given
        self._fitted_at: int | None = None

    def build_head(self, schema: Schema) -> nn.Module:
        """Return unit length and a linear layer, which no optimizer trains.

        Raises:
            MisconfigurationException: If an example may have several labels, or a sampler draws by weight.
            DataError: If a description belongs to no class.
        """
        if schema.task == "multilabel":
            raise MisconfigurationException(
                f"`{type(self).__name__}` tells examples of one class from others, and the data are multi-label. Use "
                "`model.head: linear`."
            )
        if schema.sampling == "weighted":
            raise MisconfigurationException(
                "`sampler: weighted` and `model.head: few_shot` both choose what a batch holds, and few-shot batches "
                "are balanced already. Set `data.sampler` to null."
            )
        if self.descriptions is not None:
            self.descriptions = complete_descriptions(self.descriptions, schema.classes)
        head = super().build_head(schema).requires_grad_(False)
        for value in head.parameters():
            nn.init.zeros_(value)  # says that it is not fitted yet
        return head

    def setup(self, stage: str) -> None:
        """Refuse several processes, each of which would contrast its own share alone."""
        if stage == "fit" and self.trainer.world_size > 1:
            raise MisconfigurationException(
                f"`{type(self).__name__}` trains in one process, and there are {self.trainer.world_size}. Set "
                "`trainer.devices: 1`: with so few examples one is enough."
            )

    def plan_notes(self) -> list[str]:
        """Say what a fit will do, for the verb ``plan``."""
        notes = [f"{self.examples_per_class} examples of a class at a time; the head is fitted anew in each epoch"]
        many = self._many()
        return [*notes, many] if many else notes

    def on_fit_start(self) -> None:
        """Say where another way would be better."""
        super().on_fit_start()
        self._fitted_at = None
        many = self._many()
        if many:
            rank_zero_info(many)

    def _many(self) -> str:
        counts = sorted(self.schema.train_counts.values()) if self.schema is not None else []
        middle = counts[len(counts) // 2] if counts else 0
        if middle <= _MANY:
            return ""
        return (
            f"Half of the classes have {middle} training examples or more: above {_MANY}, full fine-tuning of a linear "
            "head and the encoder is usually better and faster (`model.head: linear`)."
        )

    def on_train_start(self) -> None:
        """Fit the first head; a resumed fit brings the one that it was interrupted with."""
        if not any(bool(value.any()) for value in self._linear.parameters()):
            self.fit_head()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return cross-entropy plus weighted contrast of a batch, and log it as ``train_loss``."""
        if batch.target is None:
            raise MisconfigurationException("This batch has no labels, so there is nothing to contrast.")
        # In full precision: differences of cosines over a small temperature.
        features = self.features(batch.input).float()
        loss = self.loss(self._classify(features), batch.target)
        if self.contrast:
            target = batch.target.reshape(-1)
            loss = loss + self.contrast * supervised_contrastive_loss(features, target, self.temperature)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.index))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Fit the head to the encoder as it is now."""
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.fit_head()

    def on_train_epoch_end(self) -> None:
        """Fit the head where no validation did; checkpoints are written after this."""
        if self._fitted_at != self.global_step:
            self.fit_head()

    def fit_head(self) -> None:
        """Fit a logistic regression on the embeddings of all training examples, and write it into the head.

        Raises:
            MisconfigurationException: If there is no training data to go over again, or only one class in it.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        features, target = self._embed_training_data()
        if self.descriptions is not None and self.schema is not None:
            described, owners = embed_descriptions(self.backbone, self.card, self.schema, self.descriptions)
            features = np.concatenate([features, described.cpu()])
            target = np.concatenate([target, owners])
        present = np.unique(target)
        if len(present) < 2:
            raise MisconfigurationException(
                f"The training data hold {len(present)} class, and a head tells two or more apart. Bring examples of "
                "the others."
            )
        with warnings.catch_warnings():
            # A head that stopped a little early is as good.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = LogisticRegression(C=self.inverse_penalty, max_iter=300).fit(features.astype(np.float64), target)
        self._write(torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_), present.tolist())
        self._fitted_at = self.global_step

    @property
    def _linear(self) -> nn.Linear:
        linear: nn.Linear = self.head[-1]  # type: ignore[index] # a Sequential: see the base
        return linear

    def _write(self, weight: Tensor, bias: Tensor, present: list[int]) -> None:
        """Write the regression into the linear layer; a class without examples is never the answer."""
        linear = self._linear
        with torch.no_grad():
            # The layer before gives features the length sqrt(F); the regression saw them with length 1.
            weight = weight.to(linear.weight) / linear.in_features**0.5
            if len(weight) == 1 and linear.out_features == 2:  # scikit-learn has one row for two classes
                weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
            if linear.out_features == 1:
                present = [0]
            linear.weight.zero_()
            linear.bias.fill_(-1e4)
            linear.weight[present] = weight
            linear.bias[present] = bias.to(linear.bias)

    def _embed_training_data(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return the directions ``(N, F)`` and classes ``(N,)`` of all training examples, without augmentation."""
        given: Any = self.trainer.train_dataloader
        if not isinstance(given, DataLoader) or given.batch_size is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` goes over the training data again to fit its head, and these come as "
                f"{'batches made elsewhere' if isinstance(given, DataLoader) else type(given).__name__}. Use a "
                "datamodule of lightning_transfer, or one DataLoader with a `batch_size`."
            )
        again = DataLoader(given.dataset, batch_size=given.batch_size, collate_fn=given.collate_fn)
        modes = {part: part.training for part in self.backbone.modules()}
        features, target = [], []
        self.backbone.eval()
        with torch.no_grad(), self.trainer.precision_plugin.forward_context():
            for batch in again:
                moved: Batch = self.trainer.strategy.batch_to_device(batch)
                if moved.target is None:
                    raise MisconfigurationException("Training data without labels: there is no head to fit.")
                features.append(nn.functional.normalize(self.features(moved.input).float(), dim=1).cpu())
                target.append(moved.target.reshape(-1).long().cpu())
        for part, mode in modes.items():
            part.training = mode
        return torch.cat(features).numpy(), torch.cat(target).numpy()

    def rebuild_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments that shape network and head."""
        return {
            "backbone": self.card.name,
            "contrast": self.contrast,
            "temperature": self.temperature,
            "examples_per_class": self.examples_per_class,
            "inverse_penalty": self.inverse_penalty,
            "descriptions": None if self.descriptions is None else dict(self.descriptions),
            "lora": None if self.lora is None else self.lora.to_dict(),
        }
