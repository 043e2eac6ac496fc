"""The speech recipe's data: recordings with transcripts, or with classes, in the layouts that they come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from lightning_transfer.data import (
    AudioDataModule,
    AudioLayout,
    Collate,
    Progress,
    RecordDataset,
    keyword_findings,
    make_loader,
    normaliser,
    quiet,
    read_keywords,
    read_utterances,
    rehearse,
)
from lightning_transfer.data.datamodule import BaseDataModule
from lightning_transfer.errors import DataError
from lightning_transfer.findings import Finding
from lightning_transfer.types import Batch, Record, Split

__all__ = ["SpeechDataModule"]

TRAIN = ("train", None)


class SpeechDataModule(AudioDataModule):
    """Read recordings and transcripts, split them by speaker, and prepare them as the backbone's card says.

    The layout is found and printed: our CSV (``path, text, speaker, accent, channel, duration, split, id``), a NeMo
    manifest, SpeechBrain's CSV, a Kaldi folder, Common Voice. Other names of columns can be given. Columns without a
    role are kept for slices. Recordings without a transcript are counted and left out.

    For prediction every row has its answer, transcripts are optional, and a folder of recordings will do.

    With ``task: multiclass`` (or ``binary``) a recording has a class from ``label_column``: call type, emotion.

    Args:
        file: The list of recordings: a table, or a folder. With ``sample`` the folder that the sample is written to.
        val_file: A second list that is the validation split.
        test_file: A list that is the test split.
        general_file: A list of general speech whose recognition must not be lost: `general_dataloader`. In the usual
            names of its layout, with paths relative to its own folder.
        rehearsal_file: A list of general speech that is learnt from again beside yours, so that less of it is lost: its
            ``train`` split where it names splits, else all of it; read as ``general_file``, and another list than that.
        rehearsal_share: Of the training recordings that are drawn from it, the same in each epoch.
        root: Folder that paths are relative to and may not leave; None: that of each list (Common Voice: ``clips``).
        format: The layout, if it is not to be found out.
        path_column: Of the file. None, here and below: as it is usually called in the layout.
        text_column: Of the transcript.
        speaker_column: Of the speaker, who stays on one side of the split.
        accent_column: Of the accent, for slices.
        channel_column: Of the kind of line or microphone, for slices.
        duration_column: Of the length in seconds, which is compared with the file's.
        offset_column: Of where in its file a recording begins; the duration then says where it ends.
        split_column: Of ``train``, ``val``, ``calibration`` or ``test``.
        id_column: Of unique names; without one a recording is called by its path.
        label_column: Of the class, where the task is none of transcription.
        channel: Of files with several: its number, from 0, or ``mix`` for their mean.
        channel_number_column: Of the number of the channel, where it differs from row to row.
        keywords: Words and phrases that matter, as a list, or a text file with one a line: how often each split has
            them is said in the check of the data.
        sample: Write the sample (a call centre's calls, synthesised) into ``file``, unless it is there, and use it.
        sample_seed: Another seed gives other calls.
        **kwargs: All arguments of `AudioDataModule` and `BaseDataModule`: normalisers, vocabulary, lengths, batches,
            augmentation, task, fractions, bad files.
    """

    def __init__(
        self,
        file: str,
        val_file: str | None = None,
        test_file: str | None = None,
        general_file: str | None = None,
        rehearsal_file: str | None = None,
        rehearsal_share: float = 0.5,
        root: str | None = None,
        format: Literal["auto"] | AudioLayout = "auto",
        path_column: str | None = None,
        text_column: str | None = None,
        speaker_column: str | None = None,
        accent_column: str | None = None,
        channel_column: str | None = None,
        duration_column: str | None = None,
        offset_column: str | None = None,
        split_column: str | None = None,
        id_column: str | None = None,
        label_column: str | None = None,
        channel: int | Literal["mix"] = "mix",
        channel_number_column: str | None = None,
        keywords: str | list[str] | None = None,
        sample: bool = False,
        sample_seed: int = 0,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        super().__init__(**kwargs)
        if self.has_classes and label_column is None:
            raise ValueError(f"The task `{self.task}` needs `label_column`, the column of the class.")
        if self.has_classes and rehearsal_file is not None:
            raise ValueError(f"`rehearsal_file` has transcripts, and the task `{self.task}` learns none. Leave it out.")
        place = Path(file).expanduser()
        self.rehearsal_file = None if rehearsal_file is None else Path(rehearsal_file).expanduser()
        self.rehearsal_share = rehearsal_share
        self.sample, self.sample_seed = sample, sample_seed
        self.file = place / "calls.csv" if sample else place
        self.other_files: dict[Split, Path] = {}
        if val_file is not None:
            self.other_files["val"] = Path(val_file).expanduser()
        if test_file is not None:
            self.other_files["test"] = Path(test_file).expanduser()
        general = place / "general.csv" if sample and general_file is None else general_file
        self.general_file = None if general is None else Path(general).expanduser()
        self._keywords = str(place / "keywords.txt") if sample and keywords is None else keywords
        self._reading_options: dict[str, Any] = {
            "layout": format,
            "root": root,
            "columns": {
                "path": path_column,
                "text": text_column,
                "speaker": speaker_column,
                "accent": accent_column,
                "channel": channel_column,
                "duration": duration_column,
                "offset": offset_column,
                "split": split_column,
                "id": id_column,
            },
            "label_column": label_column if self.has_classes else None,
            "channel": channel,
            "channel_number_column": channel_number_column,
        }
        self.general_records: list[Record] = []

    @property
    def keywords(self) -> list[str]:
        """Words and phrases that matter, those of the file if there is one."""
        return read_keywords(self._keywords)

    def prepare_data(self) -> None:
        """Write the sample, where the config asks for it; once, on the first process."""
        if self.sample:
            from recipes.speech.sample.make import write_sample

            write_sample(self.file.parent, seed=self.sample_seed)

    def setup(self, stage: str) -> None:
        """Read, split and check the data, and general speech beside them."""
        super().setup(stage)
        if self.general_file is not None and stage != "predict" and not self.general_records:
            self.general_records = self._read_general(self.general_file)

    def read_records(self) -> list[Record]:
        """Read the lists; a second and third one are validation and test."""
        self.claimed.clear()
        records = self._read(self.file)
        for split, file in self.other_files.items():
            if any(record.split == split for record in records):
                raise DataError(
                    f"`{self.file}` names a split `{split}`, and there is `data.{split}_file` `{file}`. Leave out one."
                )
            known = {record.id for record in records}
            more = [replace(record, split=split) for record in self._read(file, known, split)]
            records += more
        return records

    def set_aside(self, records: list[Record]) -> list[Record]:
        """Let general speech join what is learnt from; then leave out what nothing can be learnt from."""
        if self.rehearsal_file is not None:
            read = self._read_general(self.rehearsal_file)
            self._check_rehearsal_apart(self.rehearsal_file, read)
            general = [replace(record, split="train") for record in read if record.split in TRAIN]
            options: dict[str, Any] = {"seed": self.split_seed, "by_class": False}
            records, said = rehearse(records, general, self.rehearsal_share, **options)
            self.findings += said
        return super().set_aside(records)

    def read_predict_records(self) -> list[Record]:
        """Read every row, whatever is wrong with it; without a list, every recording below the folder."""
        found = read_utterances(self.file, predict=True, on_bad_file="skip", **self._reading_options)
        self.skip(found.skipped)
        rank_zero_info(found.describe())
        return found.records

    def general_dataloader(self, split: Split | None = None) -> DataLoader[Batch] | None:
        """Return batches of general speech with its transcripts, for what must not be forgotten; None without any.

        Args:
            split: Of its list; None takes ``val`` where the list names splits, else all.
        """
        given = {record.split for record in self.general_records}
        wanted = split if split is not None or "val" not in given else "val"
        records = [record for record in self.general_records if wanted is None or record.split == wanted]
        if not records or self.schema is None:
            return None
        worker: Any = self._for_workers()
        lengths = self.input_lengths(records)
        # Plain batches: a monitor picks recordings of its own choice out of the data set.
        size = self.batch_size if self.batch_budget is None else max(1, int(self.batch_budget // max(lengths)))
        made = (worker.load_input, self.schema.classes, self.task, None, None, self.encode_target)
        return make_loader(
            RecordDataset(records, *made),
            None,
            batch_size=size,
            num_workers=self.num_workers,
            collate=Collate(worker.collate_inputs),
            drop_last=False,
            seed=self.split_seed,
            lengths=lengths,
        )

    def audit_inputs(self, records: Sequence[Record], *, near: bool, progress: Progress = quiet) -> list[Finding]:
        """Say what is to be said of the recordings, their transcripts, and the keywords."""
        found = super().audit_inputs(records, near=near, progress=progress)
        score = normaliser(self.spec.scoring_normaliser)
        return found if self.has_classes else [*found, *keyword_findings(records, self.keywords, score)]

    def _read(self, file: Path, known: set[str] | frozenset[str] = frozenset(), split: str = "") -> list[Record]:
        """Read a list; an id that another list has gets the name of the split before it."""
        found = read_utterances(file, on_bad_file=self.on_bad_file, **self._reading_options)
        # Places are counted in one list only.
        self.skip([replace(skip, position=None) if split else skip for skip in found.skipped])
        rank_zero_info(found.describe())
        finding = found.untold_finding(self._reading_options["label_column"])
        if finding is not None:
            rank_zero_warn(finding.message)
            self.findings.append(finding)
        names = {record.id: f"{split} {record.id}" if record.id in known else record.id for record in found.records}
        self.claimed.update({names[key]: value for key, value in found.claimed.items() if key in names})
        return [replace(record, id=names[record.id]) for record in found.records]

    def _read_general(self, file: Path) -> list[Record]:
        """Read general speech; what is too long to be heard at once is left out of it, and counted."""
        found = read_utterances(file, channel=self._reading_options["channel"], on_bad_file=self.on_bad_file)
        records = [record for record in found.records if record.meta["duration"] <= self.spec.chunk_seconds]
        rank_zero_info(f"General speech: {found.describe().removeprefix('Data: ')}")
        lost = len(found.records) - len(records)
        if lost or found.skipped or found.untold:
            rank_zero_warn(
                f"Of general speech {lost} recordings are longer than {self.spec.chunk_seconds:g} s,"
                f" {len(found.untold)} have no transcript, and {len(found.skipped)} cannot be read: they are left out."
            )
        return records

    def _check_rehearsal_apart(self, file: Path, records: Sequence[Record]) -> None:
        """Stop where the speech that shows what is lost is learnt from."""
        if self.general_file is None or file.resolve() != self.general_file.resolve():
            return
        if any(record.split is None for record in records):
            raise DataError(
                f"`data.rehearsal_file` and `data.general_file` are both `{file}`, which has no splits: what is lost"
                " would be judged by what is learnt. Give its rows a `split` of `train` and `val`, or name two lists."
            )

    def _for_workers(self) -> BaseDataModule:
        worker = super()._for_workers()
        worker.general_records = []  # type: ignore[attr-defined]
        return worker
