"""The nlp recipe's data: tickets and other texts from tables, with queues, customers and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_transfer.data import (
    BaseDataModule,
    LongTexts,
    Progress,
    TextCleaning,
    TextPreprocessing,
    Tickets,
    drop_copies,
    fingerprint,
    plain_text_classifier,
    quiet,
    read_tickets,
    rehearse,
    without_leaks,
)
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import BackboneCard, Batch, Record, Schema, Split

__all__ = ["TextDataModule"]


class TextDataModule(BaseDataModule):
    """Read tickets from a table, clean them, remove copies, split them by customer or time, and cut them into tokens.

    Subject and body become one text. Auto-replies and copies are removed before the division, and counted. Tickets of
    the label ``out_of_scope`` take part in the division, and are kept aside: nothing learns from them, and they say how
    well the router knows what it does not know. Batches hold texts of like length, padded to the longest of them.

    For prediction every row has its answer, auto-replies too, and labels are optional.

    Args:
        file: CSV, JSON lines or Parquet, a row for each ticket.
        test_file: A second table that is the test split.
        body_column: Of the text.
        subject_column: Of the subject; None uses ``subject`` where it exists.
        label_column: Of the queue; with ``task: multilabel`` several, as a list or joined by ``|``.
        id_column: Of unique names; None uses ``id`` where it exists, else the row's number.
        group_column: Of what must stay on one side of a split: customer, thread. None uses ``group``.
        split_column: Of ``train``, ``val``, ``calibration`` or ``test``; None uses ``split``.
        time_column: Of when the ticket came; ``split_by_time: time`` divides by it. None uses ``time``.
        language_column: Of the language; None uses ``language``.
        label_level: Levels of labels such as ``billing/refund`` that are kept; None keeps all.
        out_of_scope: The label of what belongs to no queue.
        copies: ``remove`` keeps one of texts that are the same or nearly so; ``exact`` of those that are the same but
            for case and signs; ``keep`` keeps all (the check of data reports them).
        cleaning: What is cleaned, see `TextCleaning`.
        max_length: Tokens that the backbone sees; None takes its card's.
        long_texts: What of longer ones: ``head``, ``head_tail`` or ``chunks``, see `TextPreprocessing`.
        rehearsal_file: The table that the run to expand (``model.expand_from``) was trained on. Its tickets keep the
            split that they had there: some of its training tickets are learnt from again, those of the other splits
            join theirs, so that validation, calibration and test are about old queues too. It is read and divided by
            the same options as ``file``.
        rehearsal_test_file: The ``test_file`` of that run, where it had one.
        rehearsal_share: Of the training tickets that are old ones, drawn by queue. The nearer to the share that old
            queues have in practice, the less they lose: with 70 old and 7 new intents of banking77, on frozen features,
            0.5 cost the old ones 2 to 4 points, 0.8 about 1.
        **kwargs: All arguments of `BaseDataModule`: batch size, fractions, folds, sampler, bad files.
    """

    def __init__(
        self,
        file: str,
        test_file: str | None = None,
        body_column: str = "body",
        subject_column: str | None = None,
        label_column: str = "label",
        id_column: str | None = None,
        group_column: str | None = None,
        split_column: str | None = None,
        time_column: str | None = None,
        language_column: str | None = None,
        label_level: int | None = None,
        out_of_scope: str | None = None,
        copies: Literal["remove", "exact", "keep"] = "remove",
        cleaning: TextCleaning | None = None,
        max_length: int | None = None,
        long_texts: LongTexts = "head_tail",
        rehearsal_file: str | None = None,
        rehearsal_test_file: str | None = None,
        rehearsal_share: float = 0.8,
        **kwargs: Any,  # noqa: ANN401 - jsonargparse follows them to the parent's signature
    ) -> None:
        super().__init__(**kwargs)
        self.file = Path(file).expanduser()
        self.test_file = None if test_file is None else Path(test_file).expanduser()
        self.columns: dict[str, str | None] = {
            "body_column": body_column,
            "subject_column": subject_column,
            "label_column": label_column,
            "id_column": id_column,
            "group_column": group_column,
            "split_column": split_column,
            "time_column": time_column,
            "language_column": language_column,
        }
        self.label_level = label_level
        self.out_of_scope = out_of_scope
        self.copies = copies
        self.cleaning = TextCleaning() if cleaning is None else cleaning
        self.max_length = max_length
        self.long_texts: LongTexts = long_texts
        self.rehearsal_file = None if rehearsal_file is None else Path(rehearsal_file).expanduser()
        self.rehearsal_test_file = None if rehearsal_test_file is None else Path(rehearsal_test_file).expanduser()
        self.rehearsal_share = rehearsal_share
        self.outside: list[Record] = []
        self._lengths: dict[str, int] = {}

    def read_records(self) -> list[Record]:
        """Read the tables, remove what programs wrote and what is there twice."""
        return self._read_tables(self.file, self.test_file)

    def read_predict_records(self) -> list[Record]:
        """Read every row, whatever it holds; labels are kept for the output where there are any."""
        columns = {**self.columns, "split_column": None}
        if self.task == "multilabel":
            columns["label_column"] = None
        tickets = read_tickets(
            self.file,
            **columns,  # type: ignore[arg-type] # the body's column is never None
            label_level=self.label_level,
            label_optional=True,
            auto_replies="mark",
            cleaning=self.cleaning,
            on_bad_file="skip",
        )
        self.skip(tickets.skipped)
        rank_zero_info(f"Data: {tickets.num_rows} rows of `{self.file}`")
        return tickets.records

    def set_aside(self, records: list[Record]) -> list[Record]:
        """Keep what is out of scope apart, with its splits; old tickets join the others, to be rehearsed."""
        old = self._old_tickets()
        inside = [record for record in records if not self._is_outside(record)]
        self.outside = [record for record in records if self._is_outside(record)]
        self.outside += without_leaks(records, [record for record in old if self._is_outside(record)])
        if self.outside:
            rank_zero_info(f"Out of scope: {len(self.outside)} texts are kept apart; nothing learns from them")
        elif self.out_of_scope is not None:
            names = sorted({record.label for record in inside if isinstance(record.label, str)})
            raise DataError(
                f"No ticket has the label `{self.out_of_scope}` (`out_of_scope`).{closest(self.out_of_scope, names)}"
                f" Labels: {listing(names, 20)}."
            )
        old = [record for record in old if not self._is_outside(record)]
        self._check_old(old)
        inside, found = rehearse(inside, old, self.rehearsal_share, seed=self.split_seed)
        self.findings += found
        for finding in found:
            rank_zero_info(finding.message)
        return inside

    def out_of_scope_for(self, split: Split) -> list[Record]:
        """Return the records of a split that belong to no queue."""
        return [record for record in self.outside if record.split == split]

    def out_of_scope_dataloader(self, split: Split) -> DataLoader[Batch]:
        """Return their batches, without targets; ``index`` counts in `out_of_scope_for`."""
        return self.loader_of(self.out_of_scope_for(split))

    def make_preprocessing(self, card: BackboneCard) -> TextPreprocessing:
        """Take the tokenizer and the length from the card."""
        return TextPreprocessing.from_card(card, self.max_length, self.long_texts, self.cleaning)

    def load_input(self, record: Record) -> dict[str, Tensor]:
        """Return the token ids of a text, which reading has cleaned."""
        encode: TextPreprocessing = self.preprocessing
        return encode(record.input)

    def collate_inputs(self, inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return a batch, padded to its longest text."""
        encode: TextPreprocessing = self.preprocessing
        return encode.collate(inputs)

    def input_lengths(self, records: Sequence[Record]) -> list[int]:
        """Return the number of tokens of each text; each is counted once."""
        encode: TextPreprocessing = self.preprocessing
        new = [record.input for record in records if record.input not in self._lengths]
        self._lengths.update(zip(new, encode.lengths(new), strict=True))
        limit = encode.max_length if encode.long_texts != "chunks" else None
        found = [self._lengths[record.input] for record in records]
        return found if limit is None else [min(length, limit) for length in found]

    def audit_inputs(self, records: Sequence[Record], *, near: bool, progress: Progress = quiet) -> list[Finding]:
        """Say what is to be said of any texts, and how many are longer than the backbone reads."""
        # What was nearly the same is gone by now, but for what the user keeps.
        found = super().audit_inputs(records, near=near and self.copies != "remove", progress=progress)
        return [*found, *self._long(records)]

    def plain_classifier(
        self, train: Sequence[Record], schema: Schema
    ) -> tuple[Callable[[Sequence[Record]], NDArray[np.float64]], str]:
        """Return TF-IDF and logistic regression, for the baseline ``plain``."""
        return plain_text_classifier(train, schema)

    def _for_workers(self) -> BaseDataModule:
        worker = super()._for_workers()
        worker.outside, worker._lengths = [], {}  # type: ignore[attr-defined]
        return worker

    def _read_tables(self, file: Path, test_file: Path | None) -> list[Record]:
        records = self._labelled(self._read(file))
        if test_file is not None:
            if any(record.split == "test" for record in records):
                raise DataError(
                    f"`{file}` names a `test` split, and there is a test file `{test_file}`. Leave out one of them."
                )
            known = {record.id for record in records}
            records += [
                replace(record, split="test", id=f"test {record.id}" if record.id in known else record.id)
                for record in self._labelled(self._read(test_file))
            ]
        if self.copies != "keep":
            found = drop_copies(records, near=self.copies == "remove")
            self.findings += found.findings()
            records = found.records
        test = "" if test_file is None else f" and `{test_file}` (test)"
        rank_zero_info(f"Data: {len(records)} texts of `{file}`{test}")
        return records

    def _old_tickets(self) -> list[Record]:
        """Return the tickets of the run to expand, divided as there; none where none are to be rehearsed."""
        if self.rehearsal_file is None:
            return []
        return self.division.divide(self._read_tables(self.rehearsal_file, self.rehearsal_test_file))[0]

    def _check_old(self, old: Sequence[Record]) -> None:
        """Say so where the old tickets are not divided as the run to expand had them."""
        expands: Schema | None = getattr(self._module(), "expands", None)
        if old and expands is not None and expands.fingerprint not in ("", fingerprint(old)):
            rank_zero_warn(
                f"The tickets of `{self.rehearsal_file}`, or their splits, are not those that the run to expand was"
                " trained with, so its test tickets may be among those that are learnt from now. Give the same tables"
                " and the same options, or do not compare scores on its test split."
            )

    def _read(self, file: Path) -> Tickets:
        tickets = read_tickets(
            file,
            **self.columns,  # type: ignore[arg-type] # the body's column is never None
            task=self.task,
            classes=self.classes,
            label_level=self.label_level,
            out_of_scope=self.out_of_scope,
            # One of the tables has tickets that are out of scope; which one is no matter.
            label_optional=self.rehearsal_file is not None,
            unlabelled="pool",
            cleaning=self.cleaning,
            on_bad_file=self.on_bad_file,
        )
        self.skip(tickets.skipped)
        self.findings += tickets.findings()
        return tickets

    def _labelled(self, tickets: Tickets) -> list[Record]:
        if not tickets.records:
            raise DataError(
                f"None of the {tickets.num_rows} rows of `{tickets.file}` has a label in"
                f" `{self.columns['label_column']}`. Fill it, or name another column as `data.label_column`."
            )
        return list(tickets.records)

    def _is_outside(self, record: Record) -> bool:
        if self.out_of_scope is None:
            return False
        if isinstance(record.label, tuple):
            return not any(record.label)
        return record.label == self.out_of_scope

    def _long(self, records: Sequence[Record]) -> list[Finding]:
        encode: TextPreprocessing = self.preprocessing
        self.input_lengths(records)
        long = [record for record in records if self._lengths[record.input] > encode.max_length]
        if not long:
            return []
        kept = {
            "head": "only their beginning is read",
            "head_tail": "their beginning and their end are read",
            "chunks": "they are read in parts",
        }[encode.long_texts]
        share = len(long) / len(records)
        return [
            Finding(
                "long-texts",
                "note",
                f"{len(long)} of {len(records)} texts ({share:.1%}) have over {encode.max_length} tokens: {kept}.",
                len(long),
                tuple(f"{record.id} ({self._lengths[record.input]} tokens)" for record in long[:20]),
                "`data.max_length` reads more, `data.long_texts` chooses what is read.",
            )
        ]
