"""The vision recipe's data: images in a folder for each class, or in a CSV manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_transfer.data import (
    Augmentations,
    BaseDataModule,
    ImagePreprocessing,
    Skipped,
    check_images,
    records_from_csv,
    records_from_files,
    records_from_folder,
)
from lightning_transfer.types import BackboneCard, Record
from recipes.vision.surfaces import write_surfaces

__all__ = ["SurfaceOptions", "VisionDataModule"]


@dataclass
class SurfaceOptions:
    """The generated surfaces of the demo; lots are the groups.

    Attributes:
        seed: Another seed draws another factory.
        num_lots: Production lots; each has its own texture and light.
        images_per_lot: Parts of a lot.
        size: Pixels on a side.
    """

    seed: int = 0
    num_lots: int = 40
    images_per_lot: int = 12
    size: int = 64


class VisionDataModule(BaseDataModule):
    """Read images of parts, split them by group, and prepare them as the backbone's card says.

    Without a manifest, ``root`` holds a folder for each class (or ``train``, ``val``, ``test`` with such folders).
    A manifest is a CSV file with a row for each image; columns without a role are kept for slices. Images are resized
    with their aspect kept and padded, never cropped: defects sit at edges.

    Args:
        root: Folder of the images; no path may leave it.
        manifest: CSV file, relative to ``root``; None reads a folder for each class. Prediction reads it where it
            exists, and every image below ``root`` else.
        path_column: Column of the image's path, relative to ``root``.
        label_column: Column of the class; several columns of ``1``, ``0`` or nothing for multi-label.
        split_column: Column of ``train``, ``val``, ``calibration`` or ``test``; None uses ``split`` where it exists.
        group_column: Column of what must stay on one side of a split (part, tile, lot); None uses ``group``.
        group_pattern: Without a manifest: regular expression for the path whose first parentheses match the group.
        image_size: Height and width in pixels; None takes the card's.
        pad: What fills the frame beside the image. ``reflect`` mirrors it, which keeps the statistics of a texture and
            draws no new edge; ``mean`` is one grey; ``none`` stretches the image over the frame, proportions lost.
        augmentations: Symmetries that your parts have: ``horizontal_flip``, ``vertical_flip``, ``rotate_90``,
            ``brightness``. None by default, since a flipped part may not exist.
        surfaces: Draw these generated surfaces into ``root`` first, unless they are there.
        **kwargs: All arguments of `BaseDataModule`: batch size, fractions, folds, sampler, bad files.
    """

    def __init__(
        self,
        root: str,
        manifest: str | None = None,
        path_column: str = "path",
        label_column: str | list[str] = "label",
        split_column: str | None = None,
        group_column: str | None = None,
        group_pattern: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        pad: Literal["reflect", "mean", "none"] = "reflect",
        augmentations: list[str] | None = None,
        surfaces: SurfaceOptions | None = None,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self.manifest = manifest
        self.path_column = path_column
        self.label_column = label_column
        self.split_column = split_column
        self.group_column = group_column
        self.group_pattern = group_pattern
        self.image_size = image_size
        self.pad: Literal["reflect", "mean", "none"] = pad
        self.augmentations = Augmentations(augmentations or ())
        self.surfaces = surfaces

    def prepare_data(self) -> None:
        """Draw the generated surfaces, where the config asks for them; once, on the first process."""
        if self.surfaces is not None:
            options = self.surfaces
            write_surfaces(
                self.root,
                seed=options.seed,
                num_lots=options.num_lots,
                images_per_lot=options.images_per_lot,
                size=options.size,
            )

    def read_records(self) -> list[Record]:
        """Read the manifest, or a folder for each class."""
        if self.manifest is None:
            return records_from_folder(self.root, group_pattern=self.group_pattern)
        return self._read_manifest(label_optional=False)

    def read_predict_records(self) -> list[Record]:
        """Read the manifest where there is one, labels optional, else every image below the root."""
        if self.manifest is not None and (self.root / self.manifest).is_file():
            return self._read_manifest(label_optional=True)
        return records_from_files(self.root)

    def _read_manifest(self, *, label_optional: bool) -> list[Record]:
        skipped: list[Skipped] = []
        records = records_from_csv(
            self.root / str(self.manifest),
            self.root,
            input_column=self.path_column,
            label_column=self.label_column,
            split_column=self.split_column,
            group_column=self.group_column,
            label_optional=label_optional,
            on_bad_file=self.on_bad_file,
            skipped=skipped,
        )
        self.skip(skipped)
        return records

    def check_inputs(self, records: Sequence[Record]) -> tuple[list[Record], list[Skipped]]:
        """Decode every image once, so that a broken one is found before training."""
        return check_images(records, self.on_bad_file, show_progress=self.show_progress)

    def make_preprocessing(self, card: BackboneCard) -> ImagePreprocessing:
        """Take size, mean, standard deviation and filter from the card."""
        return ImagePreprocessing.from_card(card, self.image_size, self.pad)

    def load_input(self, record: Record) -> Tensor:
        """Return the image as a normalised tensor ``(C, H, W)``."""
        tensor: Tensor = self.preprocessing(record.input)
        return tensor

    def augment_input(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Apply the declared symmetries at random."""
        return self.augmentations(value, generator)
