"""The vision recipe's data: images in MVTec AD layout, in a folder for each class, or in a CSV manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.data import (
    MAX_MEGAPIXELS,
    MVTEC_GOOD,
    Augmentations,
    BaseDataModule,
    ImageFormat,
    ImagePreprocessing,
    MaskValues,
    Progress,
    Skipped,
    Tile,
    Tiling,
    check_images,
    check_label_maps,
    check_masks,
    cut_record,
    describe_format,
    find_format,
    find_mask_folder,
    image_findings,
    image_size,
    label_tiles,
    plain_image_features,
    quiet,
    record_mask,
    records_from_csv,
    records_from_files,
    records_from_folder,
)
from lightning_transfer.errors import DataError, listing
from lightning_transfer.findings import Finding
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

    The layout is found and printed. ``mvtec``: ``train/good``, ``test/DEFECT``, ``ground_truth/DEFECT``; the negative
    class is ``good``, and the splits are the official ones, with validation and calibration cut from ``train``. Those
    fit a head that learns from good parts alone; a classifier must see defects: give it ``given_splits: ignore``.
    ``folder``: a folder for each class (or ``train``, ``val``, ``test`` with such folders), and perhaps a folder
    ``masks`` with the same folders. ``csv``: a row for each image; columns without a role are kept for slices.

    Images are resized with their aspect kept and padded, never cropped: defects sit at edges. With a ``tile_size`` the
    network sees overlapping tiles at their own resolution instead, in training and after it, and an image is judged by
    its tiles: evaluation and predictions have one row an image. What ``fit`` logs on validation is about tiles.

    Args:
        root: Folder of the images; no path may leave it. For MVTec AD one category.
        manifest: CSV file, relative to ``root``; None looks for ``manifest.csv``. Prediction reads it where it exists,
            and every image below ``root`` else.
        format: The layout, if it is not to be found out.
        path_column: Column of the image's path, relative to ``root``.
        label_column: Column of the class; several columns of ``1``, ``0`` or nothing for multi-label.
        split_column: Column of ``train``, ``val``, ``calibration`` or ``test``; None uses ``split`` where it exists.
        group_column: Column of what must stay on one side of a split (part, tile, lot); None uses ``group``.
        mask_column: Column of the mask's path, empty where there is none; None uses ``mask`` where it exists.
        mask_values: What masks hold, for the head ``segmentation``. ``defect``: nonzero pixels show a defect, of any
            kind. ``label``: they show the defect that is the image's label. ``index``: each value is the number of one
            of ``classes``.
        group_pattern: Without a manifest: regular expression for the path whose first parentheses match the group.
        image_size: Height and width in pixels that the network sees; None takes the card's.
        pad: What fills the frame beside the image. ``reflect`` mirrors it, which keeps the statistics of a texture and
            draws no new edge; ``mean`` is one grey; ``none`` stretches the image over the frame, proportions lost.
        bit_depth: Bits that the camera uses of 16-bit grey files (10, 12 or 14); None is 16.
        max_megapixels: Larger images are refused before they are decoded: a small file can claim any size.
        tile_size: Side of a tile, or height and width, in pixels of the image; None takes images whole.
        tile_overlap: Pixels that neighbours share at least; as large as the largest defect, if it is to be whole in
            some tile. None is a quarter of the tile.
        tile_top_k: An image's probabilities are the mean of those of its k tiles with the highest defect score; 1 is
            the maximum. None takes all tiles, the only rule without a negative class.
        unmasked_tiles: Training tiles of an image of a defect without mask. ``leave_out``: any of them may be clean, so
            none is learnt from. ``image_label``: all have the image's label, right where defects cover the part.
        augmentations: Symmetries that your parts have: ``horizontal_flip``, ``vertical_flip``, ``rotate_90``,
            ``brightness``. None by default, since a flipped part may not exist.
        surfaces: Draw these generated surfaces into ``root`` first, unless they are there.
        **kwargs: All arguments of `BaseDataModule`: batch size, fractions, folds, sampler, bad files.
    """

    def __init__(
        self,
        root: str,
        manifest: str | None = None,
        format: Literal["auto", "mvtec", "folder", "csv"] = "auto",
        path_column: str = "path",
        label_column: str | list[str] = "label",
        split_column: str | None = None,
        group_column: str | None = None,
        mask_column: str | None = None,
        mask_values: MaskValues = "defect",
        group_pattern: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        pad: Literal["reflect", "mean", "none"] = "reflect",
        bit_depth: int | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        tile_size: int | tuple[int, int] | None = None,
        tile_overlap: int | None = None,
        tile_top_k: int | None = 1,
        unmasked_tiles: Literal["leave_out", "image_label"] = "leave_out",
        augmentations: list[str] | None = None,
        surfaces: SurfaceOptions | None = None,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        super().__init__(**kwargs)
        self.root = Path(root).expanduser()
        self.manifest = manifest
        self.format: Literal["auto", "mvtec", "folder", "csv"] = format
        self.path_column = path_column
        self.label_column = label_column
        self.split_column = split_column
        self.group_column = group_column
        self.mask_column = mask_column
        self.mask_values = mask_values
        self.group_pattern = group_pattern
        self.image_size = image_size
        self.pad: Literal["reflect", "mean", "none"] = pad
        self.bit_depth = bit_depth
        self.max_megapixels = max_megapixels
        self.tiling = _tiling(tile_size, tile_overlap, tile_top_k)
        self.unmasked_tiles = unmasked_tiles
        self.augmentations = Augmentations(augmentations or ())
        self.surfaces = surfaces
        self._decoded: tuple[Any, Any] = (None, None)

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

    def setup(self, stage: str) -> None:
        """Read, split and check the data; with tiles, make sure that there are labels to learn from."""
        if self.tiling is not None and getattr(self._module(), "learns_from", "all") == "masks":
            raise DataError(
                f"`tile_size` {self.tiling.size}: masks are drawn on whole images. Set `data.tile_size` to null, and"
                " `data.image_size` to what the network should see."
            )
        super().setup(stage)
        if stage == "fit" and self.tiling is not None:
            self._check_tiles()

    def read_records(self) -> list[Record]:
        """Find the layout, say which it is, and read it."""
        found, place = find_format(self.root, self.manifest, self.format)
        if found == "csv":
            records = self._read_manifest(place, label_optional=False)
        else:
            mask_folder = find_mask_folder(self.root, found)
            records = records_from_folder(self.root, group_pattern=self.group_pattern, mask_folder=mask_folder)
        if found == "mvtec" and self.negative_class is None:
            self.negative_class = MVTEC_GOOD
        rank_zero_info(describe_format(found, place, records))
        return records

    def read_predict_records(self) -> list[Record]:
        """Read the manifest where there is one, labels optional, else every image below the root but masks."""
        found, place = self._predict_format()
        if found == "csv":
            # A mask plays no part in a prediction, so a broken one must not prevent it.
            records = [replace(record, mask=None) for record in self._read_manifest(place, label_optional=True)]
            rank_zero_info(describe_format(found, place, records))
            return records
        records = records_from_files(self.root, mask_folder=find_mask_folder(self.root, found))
        rank_zero_info(f"Data: every image below `{self.root}`, {len(records)} images")
        return records

    def _predict_format(self) -> tuple[ImageFormat, Path]:
        """Return the layout; new images need none, nor a manifest that belongs to the training data."""
        if self.manifest is not None and (self.root / self.manifest).is_file():
            return find_format(self.root, self.manifest)
        return find_format(self.root, None, "folder" if self.manifest or self.format == "folder" else "auto")

    def _read_manifest(self, path: Path, *, label_optional: bool) -> list[Record]:
        skipped: list[Skipped] = []
        records = records_from_csv(
            path,
            self.root,
            input_column=self.path_column,
            label_column=self.label_column,
            split_column=self.split_column,
            group_column=self.group_column,
            mask_column=self.mask_column,
            label_optional=label_optional,
            on_bad_file=self.on_bad_file,
            skipped=skipped,
        )
        self.skip(skipped)
        return records

    def check_inputs(self, records: Sequence[Record]) -> tuple[list[Record], list[Skipped]]:
        """Decode every image and mask once, so that a broken one is found before training."""
        self._facts = {}
        check, facts = self.preprocessing.check, self._facts
        good, bad = check_images(records, self.on_bad_file, check=check, facts=facts, show_progress=self.show_progress)
        sixteen = [int(found.high) for found in facts.values() if found.mode.startswith("16-bit")]
        if sixteen and 0 < max(sixteen) < 2**15:
            bits = max(max(sixteen).bit_length(), 9)
            rank_zero_warn(
                f"The highest value of {len(sixteen)} 16-bit images is {max(sixteen)}, so they are dark. If your camera"
                f" has {bits} bits, set `bit_depth: {bits}`."
            )
        if self.mask_values == "index":
            options = (self.classes, self.input_size, self.on_bad_file, self.max_megapixels)
            return check_label_maps(good, *options), bad
        checked = check_masks(
            good, self.on_bad_file, negative_class=self.negative_class, max_megapixels=self.max_megapixels
        )
        return checked, bad

    def audit_inputs(self, records: Sequence[Record], *, near: bool, progress: Progress = quiet) -> list[Finding]:
        """Say what `check_inputs` saw of the pictures; without that check they are opened now."""
        if any(record.id not in self._facts for record in records):
            check_images(records, check=self.preprocessing.check, facts=self._facts, show_progress=self.show_progress)
        seen = [self._facts[record.id] for record in records]
        return image_findings(records, seen, self.preprocessing.to_dict(), near=near, progress=progress)

    def make_preprocessing(self, card: BackboneCard) -> ImagePreprocessing:
        """Take size, mean, standard deviation and filter from the card."""
        return ImagePreprocessing.from_card(
            card,
            self.image_size,
            self.pad,
            bit_depth=self.bit_depth,
            tiling=self.tiling,
            max_megapixels=self.max_megapixels,
        )

    def pieces(self, record: Record, *, learn: bool) -> list[Record] | None:
        """Return the tiles of an image; to learn from, those whose label is known, with that label."""
        if self.tiling is None:
            return None
        tiles = cut_record(record, self.tiling, *image_size(record.input, self.max_megapixels))
        negative = None if self.schema is None else self.schema.negative_class
        if not learn or record.label == negative:
            return tiles
        if record.mask is not None and negative is not None:
            mask = record_mask(record, negative, self.max_megapixels)
            if mask.any():
                return label_tiles(tiles, mask, negative)
        return tiles if self.unmasked_tiles == "image_label" else []

    def load_input(self, record: Record) -> Tensor:
        """Return the image, or the tile, as a normalised tensor ``(C, H, W)``."""
        preprocessing: ImagePreprocessing = self.preprocessing
        if not isinstance(record.input, Tile):
            return preprocessing(record.input)
        source, box = record.input
        # Tiles of one image follow each other but in training: decode it once.
        if self._decoded[0] is not source:
            self._decoded = (source, preprocessing.read(source))
        return preprocessing.from_pixels(self._decoded[1], box)

    def augment_input(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Apply the declared symmetries at random."""
        return self.augmentations(value, generator)

    @property
    def varies_inputs(self) -> bool:
        """Whether a way to change images is allowed."""
        return bool(self.augmentations.names)

    def plain_features(self, train: Sequence[Record]) -> Callable[[Sequence[Record]], NDArray[np.float32]]:
        """Return what describes images without a network, for the baseline ``plain``; ``train`` teaches it nothing."""
        preprocessing: ImagePreprocessing = self.preprocessing
        return lambda records: plain_image_features([record.input for record in records], preprocessing.read)

    def _check_tiles(self) -> None:
        """Refuse a class of which no tile is known, and say what is not learnt from."""
        if self.schema is None or self.tiling is None:
            return
        schema, by_mask = self.schema, self.unmasked_tiles == "leave_out"
        ranked = self.tiling.top_k is not None and schema.task == "multiclass"
        if schema.negative_class is None and (by_mask or ranked):
            raise DataError(
                f"Tiles need a `negative_class`, the class of those that show no defect. Classes:"
                f" {listing(schema.classes, 20)}. Without one set `unmasked_tiles: image_label` and `tile_top_k: null`."
            )
        train = self.records_for("train")
        counts = ", ".join(f"{name} {count}" for name, count in schema.piece_counts.items())
        height, width = self.tiling.size
        rank_zero_info(f"Tiles: of {height} x {width} pixels, to learn from in {len(train)} training images: {counts}")
        if getattr(self._module(), "learns_from", "all") == "negative":
            return  # from tiles of good parts alone
        learnt = {place for place, _, _ in self._items("train", learn=True)[1] or ()}
        lost = [record.id for place, record in enumerate(train) if place not in learnt]
        if lost:
            rank_zero_warn(
                f"{len(lost)} of {len(train)} training images show a defect and have no mask, so their tiles are not"
                f" learnt from: {listing(lost)}. Any of them may be clean."
            )
        # A class without any record is another matter, and not one for a head that learns from good parts alone.
        seen = schema.counts["train"]
        absent = [name for name, count in schema.piece_counts.items() if seen[name] and not count]
        if absent:
            raise DataError(
                f"No training tile is known to be of the class {listing(f'`{name}`' for name in absent)}: its images"
                " have no masks. Give masks, or set `unmasked_tiles: image_label` if the defects cover the parts, or"
                " `tile_size: null` to learn from whole images, or learn from good parts alone."
            )


def _tiling(size: int | tuple[int, int] | None, overlap: int | None, top_k: int | None) -> Tiling | None:
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return Tiling((height, width), min(height, width) // 4 if overlap is None else overlap, top_k)
