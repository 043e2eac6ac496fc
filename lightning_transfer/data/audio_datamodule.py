"""Records of sound as batches: with transcripts, or with classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from lightning_transfer.data.audio_augment import AudioAugmentation
from lightning_transfer.data.audio_facts import inspect_audio
from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.audio_selection import leave_out_by_length, leave_out_by_text, leave_out_empty
from lightning_transfer.data.audit_audio import audio_findings
from lightning_transfer.data.audit_transcripts import transcript_findings
from lightning_transfer.data.datamodule import BaseDataModule
from lightning_transfer.data.file_checks import check_files
from lightning_transfer.data.plain_audio import plain_audio_features
from lightning_transfer.data.progress import Progress, quiet
from lightning_transfer.data.tables import Skipped
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import DataError, listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import BackboneCard, Record, Schema, Task

__all__ = ["AudioDataModule", "Normalisation"]

Normalisation = Literal["basic", "whisper", "none"]


class AudioDataModule(BaseDataModule):
    """Prepare records of sound as a speech backbone's card says; a subclass reads them.

    The input of a record is an `AudioSegment`, its label a transcript, its group the speaker, and
    ``meta["duration"]`` the length in seconds, as `read_utterances` makes them. Long recordings are recognised in
    pieces with overlap, and not learnt from: no piece has a text of its own. Batches hold recordings of like length.

    With ``task: multiclass`` (or ``binary``) the label is a class; recordings longer than ``max_seconds`` are then
    unusable.

    Args:
        normaliser: Of texts that are learnt from, see `NORMALISERS`. None: ``basic``; for Whisper ``none``.
        scoring_normaliser: Of texts that are compared.
        vocabulary: ``card`` keeps that of the pretrained model, ``new`` makes one of the training texts; ``auto`` keeps
            the card's where it has one.
        min_seconds: Shorter recordings are left out of training.
        max_seconds: Longer recordings are left out of training, and of the loss of validation.
        chunk_seconds: Longer recordings are recognised in pieces of this length. None: 30 s, or what the model hears.
        overlap_seconds: What neighbouring pieces share. None: 4 s, or a sixth of a shorter piece.
        batch_seconds: Of sound in a batch, padding included; its size then differs. None: ``batch_size`` recordings.
        augmentation: How training recordings are changed; None changes none.
        calibration_fraction: As of `BaseDataModule`. Nothing is calibrated for transcripts, so none by default; for
            classes, validation then serves.
        task: ``transcription``, ``multiclass`` or ``binary``.
        **kwargs: All arguments of `BaseDataModule`: batch size, fractions, folds, bad files.

    Raises:
        ValueError: If options are out of range or contradict each other.
    """

    def __init__(
        self,
        normaliser: Normalisation | None = None,
        scoring_normaliser: Normalisation = "basic",
        vocabulary: Literal["auto", "card", "new"] = "auto",
        min_seconds: float = 0.1,
        max_seconds: float = 30.0,
        chunk_seconds: float | None = None,
        overlap_seconds: float | None = None,
        batch_seconds: float | None = None,
        augmentation: AudioAugmentation | None = None,
        calibration_fraction: float = 0.0,
        task: Task = "transcription",
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        super().__init__(calibration_fraction=calibration_fraction, task=task, **kwargs)
        if task == "multilabel":
            raise ValueError("The task `multilabel` is none of recordings. Use transcription, multiclass or binary.")
        if not 0 <= min_seconds < max_seconds:
            raise ValueError(f"Expected `min_seconds` below `max_seconds`, got {min_seconds:g} and {max_seconds:g}.")
        if batch_seconds is not None and (batch_seconds <= 0 or self.sampler is not None):
            raise ValueError(
                f"`batch_seconds` {batch_seconds:g} must be above 0, and does not go with `sampler` {self.sampler},"
                " which draws recordings, not seconds. Leave out one of them."
            )
        if vocabulary not in ("auto", "card", "new"):
            raise ValueError(f"Expected `vocabulary` auto, card or new, got `{vocabulary}`.")
        self.normaliser = normaliser
        self.scoring_normaliser = scoring_normaliser
        self.vocabulary = vocabulary
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        self.chunk_seconds = chunk_seconds
        self.overlap_seconds = overlap_seconds
        self.augmentation = AudioAugmentation() if augmentation is None else augmentation
        # Slower speech takes longer, and a batch must hold it.
        self.batch_budget = None if batch_seconds is None else batch_seconds / self.augmentation.stretch
        self.claimed: dict[str, float] = {}
        self._alphabet: CTCVocabulary | None = None
        self._predicts = False

    @property
    def spec(self) -> AudioPreprocessing:
        """The preprocessing, after `setup`."""
        found: AudioPreprocessing = self.preprocessing
        return found

    @property
    def longest_learnt(self) -> float:
        """Most seconds of a recording that is learnt from."""
        return min(self.max_seconds, self.spec.window_seconds)

    def setup(self, stage: str) -> None:
        """Read, split and check the data; of a prediction nothing unreadable stops it."""
        self._predicts = stage == "predict"
        super().setup(stage)

    def check_inputs(self, records: Sequence[Record]) -> tuple[list[Record], list[Skipped]]:
        """Decode every recording once, so that a broken one is found before training."""
        self._facts = {}
        rule = "skip" if self._predicts else self.on_bad_file
        bar = self.show_progress
        good, bad = check_files(records, inspect_audio, "recordings", rule, facts=self._facts, show_progress=bar)
        longest = self.longest_learnt
        long = [record for record in good if self.has_classes and record.meta["duration"] > longest]
        # One vector for a call of an hour says little, and the hour does not fit into the memory.
        reason = f"it is longer than {longest:g} s (`data.max_seconds`); name a part by offset and duration"
        if long and rule == "error":
            raise DataError(f"{len(long)} recordings cannot be used: {listing(row.id for row in long)}: {reason}.")
        places = {record.id: place for place, record in enumerate(records)}
        bad += [Skipped(record, reason, places[record.id]) for record in long]
        gone = {skip.record.id for skip in bad}
        return [record for record in good if record.id not in gone], bad

    def set_aside(self, records: list[Record]) -> list[Record]:
        """Leave out of training what nothing can be learnt from; make the alphabet of the texts that stay."""
        if self.has_classes:
            return records
        kept, short = leave_out_by_length(records, self.min_seconds, self.longest_learnt)
        kept, empty = leave_out_empty(kept, self.spec)
        self._make_alphabet(kept)
        kept, long = leave_out_by_text(kept, self.spec)
        for finding in (*short, *empty, *long):
            rank_zero_warn(finding.message)
            self.findings.append(finding)
        return kept

    def make_preprocessing(self, card: BackboneCard) -> AudioPreprocessing:
        """Take the feature extractor from the card, and the vocabulary from there, a checkpoint, or later the texts."""
        spec = AudioPreprocessing.from_card(
            card,
            normaliser=self.normaliser,
            scoring_normaliser=self.scoring_normaliser,
            chunk_seconds=self.chunk_seconds,
            overlap_seconds=self.overlap_seconds,
        )
        if self.has_classes:
            return replace(spec, vocabulary=None)
        before = self.restored
        if before is not None and before.preprocessing:
            return replace(spec, vocabulary=CTCVocabulary.from_schema(before))
        if self.vocabulary == "card" and spec.vocabulary is None and not spec.tokenizer_json:
            raise DataError(
                f"The card of `{card.name}` has no vocabulary: it was pretrained without transcripts. Set"
                " `data.vocabulary: new`, or leave it out."
            )
        if self.vocabulary == "new" and spec.tokenizer_json:
            raise DataError(
                f"`{card.name}` writes the tokens of its own tokenizer, so `data.vocabulary: new` does not fit it."
                " Leave it out, or take a backbone for CTC."
            )
        own = spec.vocabulary if self.vocabulary != "new" else None
        return replace(spec, vocabulary=own or self._alphabet)

    def find_classes(self, restored: Schema | None, expands: Schema | None, enough: str | None) -> tuple[str, ...]:
        """Return the tokens of the vocabulary; none where the model has a tokenizer of its own."""
        if self.has_classes:
            return super().find_classes(restored, expands, enough)
        return () if self.spec.vocabulary is None else self.spec.vocabulary.tokens

    def encode_target(self, record: Record) -> Tensor | None:
        """Return the numbers of a transcript in the vocabulary, or those of the model's tokenizer."""
        if self.has_classes:
            return super().encode_target(record)
        return None if record.label is None else torch.tensor(self.spec.encode(str(record.label)), dtype=torch.int64)

    def pieces(self, record: Record, *, learn: bool) -> list[Record] | None:
        """Return the pieces of a long recording; none to learn from, as no piece has a text of its own."""
        seconds, spec = record.meta["duration"], self.spec
        longest = max(self.longest_learnt, spec.chunk_seconds) if learn else spec.chunk_seconds
        if self.has_classes or seconds <= longest:
            return None
        if learn:
            return []
        segment = record.input
        return [
            replace(
                record,
                id=f"{record.id}#{number}",
                input=replace(segment, start=segment.start + start, duration=length),
                meta={**record.meta, "duration": length},
            )
            for number, (start, length) in enumerate(spec.cuts(seconds))
        ]

    def load_input(self, record: Record) -> Tensor:
        """Return the samples of a recording, or of a piece, at the network's rate."""
        return torch.from_numpy(self.spec.read(record.input))

    def augment_input(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Change the samples of a training recording as the options say."""
        return self.augmentation(value, self.spec.sampling_rate, generator)

    @property
    def varies_inputs(self) -> bool:
        """Whether the options change anything."""
        return bool(self.augmentation)

    def collate_inputs(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the features of recordings as one batch, padded to its longest."""
        return self.spec.collate([self.spec.features(wave) for wave in inputs])

    def input_lengths(self, records: Sequence[Record]) -> list[float]:
        """Return the seconds that the network hears of each recording."""
        if self.spec.is_windowed:
            return [self.spec.window_seconds] * len(records)
        return [max(0.1, float(record.meta["duration"])) for record in records]

    def audit_inputs(self, records: Sequence[Record], *, near: bool, progress: Progress = quiet) -> list[Finding]:
        """Say what `check_inputs` heard, and what is to be said of the transcripts; what was not decoded is now."""
        new = [record for record in records if record.id not in self._facts]
        if new:
            check_files(new, inspect_audio, "recordings", facts=self._facts, show_progress=self.show_progress)
        facts = [self._facts[record.id] for record in records]
        found = audio_findings(records, facts, self.claimed, self.spec.sampling_rate)
        return found if self.has_classes else [*found, *transcript_findings(records, self.spec)]

    def plain_features(self, train: Sequence[Record]) -> Callable[[Sequence[Record]], NDArray[np.float32]]:
        """Return what describes recordings without a network, for the baseline ``plain`` of classes."""
        return lambda records: plain_audio_features([record.input for record in records])

    def _make_alphabet(self, records: Sequence[Record]) -> None:
        """Build the vocabulary of the training texts, where the model brings none."""
        spec = self.spec
        if spec.vocabulary is not None or spec.tokenizer_json:
            return
        texts = [spec.text(str(record.label)) for record in records if record.split == "train"]
        if not texts:
            return  # the check of the splits says so
        self._alphabet = CTCVocabulary.from_texts(texts)
        self.preprocessing = replace(spec, vocabulary=self._alphabet)
        letters = [token for token in self._alphabet.tokens if len(token) == 1]
        rank_zero_info(f"Alphabet of the training texts: {' '.join(letters)} ({len(letters)} characters)")

    def _for_workers(self) -> BaseDataModule:
        worker = super()._for_workers()
        worker.claimed = {}  # type: ignore[attr-defined]
        return worker
