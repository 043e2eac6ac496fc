"""Data of every kind as records: reading, leak-free splits, checks, loading, and tables of predictions."""

from __future__ import annotations

from lightning_transfer.data.augment import AUGMENTATIONS, Augmentations
from lightning_transfer.data.datamodule import BaseDataModule
from lightning_transfer.data.folders import IMAGE_SUFFIXES, records_from_files, records_from_folder
from lightning_transfer.data.formula_images import FORMULA_CLASSES, FormulaImages
from lightning_transfer.data.images import ImagePreprocessing, check_images, read_image
from lightning_transfer.data.loading import stack_inputs
from lightning_transfer.data.predictions import write_predictions
from lightning_transfer.data.splits import assign_folds, assign_parts, assign_splits, check_splits, fingerprint
from lightning_transfer.data.tables import OnBadFile, Skipped, read_csv, records_from_csv, write_table

__all__ = [
    "AUGMENTATIONS",
    "FORMULA_CLASSES",
    "IMAGE_SUFFIXES",
    "Augmentations",
    "BaseDataModule",
    "FormulaImages",
    "ImagePreprocessing",
    "OnBadFile",
    "Skipped",
    "assign_folds",
    "assign_parts",
    "assign_splits",
    "check_images",
    "check_splits",
    "fingerprint",
    "read_csv",
    "read_image",
    "records_from_csv",
    "records_from_files",
    "records_from_folder",
    "stack_inputs",
    "write_predictions",
    "write_table",
]
