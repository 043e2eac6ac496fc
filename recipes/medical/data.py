"""The medical recipe's data: X-rays, slices and microscopy with findings, split by patient, that name nobody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_transfer.data import (
    MAX_MEGAPIXELS,
    Augmentations,
    BaseDataModule,
    MaskValues,
    Progress,
    Skipped,
    check_files,
    image_findings,
    plain_image_features,
    quiet,
    scan_size,
)
from lightning_transfer.data.audit_scans import flip_findings, patient_findings, scan_findings
from lightning_transfer.data.deidentification import (
    PUBLIC_PSEUDONYMS,
    Pseudonyms,
    read_key,
    source_path,
    without_folders,
)
from lightning_transfer.data.findings_table import FACT_COLUMNS, TableColumns
from lightning_transfer.data.patient_splits import UnknownPatients, external_test, patients_by_site, require_patients
from lightning_transfer.data.scan_headers import fill_from_headers
from lightning_transfer.data.scan_layouts import ScanLayout, ScanSet, find_predict_layout, find_scan_layout
from lightning_transfer.data.scan_options import ScanFacts, ScanOptions
from lightning_transfer.data.scan_preprocessing import ScanPreprocessing
from lightning_transfer.data.scan_sets import SetOptions, add_test, choose_views, describe_set, read_scan_set, set_task
from lightning_transfer.data.scan_volumes import VolumePreprocessing
from lightning_transfer.data.uncertain_labels import UncertainLabels
from lightning_transfer.errors import DataError, listing
from lightning_transfer.findings import Finding
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import BackboneCard, Batch, Record

__all__ = ["MedicalDataModule"]


class MedicalDataModule(BaseDataModule):
    """Read medical images and what is known of them, split them by patient, and prepare them as the card says.

    The layout is found and printed: a table (``csv``) whose rows may be pictures, DICOM or NIfTI slices; a folder of
    ``dicom``, ``pictures`` or ``nifti`` with a folder for each class; MedMNIST's ``npz``; ``nnunet``. An image without
    a patient is an error, unless you say that each is of another one: images of one patient on both sides of a split
    make any score too good.

    What is learnt and judged: with several ``findings`` each is a label of its own, blank is unknown, ``-1`` uncertain;
    with one, or with a ``label_column``, images have a class. Images of which no label is known are left out, and
    counted.

    With ``deidentify`` ids, patients and studies are keyed hashes in all that is printed, learnt and written, other
    columns than site, view, age, sex and scanner are dropped, ages from 90 are 90, and messages name files without
    their folders. Pictures in reports are still pictures: text that is burned into them stays.

    Args:
        root: Folder of the images, or an ``.npz`` file; no path may leave it.
        table: CSV file, relative to ``root``; None looks for ``manifest.csv``. Prediction reads it where it exists.
        test_table: A second table, whose images are the test.
        layout: The layout, if it is not to be found out.
        findings: Columns of ``1`` (present), ``0`` (absent), ``-1`` (uncertain) or nothing (unknown).
        label_column: Column of the class, where it is no finding.
        uncertain: What uncertain findings are taken for in training: ``ignore``, ``ones``, ``zeros``, ``soft`` (one
            half) or a probability; or a mapping of findings to these, with ``default``.
        path_column: Of the file, relative to ``root``.
        patient_column: Of the patient; None, as below, uses the column of that name (``patient``) where there is one.
        study_column: Of the examination.
        site_column: Of the hospital.
        view_column: Of the projection.
        age_column: Of the age.
        sex_column: Of the sex.
        scanner_column: Of the device.
        split_column: Of ``train``, ``val``, ``calibration`` or ``test``.
        mask_column: Of the mask's path.
        mask_values: What masks hold, for the head ``segmentation``: ``index``, the numbers of ``classes``; ``defect``,
            nonzero where something was found; ``label``, nonzero where the image's class is.
        index_column: Of the slice, frame or row, in files that hold many images.
        keep_columns: Further columns that are kept for slices; with ``deidentify`` all others are dropped.
        patient_pattern: Regular expression for the path, whose first parentheses match the patient.
        study_pattern: Likewise, the study.
        patients_by_site: Tell patients of different sites apart, where each site numbers its own.
        unknown_patients: ``each_image`` says that each image without a patient is of another one.
        external_sites: Sites whose images are the test; nothing else is.
        views: Views that are read, such as ``[PA, AP]``; None reads all.
        modalities: DICOM's codes of the modalities that are read, such as ``[CR, DX]``; images of others are unusable.
        deidentify: Let no identifier reach logs, predictions and reports.
        pseudonym_key_file: File with the secret key of the hashes. Without one they are made with a public key, and who
            knows the form of your patients' numbers can try them all.
        pseudonym_table: Write here which pseudonym is whose; as confidential as the data.
        image_size: Height and width in pixels that the network sees; None takes the card's.
        pad: What fills the frame beside the image; ``mean`` is one grey, ``reflect`` mirrors, ``none`` stretches.
        windows: For CT: names (``lung``, ``mediastinum``, ``bone``) or ``center/width``, each a channel. Empty takes
            the window that the file names.
        scale: ``bit_depth`` divides by what the depth can hold, the same for all images; ``min_max`` by what each image
            has, and forgets how bright it was.
        bit_depth: Bits that plain 16-bit pictures use; None is 16. DICOM files say it themselves.
        nifti_window: Lowest and highest value of NIfTI volumes, which have no bit depth.
        frame: Which is read of DICOM files of several; None refuses them.
        max_megapixels: Larger images are refused before they are decoded.
        by_volume: Judge NIfTI files as wholes, by their slices; None does so in the layout ``nifti``. Else each row of
            a table is one slice (``index``).
        volume_top_k: A volume's probabilities are the mean of those of its k slices with the highest score; None takes
            all slices.
        slice_step: Every how many-th slice of a volume is read.
        channel: Of nnU-Net's cases with several.
        augmentations: What leaves a finding true: ``brightness``, ``rotate_90``, ``vertical_flip``,
            ``horizontal_flip``. The last one moves the heart to the other side, and is said aloud.
        sample: Draw the demo's chest phantoms into ``root`` first, unless they are there.
        sample_seed: Another seed draws other patients.
        **kwargs: All arguments of `BaseDataModule`: batch size, fractions, folds, task, bad files.
    """

    # Patients are the groups; images of one site are on both sides unless `external_sites` says otherwise.
    shared_columns = FACT_COLUMNS

    def __init__(
        self,
        root: str,
        table: str | None = None,
        test_table: str | None = None,
        layout: Literal["auto"] | ScanLayout = "auto",
        findings: list[str] | None = None,
        label_column: str | None = None,
        uncertain: str | float | dict[str, str | float] = "ignore",
        path_column: str = "path",
        patient_column: str | None = None,
        study_column: str | None = None,
        site_column: str | None = None,
        view_column: str | None = None,
        age_column: str | None = None,
        sex_column: str | None = None,
        scanner_column: str | None = None,
        split_column: str | None = None,
        mask_column: str | None = None,
        mask_values: MaskValues = "index",
        index_column: str | None = None,
        keep_columns: list[str] | None = None,
        patient_pattern: str | None = None,
        study_pattern: str | None = None,
        patients_by_site: bool = False,
        unknown_patients: UnknownPatients = "error",
        external_sites: list[str] | None = None,
        views: list[str] | None = None,
        modalities: list[str] | None = None,
        deidentify: bool = True,
        pseudonym_key_file: str | None = None,
        pseudonym_table: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        pad: Literal["reflect", "mean", "none"] = "mean",
        windows: list[str] | None = None,
        scale: Literal["bit_depth", "min_max"] = "bit_depth",
        bit_depth: int | None = None,
        nifti_window: tuple[float, float] | None = None,
        frame: int | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        by_volume: bool | None = None,
        volume_top_k: int | None = None,
        slice_step: int = 1,
        channel: int = 0,
        augmentations: list[str] | None = None,
        sample: bool = False,
        sample_seed: int = 0,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        named = tuple(findings or ())
        set_task(kwargs, named, label_column)
        super().__init__(**kwargs)
        if external_sites and self.division.num_folds is not None:
            raise ValueError(
                f"`external_sites` {external_sites} and `num_folds` {self.division.num_folds} exclude each other: both"
                " say what the test is. Set one of them to null."
            )
        self.root = Path(root).expanduser()
        self.table, self.test_table, self.mask_values = table, test_table, mask_values
        self.layout: Literal["auto"] | ScanLayout = layout
        self.set_options = SetOptions(
            findings=named,
            label_column=label_column,
            columns=TableColumns(
                path_column, patient_column, study_column, site_column, view_column, age_column, sex_column,
                scanner_column, split_column, mask_column, index_column,
            ),
            patient_pattern=patient_pattern,
            study_pattern=study_pattern,
            extra_columns=tuple(keep_columns) if keep_columns is not None else () if deidentify else None,
            classes=self.classes,
            channel=channel,
            slice_step=slice_step,
        )  # fmt: skip
        self.uncertain = UncertainLabels.make(uncertain, named)
        if len(named) == 1 and any(policy not in ("ignore", "ones", "zeros") for policy in self.uncertain.policies):
            raise ValueError(
                f"`uncertain` is `{uncertain}`, and a single finding is a class, which is there or not. Use ignore,"
                " ones or zeros."
            )
        self.patients_by_site, self.unknown_patients = patients_by_site, unknown_patients
        self.external_sites, self.views = tuple(external_sites or ()), tuple(views or ())
        self.deidentify, self.pseudonym_table, self.pseudonym_key_file = deidentify, pseudonym_table, pseudonym_key_file
        self.image_size = image_size
        self.pad: Literal["reflect", "mean", "none"] = pad
        self.scan_options = ScanOptions(
            windows=tuple(windows or ()),
            scale=scale,
            bit_depth=bit_depth,
            nifti_window=nifti_window,
            frame=frame,
            modalities=tuple(modalities or ()),
            max_megapixels=max_megapixels,
        )
        self.by_volume, self.volume_top_k = by_volume, volume_top_k
        self.augmentations = Augmentations(augmentations or ())
        self.sample, self.sample_seed = sample, sample_seed
        self._uncertain: dict[str, tuple[int, ...]] = {}
        self._names: Pseudonyms | None = None
        self._learning = False

    def prepare_data(self) -> None:
        """Draw the phantoms, where the config asks for them; once, on the first process."""
        if self.sample:
            from recipes.medical.sample.make import write_phantoms

            write_phantoms(self.root, seed=self.sample_seed)

    def read_records(self) -> list[Record]:
        """Find the layout, say which it is, read it, and see to patients, sites and pseudonyms."""
        self._names = self._pseudonyms()
        layout, place = find_scan_layout(self.root, self.table, self.layout)
        found = self._read(layout, place, labelled=True)
        records = found.records
        if self.test_table is not None:
            more = self._read("csv", find_scan_layout(self.root, self.test_table)[1], labelled=True)
            records = add_test(records, more.records)
            found.uncertain |= more.uncertain
            found.skipped += [replace(skip, position=None) for skip in more.skipped]
        if found.classes is not None and self.classes is None:
            self.classes = found.classes
        records = fill_from_headers(records, None if self._names is None else self._names.of)
        if self.views:
            records = choose_views(records, self.views)
        if self.patients_by_site:
            records = patients_by_site(records)
        # The makers of arrays divided them, and did not say by whom: a warning is all that can be done.
        unknown = "each_image" if layout == "npz" else self.unknown_patients
        records, said = require_patients(records, unknown, found.columns)
        self.findings += said
        if self.external_sites:
            ignore = self.division.given_splits == "ignore"
            records, said = external_test(records, self.external_sites, ignore_given=ignore)
            self.findings += said
            self.division = replace(self.division, given_splits="keep")
        rank_zero_info(describe_set(layout, place, records))
        return self._without_names(found, records)

    def find_sources(self) -> dict[str, ImagePart]:
        """Return pseudonym -> where the image is, for a report of a run whose tables name no file."""
        records = self.read_records()
        return {record.id: record.input for record in records if isinstance(record.input, ImagePart)}

    def read_predict_records(self) -> list[Record]:
        """Read the table where there is one, labels and patients optional, else every image below the root."""
        self._names = self._pseudonyms()
        layout, place = find_predict_layout(self.root, self.table, self.layout)
        found = self._read(layout, place, labelled=False)
        rank_zero_info(describe_set(layout, place, found.records))
        return self._without_names(found, found.records)

    def set_aside(self, records: list[Record]) -> list[Record]:
        """Take uncertain findings of training as the policies say, and leave out what has no label at all."""
        self.findings += self.uncertain.describe(records, self._uncertain)
        kept, said = self.uncertain.labelled(self.uncertain.learn(records, self._uncertain), self._uncertain)
        self.findings += said
        for finding in said:
            rank_zero_info(finding.message)
        if not kept:
            what = self.set_options.label_column or listing(self.set_options.findings) or "its layout"
            raise DataError(f"None of the {len(records)} images has a label in {what}.")
        return kept

    def encode_target(self, record: Record) -> Tensor | None:
        """Return the labels; for the loss of training with the probabilities of uncertain findings."""
        target = super().encode_target(record)
        if target is not None and self._learning and record.split == "train":
            for place, probability in self.uncertain.soft(self._uncertain.get(record.id, ())).items():
                target[place] = probability
        return target

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return batches with soft labels; all other loaders of training records have those that are known."""
        self._learning = True
        try:
            return super().train_dataloader()
        finally:
            self._learning = False

    def check_inputs(self, records: Sequence[Record]) -> tuple[list[Record], list[Skipped]]:
        """Read every image once, so that a broken one is found before training."""
        self._facts = {}
        return check_files(
            records, self._look, "images", self.on_bad_file, facts=self._facts, show_progress=self.show_progress
        )

    def audit_inputs(self, records: Sequence[Record], *, near: bool, progress: Progress = quiet) -> list[Finding]:
        """Say what was seen of patients, pictures and files, and which column tells the label without any of them."""
        if any(record.id not in self._facts for record in records):
            check_files(records, self._look, "images", facts=self._facts, show_progress=self.show_progress)
        facts: list[ScanFacts] = [self._facts[record.id] for record in records]
        names = (None if self.schema is None else self.schema.classes) or self.classes
        labels = names or sorted({record.label for record in records if isinstance(record.label, str)})
        pictures = [found.image for found in facts if found.image is not None]
        return [
            *patient_findings(records),
            *scan_findings(records, facts, labels, of_classes=self.has_classes),
            *image_findings(records, pictures, self.preprocessing.to_dict(), near=near, progress=progress),
            *([PUBLIC_PSEUDONYMS] if self.deidentify and not self.pseudonym_key_file else []),
            *flip_findings(self.augmentations.names),
        ]

    def make_preprocessing(self, card: BackboneCard) -> ScanPreprocessing:
        """Take size, mean, standard deviation and filter from the card; of volumes, with the rule for their slices."""
        spec = ScanPreprocessing.from_card(card, self.image_size, self.pad, options=self.scan_options)
        if not self._judges_volumes():
            return spec
        return VolumePreprocessing.of(spec, self.volume_top_k, self.set_options.slice_step)

    def pieces(self, record: Record, *, learn: bool) -> Sequence[Record] | None:
        """Return the slices of a volume, each with its label; None where images are judged one by one."""
        return self.preprocessing.pieces(record) if isinstance(self.preprocessing, VolumePreprocessing) else None

    def load_input(self, record: Record) -> Tensor:
        """Return the image, or the slice, as a normalised tensor ``(C, H, W)``."""
        return self.preprocessing(record.input)

    def input_size(self, record: Record) -> tuple[int, int]:
        """Return height and width of the image itself, from its header."""
        return scan_size(record.input, self.scan_options)

    def pixel_spacing(self, record: Record) -> tuple[float, float] | None:
        """Return the size of a pixel in millimetres, down and across, where the file says it."""
        known: ScanFacts | None = self._facts.get(record.id)
        return (known or self.preprocessing.scan(record.input).facts).spacing

    def augment_input(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Change the image at random, in the ways that were allowed."""
        return self.augmentations(value, generator)

    @property
    def varies_inputs(self) -> bool:
        """Whether a way to change images is allowed."""
        return bool(self.augmentations.names)

    def plain_features(self, train: Sequence[Record]) -> Callable[[Sequence[Record]], NDArray[np.float32]]:
        """Return what describes images without a network, for the baseline ``plain``; ``train`` teaches it nothing."""
        spec = self.preprocessing
        shown = spec.middle if isinstance(spec, VolumePreprocessing) else lambda source: source
        return lambda records: plain_image_features([record.input for record in records], lambda x: spec.read(shown(x)))

    def _read(self, layout: ScanLayout, place: Path, *, labelled: bool) -> ScanSet:
        root = self.root if self.root.is_dir() else self.root.parent
        return read_scan_set(layout, place, root, self.set_options, labelled=labelled, on_bad_file=self.on_bad_file)

    def _judges_volumes(self) -> bool:
        """Whether NIfTI files are judged as wholes: as the checkpoint does, as the user says, or by the layout."""
        before = self.restored or getattr(self._module(), "expands", None)
        if before is not None:
            return bool(before.preprocessing.get("tiling"))
        if self.by_volume is not None:
            return self.by_volume
        return self.layout == "nifti" or (
            self.layout == "auto" and self.table is None and find_scan_layout(self.root)[0] == "nifti"
        )

    def _pseudonyms(self) -> Pseudonyms | None:
        if not self.deidentify:
            return None
        return Pseudonyms(read_key(self.pseudonym_key_file), self.set_options.extra_columns or ())

    def _without_names(self, found: ScanSet, records: list[Record]) -> list[Record]:
        """Replace names by pseudonyms where that is asked for, in what was left out too."""
        names = self._names
        if names is None:
            self.skip(found.skipped)
            self._uncertain = found.uncertain
            return records
        if self.pseudonym_table is not None and not getattr(rank_zero_only, "rank", 0):
            written = names.write(self.pseudonym_table, records, self.root.resolve())
            rank_zero_info(f"Pseudonyms: {written}, as confidential as the data")
        self.skip([names.skipped(skip) for skip in found.skipped])
        hidden, self._uncertain = names.hide(records, found.uncertain)
        return hidden

    def _look(self, source: Any) -> ScanFacts:  # noqa: ANN401 - the input of a record
        try:
            return self.preprocessing.check(source)
        except DataError as error:
            if not self.deidentify:
                raise
            raise DataError(without_folders(str(error), source_path(source))) from None

    def _for_workers(self) -> BaseDataModule:
        worker = super()._for_workers()
        worker._uncertain, worker._names = {}, None  # type: ignore[attr-defined]
        return worker
