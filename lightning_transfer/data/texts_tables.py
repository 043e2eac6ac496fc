"""Read tables of texts row by row: CSV in the encodings that exports have, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from lightning_transfer.data.tables import name_columns
from lightning_transfer.errors import DataError

__all__ = ["Row", "TextTable", "cell_text"]

_DELIMITERS = (",", ";", "\t")
_FOREIGN = {
    b"PK\x03\x04": "a spreadsheet or zip archive. Save it as CSV UTF-8",
    b"\x1f\x8b": "compressed. Unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel or Outlook file. Save it as CSV UTF-8",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MAX_CELL = 2**31 - 1  # the module's own limit is 131,072 characters, and a long thread has more


@dataclass(frozen=True)
class Row:
    """One row as it was read.

    Attributes:
        place: Among all rows, from 0.
        number: Where to find it: the row of a spreadsheet (the header is row 1), or the line of JSON lines.
        values: Column -> cell; of JSON lines and Parquet as they are typed there.
        problem: Why it cannot be used; empty if it can.
    """

    place: int
    number: int
    values: Mapping[str, Any]
    problem: str = ""


@dataclass
class TextTable:
    r"""One table; iterating reads it from the beginning, a row at a time.

    CSV and JSON lines are UTF-8 with or without byte order mark, or UTF-16 with one. A line that is not UTF-8 is read
    as Windows-1252, line by line, as joined exports mix both. NUL characters are left out. ``mended`` counts both.
    CSV cells are parted by the one of comma, semicolon and tab that the header has most of. Cells of ``.tsv`` are
    parted by tabs and never quoted, as those of Common Voice: a quote is a letter there.

    Args:
        file: Ends in ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``, ``.json`` (with lines of JSON) or ``.parquet``.
        delimiter: Between CSV cells, if it is not to be found out.

    Attributes:
        columns: Names seen so far; for CSV and Parquet complete with the first row.
        mended: What was repaired while reading -> how many times.

    Raises:
        DataError: If the file is missing, empty, of another kind, or not a table; while it is read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "t.csv")
        ...     _ = path.write_bytes("body;label\nGeht nicht schön;a\n".encode("cp1252"))
        ...     table = TextTable(path)
        ...     [dict(row.values) for row in table], dict(table.mended)
        ([{'body': 'Geht nicht schön', 'label': 'a'}], {'lines in Windows-1252': 1})
    """

    file: Path
    delimiter: str | None = None
    columns: list[str] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)

    @property
    def has_header(self) -> bool:
        """Whether all columns are known with the first row; lines of JSON name their own."""
        return self.file.suffix.lower() in (".csv", ".tsv", ".parquet")

    def __iter__(self) -> Iterator[Row]:
        """Read the rows; blank lines are none."""
        readers = {".csv": self._csv, ".jsonl": self._json, ".ndjson": self._json, ".parquet": self._parquet}
        readers |= {".tsv": self._csv, ".json": self._json}
        read = readers.get(self.file.suffix.lower())
        if read is None:
            raise DataError(f"`{self.file}` is no table that can be read. Known endings: {', '.join(readers)}.")
        self.columns.clear()
        self.mended.clear()
        empty = True
        for row in read():
            empty = False
            yield row
        if empty:
            header = f"a header ({', '.join(self.columns)}) and " if self.columns else ""
            raise DataError(f"The table `{self.file}` has {header}no row.")

    def _csv(self) -> Iterator[Row]:
        """Read CSV; a row of another length is yielded with its problem."""
        limit = csv.field_size_limit(_MAX_CELL)
        try:
            with _open(self.file) as stream:
                lines = self._lines(stream)
                first = next(lines, "")
                how: dict[str, Any] = {"delimiter": self.delimiter or _delimiter(first)}
                if self.file.suffix.lower() == ".tsv":
                    how = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
                reader = csv.reader(_chain(first, lines), strict=True, **how)
                filled = (cells for cells in reader if cells)
                self.columns.extend(name_columns(next(filled, []), self.file))
                for place, cells in enumerate(filled):
                    values = dict(zip(self.columns, cells, strict=False))
                    problem = ""
                    if len(cells) != len(self.columns):
                        problem = f"line {reader.line_num} has {len(cells)} cells, the header has {len(self.columns)}"
                    yield Row(place, place + 2, values, problem)
        except csv.Error as error:
            raise DataError(
                f"`{self.file}` is not a CSV file that can be read: {error} (line {reader.line_num}). Cells that hold"
                ' the separator or a line break need quotes, and quotes inside them are doubled ("").'
            ) from error
        finally:
            csv.field_size_limit(limit)

    def _json(self) -> Iterator[Row]:
        """Read one object a line; a line that is none is yielded with its problem."""
        with _open(self.file) as stream:
            place = -1
            for number, line in enumerate(self._lines(stream, split_returns=False), start=1):
                if not line.strip():
                    continue
                place += 1
                values, problem = _parse(line, number)
                self.columns.extend(name for name in values if name not in self.columns)
                yield Row(place, number, values, problem)

    def _parquet(self) -> Iterator[Row]:
        """Read batches of rows with pyarrow."""
        try:
            from pyarrow import ArrowException, parquet
        except ImportError as error:
            raise DataError(
                f"`{self.file}` is Parquet, and pyarrow is not installed. Run `pip install pyarrow`, or save the table"
                " as CSV or JSON lines."
            ) from error
        try:
            with parquet.ParquetFile(self.file) as table:
                self.columns.extend(table.schema_arrow.names)
                place = 0
                for batch in table.iter_batches(batch_size=1024):
                    for values in batch.to_pylist():
                        yield Row(place, place + 1, values)
                        place += 1
        except (ArrowException, OSError) as error:
            raise DataError(f"Cannot read the table `{self.file}`: {error}.") from error

    def _lines(self, stream: BinaryIO, *, split_returns: bool = True) -> Iterator[str]:
        """Decode line by line."""
        start = stream.read(4096)
        stream.seek(0)
        for magic, what in _FOREIGN.items():
            if start.startswith(magic):
                raise DataError(f"`{self.file}` is {what}, then try again.")
        if start.startswith(_UTF16):
            try:
                yield from io.TextIOWrapper(stream, encoding="utf-16", newline="" if split_returns else "\n")
            except UnicodeError as error:
                raise DataError(
                    f"`{self.file}` begins as UTF-16 text and is none ({error}). Save it as UTF-8."
                ) from error
            return
        if start.count(0) * 5 > len(start):
            raise DataError(
                f"`{self.file}` is no text ({start.count(0)} of its first {len(start)} bytes are NUL): a binary file,"
                " or UTF-16 without a byte order mark. Save it as UTF-8."
            )
        for number, raw in enumerate(stream):
            line = self._decode(raw)
            if number == 0:
                line = line.removeprefix("\ufeff")
            # Old exports end lines in a carriage return alone; the csv module joins what stands in quotes.
            yield from re.split(r"(?<=\r)(?!\n)", line) if split_returns and "\r" in line else [line]

    def _decode(self, raw: bytes) -> str:
        if b"\0" in raw:
            self.mended["NUL characters"] += raw.count(0)
            raw = raw.replace(b"\0", b"")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.mended["lines in Windows-1252"] += 1
            return raw.decode("cp1252", errors="replace")


def cell_text(value: Any) -> str:  # noqa: ANN401 - whatever a table holds
    """Return a cell as text: nothing for null and NaN, ISO 8601 for times, JSON for what is nested.

    Example:
        >>> [cell_text(value) for value in (None, 17.0, 2.5, True, ["a"], date(2025, 6, 1))]
        ['', '17', '2.5', 'true', '["a"]', '2025-06-01']
    """
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of numbers with gaps is one of floats
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _open(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise DataError(f"Cannot read the table `{file}`: {error.strerror or error}.") from error


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(header: str) -> str:
    """Return the separator that the header has most of, outside quotes; a comma if it has none."""
    plain = re.sub(r'"[^"]*"', "", header)
    return max(_DELIMITERS, key=plain.count)


def _parse(line: str, number: int) -> tuple[dict[str, Any], str]:
    """Return the object of a line, or why there is none."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {}, f"line {number} is not JSON ({error})"
    if not isinstance(values, dict):
        return {}, f"line {number} is a {type(values).__name__}, not an object of columns"
    return values, ""
