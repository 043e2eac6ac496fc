"""The demo's chests: drawn by formula, written as real DICOM of two sites."""
