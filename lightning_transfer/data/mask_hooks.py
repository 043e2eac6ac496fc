"""What a datamodule does where each pixel has a class; `BaseDataModule` has it from here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.data.image_files import MAX_MEGAPIXELS, image_size
from lightning_transfer.data.label_maps import BACKGROUND, UNKNOWN, MaskValues, place_labels, record_labels
from lightning_transfer.data.schema import POSITIVE_CLASS
from lightning_transfer.errors import CheckpointError, DataError, closest, listing
from lightning_transfer.types import Record, Schema, Task

__all__ = ["MaskHooks", "may_vary"]


def may_vary(datamodule: MaskHooks) -> bool:
    """Tell whether a datamodule may change training inputs at random: unless the class that can says that it does not.

    A subclass that overrides `augment_input` or `augment_pair`, and says nothing, may.
    """
    classes = type(datamodule).__mro__
    places = {
        name: next((place for place, cls in enumerate(classes) if name in vars(cls)), len(classes))
        for name in ("augment_input", "augment_pair", "varies_inputs")
    }
    base = next(place for place, cls in enumerate(classes) if cls.__name__ == "BaseDataModule")
    changed = min(places["augment_input"], places["augment_pair"])
    return (changed < base and changed < places["varies_inputs"]) or datamodule.varies_inputs


class MaskHooks:
    """Masks as targets, for the task ``segmentation``.

    A subclass may say what its masks hold (``mask_values``), how large an input is (`input_size`), how large a pixel is
    (`pixel_spacing`), or read the classes of pixels its own way (`load_labels`).
    """

    mask_values: MaskValues = "index"
    max_megapixels: float = MAX_MEGAPIXELS
    # Of `BaseDataModule`.
    classes: tuple[str, ...] | None
    negative_class: str | None
    records: list[Record]
    schema: Schema | None
    preprocessing: Any
    task: Task

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes, and not texts, nor those of whole images whose pixels are classified."""
        return self.task not in ("transcription", "segmentation")

    def input_size(self, record: Record) -> tuple[int, int]:
        """Return height and width of a record's own picture; of files of one picture only the header is read."""
        if isinstance(record.input, str | Path | np.ndarray):
            return image_size(record.input, self.max_megapixels)
        height, width = self.preprocessing.read(record.input).shape[:2]
        return int(height), int(width)

    def pixel_spacing(self, record: Record) -> tuple[float, float] | None:
        """Return the size of a pixel of a record's own picture in millimetres, down and across; by default unknown."""
        return None

    def load_labels(self, record: Record) -> NDArray[np.int64] | None:
        """Return the class of each pixel ``(H, W)`` at the picture's own size, -100 where unknown; None: all are.

        Raises:
            DataError: If the mask cannot be read, or does not fit the picture or the classes.
        """
        classes = () if self.schema is None else self.schema.classes
        return record_labels(record, classes, self.mask_values, self.input_size(record), self.max_megapixels)

    def load_target(self, record: Record) -> Tensor:
        """Return the class of each pixel at the network's size, ``(h, w)`` int64, -100 where unknown or padding."""
        spec = self.preprocessing.to_dict()
        labels = self.load_labels(record)
        if labels is None:
            return torch.full((int(spec["size"][0]), int(spec["size"][1])), UNKNOWN)
        return torch.from_numpy(place_labels(labels, spec))

    def load_input(self, record: Record) -> Any:  # noqa: ANN401 - `BaseDataModule` asks for it
        """Return one record's input."""
        raise NotImplementedError

    def load_pair(self, record: Record, generator: torch.Generator | None) -> tuple[Any, Tensor]:
        """Return input and mask, for training changed together at random; runs in worker processes."""
        value, target = self.load_input(record), self.load_target(record)
        return (value, target) if generator is None else self.augment_pair(value, target, generator)

    def augment_pair(self, value: Any, target: Tensor, generator: torch.Generator) -> tuple[Any, Tensor]:  # noqa: ANN401
        """Return input and mask, changed in the same way by the ``augmentations`` that the datamodule has."""
        changes = getattr(self, "augmentations", None)
        return (value, target) if changes is None else changes.pair(value, target, generator)

    @property
    def varies_inputs(self) -> bool:
        """Whether training inputs are changed at random; who overrides `augment_input` says here when it is not so."""
        return bool(getattr(getattr(self, "augmentations", None), "names", ()))

    def find_mask_classes(self, restored: Schema | None) -> tuple[str, ...]:
        """Return the classes of pixels, the background first.

        Raises:
            DataError: If they are not known, the negative class is no label, or no training record has a mask.
            CheckpointError: If a checkpoint has other ones.
        """
        if restored is not None and self.mask_values != "defect":
            found = restored.classes
        else:
            found = self._name_classes()
        if restored is not None and (restored.task != "segmentation" or restored.classes != found):
            raise CheckpointError(
                f"The data do not fit the checkpoint. Data: segmentation, {listing(found, 20)}. Checkpoint:"
                f" {restored.task}, {listing(restored.classes, 20)}. Use the data that belong to it, or train anew."
            )
        train = [record for record in self.records if record.split == "train"]
        if train and all(record.mask is None for record in train):
            raise DataError(
                f"None of the {len(train)} training records has a mask, so there is nothing to learn from. Name the"
                " column of the masks (`data.mask_column`), or put them into a folder `masks` beside the images."
            )
        return found

    def _name_classes(self) -> tuple[str, ...]:
        labels = sorted({record.label for record in self.records if isinstance(record.label, str)})
        if self.mask_values == "index":
            if self.classes is None:
                raise DataError(
                    "The masks hold numbers of classes, and nothing names these. Give the names in `data.classes`, that"
                    " of number 0 first."
                )
            return self.classes
        if self.negative_class is not None and labels and self.negative_class not in labels:
            raise DataError(
                f"No class is `{self.negative_class}` (`negative_class`).{closest(self.negative_class, labels)}"
                f" Classes: {listing(labels, 20)}."
            )
        first = self.negative_class or BACKGROUND
        if self.mask_values == "defect":
            return first, POSITIVE_CLASS
        return (first, *self._kinds(labels, first))

    def _kinds(self, labels: Sequence[str], first: str) -> list[str]:
        kinds = [name for name in labels if name != first]
        if not kinds:
            raise DataError(
                f"Masks are of the class that their record has (`mask_values: label`), and no record has another one"
                f" than `{first}`."
            )
        return kinds
