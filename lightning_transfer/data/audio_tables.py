"""Read utterances from the layouts that speech comes in: one record a row, each with the length of its sound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lightning_transfer.data.audio_files import audio_file, segment_seconds
from lightning_transfer.data.audio_layouts import ROLES, AudioLayout, AudioSource, find_source
from lightning_transfer.data.file_checks import check_files
from lightning_transfer.data.paths import check_folder, resolve_inside
from lightning_transfer.data.split_problems import MAX_EXAMPLES
from lightning_transfer.data.tables import OnBadFile, Skipped, require_columns, split_name
from lightning_transfer.data.texts_tables import Row, cell_text
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.findings import Finding
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Record

__all__ = ["Utterances", "read_utterances"]

_ROOT_NAMES = ("$data_root/", "{data_root}/", "${data_root}/")
"""What SpeechBrain's manifests begin their paths with."""

_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (0.0, "seconds"))
_NEEDED = ("path", "id", "offset", "number")
"""Roles that decide what is heard, and by which name: a prediction cannot do without a column that has one."""

Channel = int | Literal["mix"]


@dataclass(frozen=True)
class Utterances:
    """What a list of recordings holds; every row is in exactly one of the lists.

    Attributes:
        records: With an `AudioSegment` as input, the transcript as it was read as label, the speaker as group, and
            ``meta["duration"]`` in seconds, as the file says it.
        untold: Records without a transcript, where one is wanted.
        skipped: Rows that cannot be used, with their reasons.
        claimed: Id -> duration that the list gives, where it does.
        num_rows: Of the list.
        source: Where and in which layout.
        columns: Role -> its column.
    """

    records: list[Record]
    untold: list[Record]
    skipped: list[Skipped]
    claimed: Mapping[str, float]
    num_rows: int
    source: AudioSource
    columns: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Say aloud what was read, and from which columns."""
        seconds = sum(record.meta["duration"] for record in self.records)
        unit, name = next((unit, name) for unit, name in _UNITS if seconds >= unit)
        size = f"{seconds / max(unit, 1.0):.1f} {name}"
        named = ", ".join(f"{role} from `{name}`" for role, name in self.columns.items() if role != name)
        more = f"; {named}" if named and self.source.layout != "kaldi" else ""
        return (
            f"Data: {self.source.title}, `{self.source.path}`: {len(self.records)} utterances of {self.num_rows} rows,"
            f" {size}{more}"
        )

    def untold_finding(self, label_column: str | None = None) -> Finding | None:
        """Return what is to be said of rows that nothing can be learnt from; None where there is none.

        Args:
            label_column: Of the class that is wanted; None: a transcript is.
        """
        if not self.untold:
            return None
        what = "transcript" if label_column is None else f"class in `{label_column}`"
        names = [record.id for record in self.untold]
        return Finding(
            "no-transcript" if label_column is None else "no-class",
            "warning",
            f"{len(names)} of {self.num_rows} recordings of `{self.source.path}` have no {what} and are left out:"
            f" {listing(names)}.",
            len(names),
            tuple(names[:MAX_EXAMPLES]),
            "Write down what is said, or remove these rows.",
        )


def read_utterances(
    path: str | Path,
    *,
    layout: Literal["auto"] | AudioLayout = "auto",
    root: str | Path | None = None,
    columns: Mapping[str, str | None] | None = None,
    label_column: str | None = None,
    channel: Channel = "mix",
    channel_number_column: str | None = None,
    predict: bool = False,
    on_bad_file: OnBadFile = "error",
) -> Utterances:
    """Read one record from each row; columns with no role become ``meta``, with accent and channel under these names.

    A row with an offset is a part of its file, of the duration that it gives. Without an offset it is the whole file,
    and the duration is a claim that the check of the data compares. Only headers of files are read.

    Args:
        path: A table or a folder.
        layout: See `find_source`.
        root: Folder that the paths are relative to and may not leave; None: that of the list (Common Voice: its
            ``clips``).
        columns: Role of `ROLES` -> column, where it has another name than usual in the layout.
        label_column: Of a class, which then is the label in place of the transcript.
        channel: Of files with several: its number, or ``mix`` for their mean.
        channel_number_column: Of the number of the channel, where rows differ in it.
        predict: Splits are not read, and columns may be missing that do not say what is to be heard: a run's config
            names those of its training.
        on_bad_file: ``skip`` leaves out rows that cannot be used, and lists them; ``error`` stops.

    Raises:
        DataError: If nothing can be read; with ``on_bad_file="error"`` if a row or a file cannot be used.
    """
    source = find_source(path, layout, lone=predict)
    rows, known = source.rows()
    roles = _find_roles(source, known, columns or {}, label_column, channel_number_column, predict=predict)
    folder = check_folder(source.root if root is None else root)
    reader = _Reader(source, roles, folder, channel, predict=predict)
    found: dict[int, Record] = {}
    skipped: dict[int, Skipped] = {}
    for row in rows:
        try:
            found[row.place] = reader.read(row)
        except DataError as error:
            if on_bad_file == "error":
                raise DataError(f"{source.where(row)}: {error}") from error
            skipped[row.place] = Skipped(reader.raw(row), str(error), row.place)
    untold = {
        place for place, record in found.items() if not predict and not (isinstance(record.label, str) and record.label)
    }
    told = [record for place, record in found.items() if place not in untold]
    if not told:
        lost = [f"{skip.record.id}: {skip.reason}" for skip in skipped.values()]
        what = "label" if label_column else "transcript"
        lost += [f"{found[place].id}: no {what}" for place in untold]
        raise DataError(f"No row of `{source.path}` can be used: {listing(lost) or 'there is none'}.")
    records, bad = _measure(told, on_bad_file)
    places = [place for place in found if place not in untold]
    skipped |= {
        places[skip.position]: replace(skip, position=places[skip.position])
        for skip in bad
        if skip.position is not None
    }
    return Utterances(
        records,
        [found[place] for place in sorted(untold)],
        [skipped[place] for place in sorted(skipped)],
        reader.claimed,
        len(rows),
        source,
        roles,
    )


def _measure(records: Sequence[Record], on_bad_file: OnBadFile) -> tuple[list[Record], list[Skipped]]:
    """Read the header of every file; return the records with the length of their sound, and those without any."""
    facts: dict[str, tuple[AudioSegment, float]] = {}
    good, bad = check_files(records, _length, "recordings", on_bad_file, facts=facts)
    measured = []
    for record in good:
        segment, seconds = facts[record.id]
        measured.append(replace(record, input=segment, meta={**record.meta, "duration": seconds}))
    return measured, bad


def _length(segment: AudioSegment) -> tuple[AudioSegment, float]:
    file = audio_file(segment.path)
    if segment.start == 0 and segment.duration is not None and segment.duration >= file.seconds:
        segment = replace(segment, duration=None)  # the whole, whatever the list claims
    return segment, segment_seconds(segment, file)


def _find_roles(
    source: AudioSource,
    columns: list[str],
    named: Mapping[str, str | None],
    label: str | None,
    number: str | None,
    *,
    predict: bool,
) -> dict[str, str]:
    """Return role -> column, for the columns that are asked for or there."""
    for role in named:
        if role not in ROLES:
            raise ValueError(f"Unknown role `{role}` of a column.{closest(role, ROLES)} Known: {', '.join(ROLES)}.")
    wanted = {**{role: named.get(role) for role in ROLES}, "label": label, "number": number}
    required = {"path"} if predict or label is not None else {"path", "text"}
    roles: dict[str, str] = {}
    if source.layout == "folder":
        return {"path": "path"}  # nothing is listed, whatever columns a training had
    for role, name in wanted.items():
        if name is not None and not (predict and role not in _NEEDED and name not in columns):
            roles[role] = name
        elif name is None and role in ROLES:
            usual = source.column_of(role, columns)
            if usual is not None or role in required:
                roles[role] = usual or source.usual_name(role)
    if predict:
        roles.pop("split", None)
    require_columns({f"{role}_column": [name] for role, name in roles.items()}, columns, source.path)
    return roles


class _Reader:
    """Turns rows into records, one by one, and remembers the ids."""

    def __init__(
        self, source: AudioSource, roles: Mapping[str, str], folder: Path, channel: Channel, *, predict: bool
    ) -> None:
        self.claimed: dict[str, float] = {}
        self._source = source
        self._roles = roles
        self._folder = folder
        self._channel = channel
        self._predict = predict
        self._first: dict[str, int] = {}

    def raw(self, row: Row) -> Record:
        """Return what is known of a row that cannot be used; it has its id where that is nobody else's."""
        name, path = self._cell(row, "id"), self._cell(row, "path")
        taken = name in self._first and self._first[name] != row.number
        return Record(f"row {row.number}" if not name or taken else name, path, self._label(row))

    def read(self, row: Row) -> Record:
        """Return the record of a row, without the length of its sound.

        Raises:
            DataError: If it cannot be used.
        """
        if row.problem:
            raise DataError(f"{row.problem}.")
        path = self._cell(row, "path")
        if not path:
            raise DataError(f"the column `{self._roles['path']}` is empty. Fill it or remove the row.")
        segment = self._segment(row, path)
        name = self._cell(row, "id") or _default_id(path, segment, self._cell(row, "number"))
        if name in self._first:
            raise DataError(f"`{name}` is already the record of row {self._first[name]}. Remove one of them.")
        split = self._cell(row, "split")
        record = Record(
            name,
            segment,
            self._label(row),
            split_name(split, f"`{self._roles['split']}`") if split else None,
            self._cell(row, "speaker") or None,
            self._meta(row),
        )
        self._first[name] = row.number
        claimed = self._seconds(row, "duration")
        if claimed is not None:
            self.claimed[name] = claimed
        return record

    def _segment(self, row: Row, path: str) -> AudioSegment:
        for name in _ROOT_NAMES:
            path = path.removeprefix(name)
        if self._source.layout == "commonvoice" and not Path(path).suffix:
            path = f"{path}.mp3"  # old releases leave it out
        full = resolve_inside(self._folder, path, f"the column `{self._roles['path']}`")
        number = self._cell(row, "number")
        if number and not number.isdecimal():
            raise DataError(f"`{self._roles['number']}` is `{number}`. Expected the number of a channel, from 0.")
        channel = int(number) if number else self._channel
        start, duration = self._seconds(row, "offset"), self._seconds(row, "duration")
        if start is None:
            return AudioSegment(str(full), channel=channel)
        return AudioSegment(str(full), start, duration, channel)

    def _seconds(self, row: Row, role: str) -> float | None:
        text = self._cell(row, role)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise DataError(f"`{self._roles[role]}` is `{text}`. Expected seconds, such as 2.5.")
        return value

    def _label(self, row: Row) -> str | None:
        role = "label" if "label" in self._roles else "text"
        value = row.values.get(self._roles[role]) if role in self._roles else None
        text = cell_text(value)
        # A transcript stays as it was written; white space alone is none.
        return (text.strip() if role == "label" else text) if text.strip() else None

    def _cell(self, row: Row, role: str) -> str:
        return cell_text(row.values.get(self._roles[role])).strip() if role in self._roles else ""

    def _meta(self, row: Row) -> dict[str, str]:
        used = set(self._roles.values())
        meta = {name: cell_text(value) for name, value in row.values.items() if name not in used}
        return {**meta, **{role: self._cell(row, role) for role in ("accent", "channel") if role in self._roles}}


def _default_id(path: str, segment: AudioSegment, number: str) -> str:
    """Name a record by its file, and where in it.

    Example:
        >>> _default_id("a.wav", AudioSegment("/data/a.wav", 1.5), "")
        'a.wav@1.5'
    """
    name = f"{path}@{segment.start:g}" if segment.duration is not None or segment.start else path
    return f"{name}#{number}" if number else name
