"""Data of every kind as records: reading, leak-free splits, checks, loading, and tables of predictions."""

from __future__ import annotations

from lightning_transfer.data.audio_augment import AudioAugmentation
from lightning_transfer.data.audio_datamodule import AudioDataModule
from lightning_transfer.data.audio_facts import AudioFacts, inspect_audio
from lightning_transfer.data.audio_files import AUDIO_SUFFIXES, read_audio
from lightning_transfer.data.audio_layouts import AudioLayout
from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.audio_selection import leave_out_by_length, leave_out_by_text, leave_out_empty
from lightning_transfer.data.audio_tables import Utterances, read_utterances
from lightning_transfer.data.audit import audit_data, audit_records, count_records
from lightning_transfer.data.audit_audio import audio_findings
from lightning_transfer.data.audit_images import image_findings
from lightning_transfer.data.audit_transcripts import keyword_findings, transcript_findings
from lightning_transfer.data.augment import AUGMENTATIONS, Augmentations
from lightning_transfer.data.datamodule import BaseDataModule
from lightning_transfer.data.dicom_folder import DicomFolder, DicomRow, dicom_folder
from lightning_transfer.data.file_checks import check_files
from lightning_transfer.data.folders import IMAGE_SUFFIXES, records_from_files, records_from_folder
from lightning_transfer.data.formula_images import FORMULA_CLASSES, FormulaImages
from lightning_transfer.data.image_facts import ImageFacts, inspect_image
from lightning_transfer.data.image_files import MAX_MEGAPIXELS, check_images, image_size, read_image
from lightning_transfer.data.image_formats import (
    MVTEC_GOOD,
    ImageFormat,
    describe_format,
    find_format,
    find_mask_folder,
)
from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.data.label_maps import (
    MaskValues,
    check_label_maps,
    content_box,
    place_labels,
    read_label_map,
    record_labels,
)
from lightning_transfer.data.loading import Collate, RecordDataset, make_loader, stack_inputs
from lightning_transfer.data.mask_hooks import MaskHooks
from lightning_transfer.data.masks import check_masks, read_mask, record_mask
from lightning_transfer.data.nifti_files import count_slices, read_nifti_slice
from lightning_transfer.data.plain_audio import plain_audio_features
from lightning_transfer.data.plain_images import plain_image_features
from lightning_transfer.data.plain_texts import plain_text_classifier
from lightning_transfer.data.predictions import write_predictions
from lightning_transfer.data.private_values import KEPT_TAGS, age_in_years, kept_tags, pseudonym
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.rehearsal import rehearse, without_leaks
from lightning_transfer.data.scan_arrays import array_shape, npz_arrays
from lightning_transfer.data.scan_files import read_scan, scan_kind, scan_size
from lightning_transfer.data.scan_options import WINDOWS, Scan, ScanFacts, ScanOptions
from lightning_transfer.data.scan_preprocessing import ScanPreprocessing
from lightning_transfer.data.splits import assign_folds, assign_parts, assign_splits, check_splits, fingerprint
from lightning_transfer.data.splits_time import assign_splits_by_time
from lightning_transfer.data.tables import OnBadFile, Skipped, read_csv, records_from_csv, write_table
from lightning_transfer.data.text_neighbours import Copies, drop_copies
from lightning_transfer.data.texts import Tickets, read_tickets
from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.data.texts_tokens import MAX_CHUNKS, LongTexts, TextPreprocessing
from lightning_transfer.data.tiling import Box, Tile, Tiling, cut_record, label_tiles
from lightning_transfer.data.transcripts import NORMALISERS, CTCVocabulary, frames_needed, normaliser, read_keywords

__all__ = [
    "AUDIO_SUFFIXES",
    "AUGMENTATIONS",
    "FORMULA_CLASSES",
    "IMAGE_SUFFIXES",
    "KEPT_TAGS",
    "MAX_CHUNKS",
    "MAX_MEGAPIXELS",
    "MVTEC_GOOD",
    "NORMALISERS",
    "WINDOWS",
    "AudioAugmentation",
    "AudioDataModule",
    "AudioFacts",
    "AudioLayout",
    "AudioPreprocessing",
    "Augmentations",
    "BaseDataModule",
    "Box",
    "CTCVocabulary",
    "Collate",
    "Copies",
    "DicomFolder",
    "DicomRow",
    "FormulaImages",
    "ImageFacts",
    "ImageFormat",
    "ImagePreprocessing",
    "LongTexts",
    "MaskHooks",
    "MaskValues",
    "OnBadFile",
    "Progress",
    "RecordDataset",
    "Scan",
    "ScanFacts",
    "ScanOptions",
    "ScanPreprocessing",
    "Skipped",
    "TextCleaning",
    "TextPreprocessing",
    "Tickets",
    "Tile",
    "Tiling",
    "Utterances",
    "age_in_years",
    "array_shape",
    "assign_folds",
    "assign_parts",
    "assign_splits",
    "assign_splits_by_time",
    "audio_findings",
    "audit_data",
    "audit_records",
    "check_files",
    "check_images",
    "check_label_maps",
    "check_masks",
    "check_splits",
    "content_box",
    "count_records",
    "count_slices",
    "cut_record",
    "describe_format",
    "dicom_folder",
    "drop_copies",
    "find_format",
    "find_mask_folder",
    "fingerprint",
    "frames_needed",
    "image_findings",
    "image_size",
    "inspect_audio",
    "inspect_image",
    "kept_tags",
    "keyword_findings",
    "label_tiles",
    "leave_out_by_length",
    "leave_out_by_text",
    "leave_out_empty",
    "make_loader",
    "normaliser",
    "npz_arrays",
    "place_labels",
    "plain_audio_features",
    "plain_image_features",
    "plain_text_classifier",
    "pseudonym",
    "quiet",
    "read_audio",
    "read_csv",
    "read_image",
    "read_keywords",
    "read_label_map",
    "read_mask",
    "read_nifti_slice",
    "read_scan",
    "read_tickets",
    "read_utterances",
    "record_labels",
    "record_mask",
    "records_from_csv",
    "records_from_files",
    "records_from_folder",
    "rehearse",
    "scan_kind",
    "scan_size",
    "stack_inputs",
    "transcript_findings",
    "without_leaks",
    "write_predictions",
    "write_table",
]
