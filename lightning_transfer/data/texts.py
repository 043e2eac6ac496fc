"""Read tickets and other texts from a table, with labels in every form that exports have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn

from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.data.tables import OnBadFile, Skipped, require_columns, split_name
from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.data.texts_labels import LabelReader
from lightning_transfer.data.texts_replies import is_auto_reply
from lightning_transfer.data.texts_tables import Row, TextTable, cell_text
from lightning_transfer.errors import DataError, listing
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record, Task

__all__ = ["AUTO_REPLY", "Tickets", "read_tickets"]

AUTO_REPLY = "auto_reply"
"""Key of ``Record.meta`` that is ``yes`` for what a program wrote, where such tickets are marked and not removed."""


@dataclass(frozen=True)
class Tickets:
    """What a table of texts holds; every row is in exactly one of the four lists.

    Attributes:
        records: To train, test or predict with, in the order of the rows.
        pool: Rows without label, where they are taken apart (``unlabelled="pool"``).
        skipped: Rows that cannot be used, with their reasons.
        auto_replies: What programs wrote, where it is removed.
        classes: Sorted labels without ``out_of_scope``; for multi-label the order of ``Record.label``.
        num_rows: Of the table.
        mended: What was repaired while reading, as `TextTable` counts it.
        cleaned: What cleaning changed how often.
        file: Where they come from.
    """

    records: list[Record]
    pool: list[Record]
    skipped: list[Skipped]
    auto_replies: list[Record]
    classes: tuple[str, ...]
    num_rows: int
    mended: Mapping[str, int] = field(default_factory=dict)
    cleaned: Mapping[str, int] = field(default_factory=dict)
    file: str = ""

    def findings(self) -> list[Finding]:
        """Return ``mended-characters``, ``auto-replies``, ``unlabelled-pool``, ``text-cleaning``, where they apply.

        What is skipped is said where all skipped records are.
        """
        found = []
        if self.mended:
            found.append(
                Finding(
                    "mended-characters",
                    "warning",
                    f"`{self.file}` is not clean UTF-8: {_listed(self.mended)}. Lines that are not UTF-8 were read as"
                    " Windows-1252.",
                    sum(self.mended.values()),
                    (),
                    "If letters look wrong in the predictions, save the table as CSV UTF-8.",
                )
            )
        if self.auto_replies:
            names = [record.id for record in self.auto_replies]
            found.append(
                Finding(
                    "auto-replies",
                    "note",
                    f"{len(names)} of {self.num_rows} tickets were written by programs (absence, failed mail) and are"
                    f" removed: {listing(names)}.",
                    len(names),
                    tuple(names[:MAX_EXAMPLES]),
                    "Look at a few; `auto_replies: mark` keeps them.",
                )
            )
        if self.pool:
            found.append(
                Finding(
                    "unlabelled-pool",
                    "note",
                    f"{len(self.pool)} of {self.num_rows} tickets have no label and are kept apart.",
                    len(self.pool),
                )
            )
        if self.cleaned:
            found.append(
                Finding(
                    "text-cleaning",
                    "note",
                    f"Cleaning changed the texts of {self.num_rows} tickets: {_listed(self.cleaned)}.",
                    sum(self.cleaned.values()),
                )
            )
        return found


def read_tickets(
    path: str | Path,
    *,
    body_column: str = "body",
    subject_column: str | None = None,
    label_column: str | None = "label",
    id_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    time_column: str | None = None,
    language_column: str | None = None,
    task: Task = "multiclass",
    classes: Sequence[str] | None = None,
    label_level: int | None = None,
    out_of_scope: str | None = None,
    label_optional: bool = False,
    unlabelled: Literal["keep", "pool"] = "keep",
    auto_replies: Literal["remove", "mark"] = "remove",
    cleaning: TextCleaning | None = None,
    delimiter: str | None = None,
    on_bad_file: OnBadFile = "error",
) -> Tickets:
    """Read one record from each row of a CSV, JSON lines or Parquet file; columns with no role become ``meta``.

    A record's input is its cleaned text: the subject, an empty line, the body. Where a column is None, the one called
    as its role (``subject``, ``id``, ``group``, ``split``, ``time``, ``language``) is used if it exists. Time and
    language are kept in ``meta`` under these names, whatever their columns are called.

    Args:
        path: The table; its encoding and separator are found out, see `TextTable`.
        body_column: Holds the text, plain or HTML.
        subject_column: Holds the subject.
        label_column: Holds the label; for multi-label several, as a list or joined by ``|``. None reads none.
        id_column: Holds unique names; without one a ticket is called by its row.
        group_column: Holds what must stay on one side of a split: customer, thread.
        split_column: Holds ``train``, ``val``, ``calibration`` or ``test``.
        time_column: Holds when the ticket came, for a split by time.
        language_column: Holds the language, for slices.
        task: ``multilabel`` makes a tuple of 1.0 and 0.0 from the labels of a row; else a row has one.
        classes: Labels that are allowed, and for multi-label their order; None takes those of the table.
        label_level: Levels of a label such as ``billing/refund`` that are kept; 1 keeps ``billing``. None keeps all.
        out_of_scope: The label of what belongs nowhere. It stays the label of such records; for multi-label they have
            0.0 everywhere.
        label_optional: A missing label column is no error (prediction).
        unlabelled: ``pool`` takes rows without label apart; ``keep`` leaves them among the records, where the check of
            the splits refuses them in training.
        auto_replies: ``remove`` takes what programs wrote apart; ``mark`` keeps it, with ``meta["auto_reply"]``
            ``yes``.
        cleaning: What is cleaned; None cleans all that `TextCleaning` does.
        delimiter: Between CSV cells, if it is not to be found out.
        on_bad_file: ``skip`` leaves out rows without text, of another length, with a repeated id or an impossible
            label, and lists them; ``error`` stops at the first.

    Raises:
        DataError: If the table cannot be read, a column is unknown, or no row can be used; with ``on_bad_file="error"``
        if
            a row cannot.
    """
    table = TextTable(Path(path), delimiter)
    reader = _Reader(
        table,
        {
            "body_column": body_column,
            "subject_column": subject_column,
            "label_column": label_column,
            "id_column": id_column,
            "group_column": group_column,
            "split_column": split_column,
            "time_column": time_column,
            "language_column": language_column,
        },
        label_optional=label_optional,
        labels=LabelReader(task, None if classes is None else tuple(classes), label_level, out_of_scope),
        cleaning=TextCleaning() if cleaning is None else cleaning,
    )
    kept: list[Record] = []
    auto: list[Record] = []
    labels: dict[str, str | tuple[str, ...] | None] = {}
    skipped: list[Skipped] = []
    num_rows = 0
    for row in table:
        num_rows += 1
        found = reader.read(row)
        if isinstance(found, Skipped):
            if on_bad_file == "error":
                raise DataError(f"`{table.file}`, row {row.number}: {found.reason}")
            skipped.append(found)
            continue
        record, label = found
        is_auto = record.meta[AUTO_REPLY] == "yes"
        if auto_replies == "remove":
            record = replace(record, meta={key: value for key, value in record.meta.items() if key != AUTO_REPLY})
        if is_auto and auto_replies == "remove":
            auto.append(record)
        else:
            kept.append(record)
            labels[record.id] = label
    reader.check_columns()
    if not kept:
        lost = [f"{skip.record.id}: {skip.reason}" for skip in skipped] + [f"{row.id}: auto-reply" for row in auto]
        raise DataError(f"No row of `{table.file}` can be used: {listing(lost)}.")
    if table.mended:
        rank_zero_warn(
            f"`{table.file}` is not clean UTF-8: {_listed(table.mended)}. Save it as UTF-8 if letters look wrong."
        )
    names = reader.labels.find_classes(labels.values(), str(table.file), optional=label_optional)
    records = [replace(record, label=reader.labels.encode(labels[record.id], names)) for record in kept]
    return Tickets(
        records=[record for record in records if record.label is not None or unlabelled == "keep"],
        pool=[record for record in records if record.label is None and unlabelled == "pool"],
        skipped=skipped,
        auto_replies=auto,
        classes=names,
        num_rows=num_rows,
        mended=dict(table.mended),
        cleaned=dict(reader.cleaned),
        file=str(table.file),
    )


class _Reader:
    """Turns rows into records, one by one, and remembers the ids."""

    def __init__(
        self,
        table: TextTable,
        wanted: Mapping[str, str | None],
        *,
        label_optional: bool,
        labels: LabelReader,
        cleaning: TextCleaning,
    ) -> None:
        self.table = table
        self.labels = labels
        self.cleaned: Counter[str] = Counter()
        self._wanted = wanted
        self._optional = label_optional
        self._cleaning = cleaning
        self._first: dict[str, int] = {}

    def read(self, row: Row) -> tuple[Record, str | tuple[str, ...] | None] | Skipped:
        """Return the record, still without label, and its label; or why it cannot be used."""
        if row.place == 0 and self.table.has_header:
            self.check_columns()
        roles = self._roles()
        cells = {role: cell_text(row.values.get(column)) for role, column in roles.items()}
        name = cells.get("id_column", "").strip() or f"row {row.number}"
        body, subject = cells.get("body_column", ""), cells.get("subject_column", "")
        raw = Record(id=name, input=f"{subject}\n\n{body}".strip())

        def skip(reason: str) -> Skipped:
            return Skipped(raw, reason, row.place)

        if row.problem:
            return skip(f"{row.problem}. Cells that hold the separator or a line break need quotes.")
        if not raw.input:
            if roles["body_column"] not in self.table.columns:
                self.check_columns()
            return skip(f"the column `{roles['body_column']}` is empty. Fill it or remove the row.")
        if name in self._first:
            return skip(f"`{name}` is already the id of row {self._first[name]}. Remove one of them.")
        subject, body, counts = self._cleaning.read(subject, body)
        auto = is_auto_reply(subject, body)  # its signs may stand in what cleaning takes away
        text, taken = self._cleaning.strip(subject, body)
        if not text:
            return skip("nothing is left of the text without HTML and invisible characters.")
        try:
            label = self.labels.parse(row.values.get(roles.get("label_column", "")))
            split = cells.get("split_column", "").strip()
            record = Record(
                id=name,
                input=text,
                split=split_name(split, f"`{roles['split_column']}`") if split else None,
                group=cells.get("group_column", "").strip() or None,
                meta={**self._meta(row, cells, set(roles.values())), AUTO_REPLY: "yes" if auto else ""},
            )
        except DataError as error:
            return skip(str(error))
        self._first[name] = row.number
        self.cleaned.update(counts + taken)
        return record, label

    def check_columns(self) -> None:
        """Refuse a column that the table lacks."""
        require_columns({role: [name] for role, name in self._roles().items()}, self.table.columns, self.table.file)

    def _roles(self) -> dict[str, str]:
        """Return role -> column, for the columns that are asked for or there."""
        columns = self.table.columns
        roles: dict[str, str] = {}
        for role, name in self._wanted.items():
            default = role.removesuffix("_column")
            if name is None and role != "label_column" and default in columns:
                name = default
            if role == "label_column" and self._optional and name not in columns:
                name = None
            if name is not None:
                roles[role] = name
        return roles

    def _meta(self, row: Row, cells: Mapping[str, str], used: set[str]) -> dict[str, str]:
        meta = {name: cell_text(value) for name, value in row.values.items() if name not in used}
        for key in ("time", "language"):
            if f"{key}_column" in cells:
                meta[key] = cells[f"{key}_column"].strip()
        return meta


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
