"""The base of all datamodules: read records, split them by group, check them, load them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_transfer.data.audit_texts import text_findings
from lightning_transfer.data.class_batches import leaves_single, make_sampler
from lightning_transfer.data.division import Division
from lightning_transfer.data.loading import (
    Collate,
    EpochSampler,
    RecordDataset,
    encode_label,
    expand,
    make_loader,
    stack_inputs,
)
from lightning_transfer.data.mask_hooks import MaskHooks, may_vary
from lightning_transfer.data.options import check_options
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.reading import leave_out_unusable
from lightning_transfer.data.schema import (
    POSITIVE_CLASS,
    Preprocessing,
    build_schema,
    check_preprocessing,
    count_labels,
    known_schema,
    learnt_from_alone,
    resolve_classes,
    take_together,
    warn_of_other_records,
)
from lightning_transfer.data.splits import check_splits, needed_splits
from lightning_transfer.data.tables import OnBadFile, Skipped
from lightning_transfer.findings import Finding
from lightning_transfer.types import BackboneCard, Batch, Record, Schema, Split, Task

__all__ = ["BaseDataModule"]

_Batches = DataLoader[Batch]
_Items = tuple[list[Record], list[tuple[int, int, int]] | None]  # records, or their pieces with `expand`'s index


class BaseDataModule(MaskHooks, pl.LightningDataModule, ABC):
    """Read, split, check and load records; know nothing of a domain.

    A subclass says how records are read (`read_records`), how an input becomes tensors (`make_preprocessing`,
    `load_input`), and if it likes, how files are checked (`check_inputs`, `audit_inputs`), what prediction reads
    (`read_predict_records`), how training inputs vary (`augment_input`), and into which pieces a record is cut
    (`pieces`): a batch then holds pieces, of which the evaluation makes one row a record. The baseline ``plain`` needs
    a method ``plain_features(train)``, which returns what maps records to numbers ``(N, F)`` without any network, or
    ``plain_classifier(train, schema)``, which returns what maps them to logits, and a description.

    ``setup`` asks the module for its ``card`` and leaves a ``schema`` for it. A module that learns from the negative
    class alone gets two classes, that one and ``defect``; training then needs no defects. Where there is a checkpoint,
    its order of classes holds, and its preprocessing must be this one. Prediction needs no labels.

    Args:
        batch_size: Records in a batch. A last training batch of one is left out: BatchNorm cannot train on it.
        num_workers: Processes that load data; 0 loads in the main process.
        val_fraction: Share of what is not test; not used where the data has such a split, as the next two.
        calibration_fraction: Share of what is not test, for threshold and temperature; 0 uses validation for these.
        test_fraction: Share of all records, but for those in given splits; not used with ``num_folds``.
        num_folds: Cross-validation by groups: test is one of this many folds.
        fold: Which of them, from 0.
        split_seed: Of the division, of shuffling and of augmentation.
        on_bad_file: ``skip`` trains without unusable files and lists them; ``error`` stops.
        given_splits: ``ignore`` divides all records anew, whatever splits they bring along; ``keep`` respects those.
        split_by_time: Column by which the oldest records train and the newest test; groups stay whole.
        sampler: ``weighted`` draws every class equally often, with replacement.
        negative_class: The class that means "nothing found"; it comes first among the classes.
        classes: Names and order of the classes; None takes the sorted labels.
        check_data: Open every file before training (``--check_data`` of a command); ``on_bad_file="skip"`` does too.
        task: ``multiclass``, ``binary`` (the second of two classes is the positive one), ``multilabel``; or
            ``transcription``, whose labels are texts: a subclass fills in `find_classes` and `encode_target`; or
            ``segmentation``, see `MaskHooks`: a module that learns from masks sets it.
    """

    batch_budget: float | None = None  # most that a batch holds of `input_lengths`; None: `batch_size` inputs

    def __init__(
        self,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        val_fraction: float = 0.15,
        calibration_fraction: float = 0.1,
        test_fraction: float = 0.2,
        num_folds: int | None = None,
        fold: int = 0,
        split_seed: int = 0,
        on_bad_file: OnBadFile = "error",
        given_splits: Literal["keep", "ignore"] = "keep",
        split_by_time: str | None = None,
        sampler: Literal["weighted"] | None = None,
        negative_class: str | None = None,
        classes: Sequence[str] | None = None,
        check_data: bool = True,
        task: Task = "multiclass",
    ) -> None:
        super().__init__()
        check_options(
            batch_size=batch_size,
            num_workers=num_workers,
            val_fraction=val_fraction,
            calibration_fraction=calibration_fraction,
            test_fraction=test_fraction,
            num_folds=num_folds,
            fold=fold,
            on_bad_file=on_bad_file,
            given_splits=given_splits,
            split_by_time=split_by_time,
            sampler=sampler,
            classes=classes,
            task=task,
        )
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.division = Division(
            val_fraction, calibration_fraction, test_fraction, num_folds, fold, split_seed, given_splits, split_by_time
        )
        self.split_seed = split_seed
        self.on_bad_file: OnBadFile = on_bad_file
        self.sampler = sampler
        self.negative_class = negative_class
        self.classes = tuple(classes) if classes is not None else None
        self.check_data = check_data
        self.task: Task = task
        self.records: list[Record] = []
        self.predict_records: list[Record] = []
        self.schema: Schema | None = None
        self.preprocessing: Any = None
        self._card: BackboneCard | None = None
        self._given_schema: Schema | None = None
        self._skipped: dict[str, list[Skipped]] = {"fit": [], "predict": []}
        self._reading: list[Skipped] = []
        self.findings: list[Finding] = []  # what reading and dividing had to say
        self._has_given_splits = False
        self._facts: dict[str, Any] = {}  # what `check_inputs` saw, by the record's id, for `audit_inputs`
        self._expanded: dict[tuple[Split, bool], _Items] = {}

    # What a subclass fills in.

    @abstractmethod
    def read_records(self) -> list[Record]:
        """Return all records, with the splits that the data brings along; append unusable rows by `skip`."""

    def read_predict_records(self) -> list[Record]:
        """Return the records to predict, labels optional; by default those of `read_records`."""
        return self.read_records()

    @abstractmethod
    def make_preprocessing(self, card: BackboneCard) -> Preprocessing:
        """Return what turns an input into tensors as this backbone expects them."""

    @abstractmethod
    def load_input(self, record: Record) -> Any:  # noqa: ANN401 - tensor or dict of tensors
        """Return one record's input as tensor or dict of tensors; runs in worker processes."""

    def check_inputs(self, records: Sequence[Record]) -> tuple[list[Record], list[Skipped]]:
        """Return the usable records and the others, or raise as ``on_bad_file`` says; by default all are usable."""
        return list(records), []

    def audit_inputs(self, records: Sequence[Record], *, near: bool, progress: Progress = quiet) -> list[Finding]:
        """Return what `audit_data` says of the inputs, by default of texts; ``near`` looks for nearly equal ones."""
        texts = all(isinstance(record.input, str) for record in records)
        return text_findings(records, near=near, progress=progress) if texts else []

    def augment_input(self, value: Any, generator: torch.Generator) -> Any:  # noqa: ANN401 - as `load_input`
        """Return a training input, changed at random by the generator alone; by default unchanged."""
        return value

    def pieces(self, record: Record, *, learn: bool) -> Sequence[Record] | None:
        """Return what a record is cut into, as records that `load_input` reads; by default None: it is fed whole.

        Args:
            record: Of any split.
            learn: For the loss of training and validation, with the label of each piece; pieces whose label is unknown
                are left out. Else all pieces, with the record's label.
        """
        return None

    def set_aside(self, records: list[Record]) -> list[Record]:
        """Return the records to learn from and to be judged by, of all after their division; by default all."""
        return records

    def find_classes(self, restored: Schema | None, expands: Schema | None, enough: str | None) -> tuple[str, ...]:
        """Return what the logits stand for, in their order: by default the classes, see `resolve_classes`."""
        if self.task == "segmentation":
            return self.find_mask_classes(restored)
        names = self.classes if enough is None else (enough, POSITIVE_CLASS)
        options: dict[str, Any] = {"negative_class": self.negative_class, "restored": restored, "expands": expands}
        return resolve_classes(self.records, self.task, classes=names, **options)

    def encode_target(self, record: Record) -> Tensor | None:
        """Return what a record's loss compares with, None if unknown: by default its class, see `encode_label`."""
        return encode_label(record, () if self.schema is None else self.schema.classes, self.task)

    def input_lengths(self, records: Sequence[Record]) -> Sequence[float] | None:
        """Return how long each input is, so that batches hold those of like length; by default None: no matter."""
        return None

    def collate_inputs(self, inputs: Sequence[Any]) -> Any:  # noqa: ANN401 - as `load_input`
        """Return one batch of inputs; by default tensors are stacked, and dicts of tensors padded with zeros."""
        return stack_inputs(inputs)

    # What modules, evaluation and the command line ask for.

    def use_card(self, card: BackboneCard) -> None:
        """Take the preprocessing from this card, not from the trainer's module."""
        self._card = card

    def use_schema(self, schema: Schema) -> None:
        """Hold to the classes and the preprocessing of a checkpoint; one from ``from_checkpoint`` brings its own.

        Needed with ``Trainer.predict(ckpt_path=...)``: Lightning reads that file after ``setup``.
        """
        self._given_schema = schema

    def records_for(self, split: Split) -> list[Record]:
        """Return one split's records; a batch's ``index`` counts in this list."""
        if split == "predict":
            return self.predict_records
        return [record for record in self.records if record.split == split]

    def list_skipped(self, stage: Literal["fit", "predict"] = "fit") -> list[Skipped]:
        """Return what was left out when the data (``fit``), or what to predict, was read."""
        return list(self._skipped[stage])

    def setup(self, stage: str) -> None:
        """Read, split and check the data once; build the schema and the preprocessing for the stage."""
        restored = self.restored
        expands: Schema | None = None if restored is not None else getattr(self._module(), "expands", None)
        learns_from = getattr(self._module(), "learns_from", "all")
        self.task = "segmentation" if learns_from == "masks" else self.task
        before = restored or expands
        self._expanded.clear()
        self.preprocessing = self.make_preprocessing(self._find_card())
        if before is not None:
            check_preprocessing(self.preprocessing.to_dict(), before.preprocessing)
        if stage == "predict":
            found = self._read_and_check("predict", self.read_predict_records)
            self.predict_records = [replace(record, split="predict") for record in found]
            self.schema = known_schema(restored or self.schema)
            return
        if not self.records:
            records = self._read_and_check("fit", self.read_records)
            self._has_given_splits = self.division.keeps_splits_of(records)
            divided, said = self.division.divide(records, by_label=self.task != "transcription")
            self.records, self.findings = self.set_aside(divided), [*self.findings, *said]
        enough = None
        if learns_from == "negative":
            enough = learnt_from_alone(self.records, self.task, self.negative_class, restored)
            # After the splits, so that each has its share of every kind of defect.
            self.task, self.negative_class = "binary", enough
            self.records = take_together(self.records, enough)
        classes = self.find_classes(restored, expands, enough)
        needed = needed_splits(stage, has_train=bool(self.records_for("train")), **self.division.wanted)
        options: dict[str, Any] = {"given": self._has_given_splits, "known": () if before is None else before.classes}
        options.update(classes=classes, enough=enough, by_class=self.has_classes)
        check_splits(self.records, expected=needed, **options)
        negative = self.negative_class if before is None else before.negative_class
        options = {"negative_class": negative, "sampling": self.sampler, "preprocessing": self.preprocessing.to_dict()}
        self.schema = build_schema(self.records, classes, self.task, **options)
        items, index = self._items("train", learn=True) if stage == "fit" else ([], None)
        if index is not None and self.has_classes:
            self.schema = replace(self.schema, piece_counts=count_labels(items, classes))
        if restored is not None and stage != "fit":
            warn_of_other_records(self.schema, restored)

    def train_dataloader(self) -> _Batches:
        """Return shuffled, or balanced, batches that depend on ``split_seed`` and the epoch only."""
        records, index = self._items("train", learn=True)
        processes = getattr(self.trainer, "world_size", 1)
        run = getattr(self._module(), "examples_per_class", None)
        lengths, weighted = self.input_lengths(records), self.sampler == "weighted"
        how = (self.batch_size, processes, weighted, lengths, run, self.batch_budget)
        sampler = make_sampler(records, self.split_seed, *how)
        single = leaves_single(len(records), self.batch_size, processes)
        return self._loader((records, index), self.task, sampler, drop_last=single)

    def val_dataloader(self) -> _Batches | list[_Batches]:
        """Return the batches of validation, in order; none where there is no such split."""
        return self._split_loader("val", learn=True) if self.records_for("val") else []

    def calibration_dataloader(self) -> _Batches:
        """Return the batches for threshold and temperature: calibration, or validation where that is empty."""
        return self._split_loader("calibration" if self.records_for("calibration") else "val")

    def test_dataloader(self) -> _Batches:
        """Return the batches of test, in order."""
        return self._split_loader("test")

    def predict_dataloader(self) -> _Batches:
        """Return the batches to predict, in order, without targets."""
        return self._split_loader("predict")

    def ordered_dataloader(self, split: Split, only: Collection[int] | None = None) -> _Batches:
        """Return the batches of any split in its order, without augmentation; ``only`` names places of records."""
        return self._split_loader(split, only)

    # How it is done.

    def _find_card(self) -> BackboneCard:
        """Return the card given by hand, else that of the trainer's module."""
        card: BackboneCard | None = self._card or getattr(self._module(), "card", None)
        if card is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` takes its preprocessing from the module's `card`, and there is none."
                " Use a TransferModule, or call `datamodule.use_card(card)` before."
            )
        return card

    def _module(self) -> Any:  # noqa: ANN401 - any LightningModule, or None
        return getattr(self.trainer, "lightning_module", None)

    def _read_and_check(self, stage: Literal["fit", "predict"], read: Callable[[], list[Record]]) -> list[Record]:
        """Read records, leave out unusable ones as the user wishes, and say so."""
        self._reading = skipped = self._skipped[stage]
        skipped.clear()
        check = self.check_inputs if self.check_data or self.on_bad_file == "skip" else None
        return leave_out_unusable(read(), skipped, check)

    def skip(self, skipped: Sequence[Skipped]) -> None:
        """Note what a reader left out; called by `read_records` and `read_predict_records`."""
        self._reading.extend(skipped)

    def _items(self, split: Split, *, learn: bool) -> _Items:
        """Return the records of a split, or their pieces with `expand`'s index; found once, as sizes are read."""
        key = (split, learn)
        if key not in self._expanded:
            self._expanded[key] = expand(self.records_for(split), lambda record: self.pieces(record, learn=learn))
        return self._expanded[key]

    def loader_of(self, records: Sequence[Record]) -> _Batches:
        """Return batches of any records, whole and without targets; a batch's ``index`` counts in ``records``."""
        return self._loader((list(records), None), None)

    def _split_loader(self, split: Split, only: Collection[int] | None = None, *, learn: bool = False) -> _Batches:
        return self._loader(self._items(split, learn=learn), None if split == "predict" else self.task, only=only)

    def _loader(
        self,
        items: _Items,
        task: Task | None,
        sampler: EpochSampler | None = None,
        *,
        drop_last: bool = False,
        only: Collection[int] | None = None,
    ) -> _Batches:
        """Return a loader; workers receive a copy of this object without trainer and records."""
        if self.schema is None:
            raise MisconfigurationException(f"`{type(self).__name__}` has not read its data. Call `setup` first.")
        worker, (records, index) = self._for_workers(), items
        augment = worker.augment_input if sampler is not None and may_vary(self) else None
        pair = worker.load_pair if task == "segmentation" else None
        made = (worker.load_input, self.schema.classes, task, augment, index, self.encode_target, pair)
        return make_loader(
            RecordDataset(records, *made),
            sampler,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate=Collate(worker.collate_inputs),
            drop_last=drop_last,
            seed=self.split_seed,
            only=only,
            lengths=self.input_lengths(records),
            budget=self.batch_budget,
        )

    def _for_workers(self) -> BaseDataModule:
        """Return a copy that holds only what loading one record needs, and can be pickled."""
        worker = copy.copy(self)
        worker.trainer = None
        worker.records, worker.predict_records, worker._reading = [], [], []
        worker._skipped, worker._expanded, worker._facts = {"fit": [], "predict": []}, {}, {}
        return worker

    @property
    def restored(self) -> Schema | None:
        """Schema of a checkpoint: given by hand, or brought by a module that was rebuilt from one."""
        return self._given_schema or getattr(self._module(), "schema", None)

    @property
    def show_progress(self) -> bool:
        """Whether a long check may show a bar: on the first process, unless the trainer shows none."""
        trainer: Any = self.trainer
        return trainer is not None and trainer.is_global_zero and trainer.progress_bar_callback is not None
