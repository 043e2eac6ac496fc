"""Find defects after training on good parts alone: distances of patches to a memory of normal ones (PatchCore)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_transfer.backbones.feature_maps import mid_level_layers, read_maps
from lightning_transfer.errors import listing
from lightning_transfer.metrics import auroc
from lightning_transfer.modules.normal_only_bank import FENCE, MemoryBank
from lightning_transfer.modules.normal_only_coreset import greedy_coreset, project
from lightning_transfer.modules.normal_only_patches import PatchReservoir, patch_features
from lightning_transfer.modules.transfer import TransferModule
from lightning_transfer.types import Batch, ModelOutput, Schema

__all__ = ["NormalOnlyModule"]

_SEED = 0  # of the sample, the projection and the first patch: the same data give the same memory


class NormalOnlyModule(TransferModule):
    """Tell good parts from all others, with (almost) no defects to learn from: PatchCore (Roth et al. 2022).

    arXiv 2106.08265. Training is one pass over the training split without an optimizer step: the frozen backbone's
    patches of good images are collected, and a coreset of them is the model. A patch's anomaly is its distance to the
    nearest remembered one; an image's score follows its worst patch. Records of other classes are left out of
    training, and counted aloud. The logit rises with the score, so threshold, intervals and tables are those of every
    other module; before any calibration it is 0 where an image would be an outlier among the good training images.

    Good training images are scored with their own group left out; outliers among them may be defects that nobody
    labelled, and are named in a warning.

    Logged: ``val_auroc``, where validation holds both classes. One process only.

    Args:
        backbone: See `TransferModule`; any network with maps of the image inside.
        weights: See `TransferModule`.
        card: See `TransferModule`.
        layers: Dotted names of the backbone's layers to read; None takes two of middle depth, see `mid_level_layers`.
        coreset_share: Share of the collected patches to remember. In the paper 1 % is 0.1 points of AUROC below 10 %,
            which is as good as all; time to train and to predict is a tenth.
        max_patches: Patches to collect at most; of more, a uniform sample is kept. 50,000 patches of WideResNet50's
            1,536 features take 0.3 GB while training.
        projection: Random directions in which the coreset is chosen, where features are wider; they speed up training
            alone, distances are those of all features.
        num_neighbours: Normal patches that weigh an image's score (equation 7); 0 takes the plain distance.
        smoothing: Standard deviation of the Gaussian over anomaly maps, in pixels of the model's input (paper: 4).

    Attributes:
        grids: Record's position -> distances of its patches ``(h, w)``, of the last test, or prediction if asked.
        keep_grids: Whether prediction keeps them; a test always does.
        suspects: Id and robust deviations above the median of outlying training images, the worst first.

    Example:
        >>> from lightning_transfer.types import Schema
        >>> module = NormalOnlyModule("timm/test_resnet", weights="random")
        >>> module.use_schema(Schema(task="binary", classes=("good", "defect")))
        >>> module.configure_model()
        >>> module.layers
        ('layer2', 'layer3')
    """

    learns_from = "negative"
    monitor = None

    def __init__(
        self,
        backbone: str,
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        layers: list[str] | None = None,
        coreset_share: float = 0.01,
        max_patches: int = 50_000,
        projection: int = 128,
        num_neighbours: int = 9,
        smoothing: float = 4.0,
    ) -> None:
        if not 0.0 < coreset_share <= 1.0:
            raise ValueError(f"Expected `coreset_share` in (0, 1], got {coreset_share}. The paper uses 0.1 and 0.01.")
        for name, value in (("max_patches", max_patches), ("projection", projection)):
            if value < 1:
                raise ValueError(f"Expected `{name}` of at least 1, got {value}.")
        if smoothing < 0:
            raise ValueError(f"Expected `smoothing` of at least 0 pixels, got {smoothing}. The paper uses 4.")
        if layers is not None and not layers:
            raise ValueError("Expected names in `layers`, got an empty list. Leave it out for two of middle depth.")
        MemoryBank(num_neighbours)  # refuses a wrong number before the backbone is read
        super().__init__(backbone, weights=weights, card=card)
        self.backbone.requires_grad_(False).eval()
        self.automatic_optimization = False
        self.layers: tuple[str, ...] = tuple(layers or ())
        self.coreset_share = coreset_share
        self.max_patches = max_patches
        self.projection = projection
        self.num_neighbours = num_neighbours
        self.smoothing = smoothing
        self._validated: list[tuple[Tensor, Tensor]] = []
        self.test_outputs: list[ModelOutput] = []
        self.grids: dict[int, Tensor] = {}
        self.keep_grids = False
        self.suspects: list[tuple[str, float]] = []
        self._reservoir: PatchReservoir | None = None
        self._records_seen: list[int] = []
        self._left_out = 0

    @property
    def bank(self) -> MemoryBank:
        """The memory; empty before training."""
        if self.head is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` has no memory bank yet: call `use_schema` and `configure_model` first."
            )
        return cast(MemoryBank, self.head)

    def build_head(self, schema: Schema) -> nn.Module:
        """Return an empty memory bank, and find the layers to read.

        Raises:
            MisconfigurationException: If the data have other classes than good and not good, or a weighted sampler.
            BackboneError: If the backbone has no such layers.
        """
        if schema.task != "binary":
            raise MisconfigurationException(
                f"`{type(self).__name__}` tells good parts from others, and the data are {schema.task} with the "
                f"classes {listing(schema.classes, 10)}. Name the class of good parts in `data.negative_class`; in "
                'plain code pass `Schema(task="binary", classes=(GOOD, OTHER))`.'
            )
        if schema.sampling == "weighted":
            raise MisconfigurationException(
                "`sampler: weighted` repeats some images and skips others, and the memory needs each good one once. "
                "Set `data.sampler` to null."
            )
        if not self.layers:
            channels, height, width = self.card.input_size or (3, 224, 224)
            self.layers = mid_level_layers(self.backbone, (channels, height, width))
        return MemoryBank(self.num_neighbours)

    def setup(self, stage: str) -> None:
        """Refuse several processes, each of which would remember a part of the data."""
        if stage == "fit" and self.trainer.world_size > 1:
            raise MisconfigurationException(
                f"`{type(self).__name__}` trains in one process, and there are {self.trainer.world_size}: each would "
                "remember its share of the images alone. Set `trainer.devices: 1`: it is one pass without gradients."
            )

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's long union
        """Return no optimizer: nothing is trained by gradients."""
        return []

    def train(self, mode: bool = True) -> NormalOnlyModule:
        """Keep the frozen backbone in eval mode, whoever asks."""
        super().train(mode)
        self.backbone.eval()
        return self

    def patches(self, images: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return pooled features ``(N, F)``, and patch descriptors ``(N, D, h, w)`` of images ``(N, C, H, W)``."""
        if not isinstance(images, Tensor):
            raise MisconfigurationException(
                f"`{type(self).__name__}` needs images as one tensor, got {type(images).__name__}. It works on "
                "backbones of images alone."
            )
        with torch.no_grad():
            features, maps = read_maps(self.backbone, self.layers, images)
            return features, patch_features(maps)

    def forward(self, input: Any) -> Tensor:  # noqa: ANN401 - a tensor of images
        """Return logits ``(N, 1)``: above 0 what would be an outlier among good training images."""
        scores, _ = self._remembering()(self.patches(input)[1])
        return self.bank.logits(scores)

    def predict_step(self, batch: Batch, batch_idx: int) -> ModelOutput:
        """Return logits and pooled features, with what the batch says of its rows."""
        return self._output(batch, keep=self.keep_grids)

    def _output(self, batch: Batch, *, keep: bool) -> ModelOutput:
        features, patches = self.patches(batch.input)
        scores, grids = self._remembering()(patches)
        if keep:
            self.grids.update(zip(_places(batch), grids.float().cpu(), strict=True))
        return ModelOutput(self.bank.logits(scores), features, batch.target, batch.index)

    def _remembering(self) -> MemoryBank:
        if not len(self.bank):
            raise MisconfigurationException(
                f"The memory bank of this `{type(self).__name__}` is empty: it was not trained, or its training was "
                "interrupted before the end of the pass. Run `fit` anew."
            )
        return self.bank

    def plan_notes(self) -> list[str]:
        """Say what a fit will do, for the verb ``plan``; nothing trains by gradients, so there are no stages."""
        good = (self.schema.counts.get("train", {}) if self.schema is not None else {}).get(self._negative, 0)
        channels, height, width = self.card.input_size or (3, 224, 224)
        if self.schema is not None and self.schema.preprocessing.get("size"):
            height, width = self.schema.preprocessing["size"]
        _, maps = self.patches(torch.zeros(1, channels, height, width, device=self.device))
        _, length, rows, columns = maps.shape
        total = good * rows * columns
        kept = min(total, self.max_patches)
        return [
            f"one pass over {good} images of `{self._negative}`, no gradients",
            f"layers {', '.join(self.layers)}: {rows} x {columns} patches of {length} numbers an image",
            f"{total:,} patches, {kept:,} collected ({4 * kept * length / 2**20:,.0f} MB), "
            f"{max(1, round(self.coreset_share * kept)):,} remembered",
        ]

    # Training: one pass that collects, then the coreset.

    def on_train_epoch_start(self) -> None:
        """Forget an earlier memory and begin to collect."""
        self.bank.empty()
        self._reservoir = PatchReservoir(self.max_patches, torch.Generator().manual_seed(_SEED))
        self._records_seen, self._left_out, self.suspects = [], 0, []

    @property
    def cache_refusal(self) -> str:
        """Nothing is run twice."""
        return "a bank of normal patches is filled in one pass"

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the patches of the good images; those of other classes do not even pass the backbone."""
        if batch.target is None:
            raise MisconfigurationException("This batch has no labels, so nothing says which images are good.")
        good = batch.target.reshape(-1) == 0
        self._left_out += int((~good).sum())
        if self._reservoir is not None and good.any():
            _, patches = self.patches(batch.input[good])
            rows = patches.flatten(2).transpose(1, 2)
            first = len(self._records_seen)
            self._records_seen += [place for place, used in zip(_places(batch), good.tolist(), strict=True) if used]
            images = torch.arange(first, len(self._records_seen)).repeat_interleave(rows.shape[1])
            self._reservoir.add(rows.flatten(0, 1), images)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401
        """After the last batch, choose the coreset: validation comes before the end of the epoch."""
        if self.trainer.is_last_batch:
            self._remember()

    def on_train_epoch_end(self) -> None:
        """End the fit: further passes would collect the same."""
        self._remember()
        self.trainer.should_stop = True

    def _remember(self) -> None:
        """Turn what was collected into the memory, once, and judge the training images by it."""
        reservoir, self._reservoir = self._reservoir, None
        if reservoir is None:
            return
        if not reservoir.seen:
            raise MisconfigurationException(
                f"None of the {self._left_out} training images is of the class `{self._negative}`, so there is nothing "
                "to remember. Bring good parts into the training split, or correct `data.negative_class`."
            )
        patches = reservoir.patches
        size = max(1, round(self.coreset_share * len(patches)))
        self._say(reservoir, size)
        generator = torch.Generator().manual_seed(_SEED)
        show = getattr(self.trainer, "progress_bar_callback", None) is not None
        narrow = project(patches, self.projection, generator).to(self.device)
        chosen = greedy_coreset(narrow, size, generator, show_progress=show)
        self.bank.fill(patches[chosen])
        ids, groups = self._ids_and_groups()
        scores = self.bank.left_out_scores(patches, reservoir.images, groups, groups[reservoir.images[chosen]])
        self.bank.standardise(scores[scores.isfinite()])
        self._suspect(ids, scores)

    def _say(self, reservoir: PatchReservoir, size: int) -> None:
        if self._left_out:
            rank_zero_info(
                f"{self._left_out} training images of other classes than `{self._negative}` are left out: the memory "
                "holds good parts alone."
            )
        kept = len(reservoir.patches)
        sample = "" if kept == reservoir.seen else f", of which a uniform sample of {kept:,} is kept (`max_patches`)"
        rank_zero_info(
            f"{len(self._records_seen)} images of `{self._negative}` give {reservoir.seen:,} patches{sample}; "
            f"{size:,} of them are remembered (`coreset_share: {self.coreset_share:g}`)."
        )

    def _ids_and_groups(self) -> tuple[list[str], Tensor]:
        """Return the names and the groups of the training images, where the datamodule is one of ours."""
        data: Any = getattr(self.trainer, "datamodule", None)
        records = data.records_for("train") if hasattr(data, "records_for") else None
        if records is None:
            return [str(place) for place in self._records_seen], torch.arange(len(self._records_seen))
        seen = [records[place] for place in self._records_seen]
        ids = [record.id for record in seen]
        keys: list[Any] = [(record.id,) if record.group is None else record.group for record in seen]
        if len(set(keys)) < 2:
            keys = [*ids]  # one part alone: nothing would be left to compare with
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return ids, torch.tensor([numbers[key] for key in keys])

    def _suspect(self, ids: Sequence[str], scores: Tensor) -> None:
        """Name the training images that stand out: defects among what was taken for good."""
        if not scores.isfinite().any():
            rank_zero_warn(
                f"{len(ids)} good training image cannot be compared with others: scores have no scale, and the "
                "threshold of the calibration split alone decides. Bring more good parts."
            )
            return
        deviations = self.bank.logits(scores.nan_to_num(0.0).to(self.device))[:, 0].cpu() + FENCE
        order = deviations.argsort(descending=True).tolist()
        self.suspects = [(ids[place], float(deviations[place])) for place in order if deviations[place] > FENCE]
        if self.suspects:
            names = listing((f"{name} ({value:.1f})" for name, value in self.suspects), 10)
            rank_zero_warn(
                f"{len(self.suspects)} of {len(ids)} good training images stand out by more than {FENCE:g} robust "
                f"deviations, each judged without its own group: {names}. Look at them: a defect in the memory hides "
                "its like."
            )

    @property
    def _negative(self) -> str:
        return self.schema.classes[0] if self.schema is not None else "good"

    # Validation and test.

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep logits and labels; there is nothing to say before the memory is there."""
        if len(self.bank) and batch.target is not None:
            self._validated.append((self(batch.input)[:, 0].double().cpu(), batch.target.reshape(-1).cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log ``val_auroc`` where validation holds both classes."""
        rows, self._validated = self._validated, []
        if rows:
            logits, target = (torch.cat(column).numpy() for column in zip(*rows, strict=True))
            area = float(auroc(np.ones((1, len(target))), logits, target > 0)[0])
            if np.isfinite(area):
                self.log("val_auroc", area, prog_bar=True)

    def on_test_epoch_start(self) -> None:
        """Forget the outputs of an earlier test."""
        self.test_outputs, self.grids = [], {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep outputs and distances; `lightning_transfer.evaluation` computes the numbers from all of them."""
        output = self._output(batch, keep=True)
        target = None if output.target is None else output.target.cpu()
        self.test_outputs.append(ModelOutput(output.logits.cpu(), output.features.cpu(), target, output.index.cpu()))

    def on_predict_epoch_start(self) -> None:
        """Forget the distances of an earlier prediction."""
        self.grids = {}

    def rebuild_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments, with the layers that were found."""
        return {
            "backbone": self.card.name,
            "layers": list(self.layers),
            "coreset_share": self.coreset_share,
            "max_patches": self.max_patches,
            "projection": self.projection,
            "num_neighbours": self.num_neighbours,
            "smoothing": self.smoothing,
        }


def _places(batch: Batch) -> list[int]:
    """Return the position of each row's record; rows may be pieces, whose index says more."""
    places: list[int] = batch.index.reshape(len(batch.index), -1)[:, 0].tolist()
    return places
