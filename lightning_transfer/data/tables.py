"""Read records from CSV files, and write tables that are whole or absent."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from lightning_transfer.data.paths import check_folder, resolve_inside
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.files import atomic
from lightning_transfer.types import Record, Split

__all__ = ["OnBadFile", "Skipped", "name_columns", "plain_cell", "read_csv", "records_from_csv", "require_columns"]
__all__ += ["split_name", "write_table"]

OnBadFile = Literal["error", "skip"]

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "calibration": "calibration",
    "test": "test",
    "testing": "test",
    "predict": "predict",
}
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Skipped:
    """One input that could not be used, kept as data so that predictions still have a row for it.

    Attributes:
        record: What is known of it.
        reason: Why it was left out.
        position: Its place among all rows of the input, from 0; None if it was no row.
    """

    record: Record
    reason: str
    position: int | None = None


def split_name(text: str, where: str) -> Split:
    """Turn what users call a split into our name for it.

    Args:
        text: As written in a table or as a folder's name.
        where: What the message begins with.

    Raises:
        DataError: If the name is unknown.

    Example:
        >>> split_name("Validation", "row 2")
        'val'
    """
    name = text.strip().lower()
    if name not in _SPLIT_NAMES:
        raise DataError(
            f"{where}: unknown split `{text}`.{closest(name, _SPLIT_NAMES)} Known: {', '.join(_SPLIT_NAMES)}."
        )
    return _SPLIT_NAMES[name]


def read_csv(path: str | Path, *, ragged: list[tuple[int, str]] | None = None) -> tuple[list[str], list[list[str]]]:
    """Read a comma-separated table with a header, in UTF-8 with or without a byte order mark.

    Args:
        path: The file.
        ragged: Collects ``(place among the rows, reason)`` of rows with a wrong number of cells, which are then
            returned as they are; None makes the first of them an error.

    Returns:
        Column names, and the rows below them; blank lines are left out.

    Raises:
        DataError: If the file cannot be read, has no header or no row, repeats a column, or has a ragged row.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise DataError(f"`{file}` is not UTF-8 text (byte {error.start}). Save it as CSV UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"`{file}` is not a CSV file that can be read: {error}.") from error
    except OSError as error:
        raise DataError(f"Cannot read the table `{file}`: {error.strerror or error}.") from error
    columns = name_columns(lines[0][1] if lines else [], file)
    if len(lines) == 1:
        raise DataError(f"The table `{file}` has a header ({', '.join(columns)}) and no row.")
    for place, (number, cells) in enumerate(lines[1:]):
        if len(cells) != len(columns):
            reason = f"line {number} has {len(cells)} cells, the header has {len(columns)}"
            if ragged is None:
                raise DataError(f"`{file}`: {reason}. Quote cells that hold commas: {listing(cells, 8)}.")
            ragged.append((place, reason))
    return columns, [cells for _, cells in lines[1:]]


def name_columns(header: Sequence[str], file: Path) -> list[str]:
    """Return the names of a header's columns; one without a name is called by its place.

    Raises:
        DataError: If there is no header, or a name repeats.
    """
    if not header:
        raise DataError(f"The table `{file}` is empty. Expected a header such as `path,label`, then one row a record.")
    columns = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(f"The table `{file}` has the column {listing(f'`{name}`' for name in repeated)} twice.")
    return columns


def require_columns(named: Mapping[str, Sequence[str]], columns: Sequence[str], file: Path) -> None:
    """Refuse a role whose column the table lacks.

    Args:
        named: Role, as the argument is called -> names of its columns.
        columns: Those of the table.
        file: For the message.

    Raises:
        DataError: Names the column, the role, and what exists.
    """
    for role, names in named.items():
        for name in names:
            if name not in columns:
                hint = " Is it separated by `;`? Commas are expected." if len(columns) == 1 else ""
                raise DataError(
                    f"No column `{name}` in `{file}` (`{role}`).{closest(name, columns)}{hint}"
                    f" Columns: {', '.join(columns)}."
                )


def records_from_csv(
    path: str | Path,
    root: str | Path | None,
    *,
    input_column: str = "path",
    label_column: str | Sequence[str] | None = "label",
    split_column: str | None = None,
    group_column: str | None = None,
    id_column: str | None = None,
    mask_column: str | None = None,
    label_optional: bool = False,
    on_bad_file: OnBadFile = "error",
    skipped: list[Skipped] | None = None,
) -> list[Record]:
    """Read one record from each row of a CSV file; columns with no role become ``meta``.

    Files are not opened here: a missing or broken one is found by the check of the inputs.

    Args:
        path: The table.
        root: Folder that the input paths are relative to and may not leave; None keeps the input as text.
        input_column: Holds the path, or the text.
        label_column: Holds the class name. Several columns of ``1``, ``0`` or nothing make a multi-label tuple.
            None reads no labels.
        split_column: Holds ``train``, ``val``, ``calibration`` or ``test``; None uses ``split`` where it exists.
        group_column: Holds what must stay on one side of a split; None uses ``group`` where it exists.
        id_column: Holds unique names; None uses the path as written, or for text the number of the row.
        mask_column: Holds the path of a mask, relative to ``root``, or nothing; None uses ``mask`` where it exists.
            Not read without ``root``.
        label_optional: A missing label column is no error (prediction).
        on_bad_file: ``skip`` leaves out ragged rows and rows without input, and lists them in ``skipped``.
        skipped: Receives what was left out.

    Raises:
        DataError: If the table cannot be read, a column is unknown, a row is unusable, an id appears twice, or a path
            leaves the root.
    """
    ragged: list[tuple[int, str]] = []
    columns, rows = read_csv(path, ragged=ragged if on_bad_file == "skip" else None)
    bad_rows = dict(ragged)
    file = Path(path)
    folder = None if root is None else check_folder(root)
    label_names = [label_column] if isinstance(label_column, str) else list(label_column or [])
    if label_optional and not all(name in columns for name in label_names):
        label_names = []
    named = {"input_column": [input_column], "label_column": label_names}
    roles = {"split_column": split_column, "group_column": group_column, "id_column": id_column}
    if folder is not None:
        roles["mask_column"] = mask_column
    for role, name in roles.items():
        default = role.removesuffix("_column") if role != "id_column" else None
        named[role] = [name] if name is not None else [default] if default in columns and default is not None else []
    require_columns(named, columns, file)
    used = {name for names in named.values() for name in names}
    records: list[Record] = []
    lost: list[Skipped] = []
    first_row: dict[str, int] = {}
    for place, cells in enumerate(rows):
        number = place + 2  # as a spreadsheet counts: the header is row 1
        where = f"`{file}`, row {number}"
        row = dict(zip(columns, cells, strict=False))
        text = row.get(input_column, "")
        reason = bad_rows.get(place) or ("no input" if not text.strip() else "")
        if reason:
            if on_bad_file == "error":
                raise DataError(f"{where}: the column `{input_column}` is empty. Fill it or remove the row.")
            lost.append(Skipped(Record(id=f"row {number}", input=text), reason, place))
            continue
        name = row[id_column].strip() if id_column else (text if folder is not None else f"row {number}")
        if name in first_row:
            raise DataError(f"{where}: `{name}` is already the record of row {first_row[name]}. Remove one of them.")
        first_row[name] = number
        split = named["split_column"] and row[named["split_column"][0]].strip()
        group = named["group_column"] and row[named["group_column"][0]].strip()
        mask = row[named["mask_column"][0]].strip() if folder is not None and named["mask_column"] else ""
        records.append(
            Record(
                id=name,
                input=text if folder is None else resolve_inside(folder, text, where),
                label=_label(row, label_names, isinstance(label_column, str), where),
                split=split_name(split, where) if split else None,
                group=group or None,
                meta={key: value for key, value in row.items() if key not in used},
                mask=resolve_inside(folder, mask, where) if folder is not None and mask else None,
            )
        )
    if skipped is not None:
        skipped.extend(lost)
    if not records:
        raise DataError(f"No row of `{file}` can be used: {listing(f'{s.record.id}: {s.reason}' for s in lost)}.")
    return records


def _label(
    row: Mapping[str, str], names: Sequence[str], single: bool, where: str
) -> str | tuple[float | None, ...] | None:
    """Read a class name, or one ``1 / 0 / nothing`` a class."""
    if not names:
        return None
    if single:
        return row[names[0]].strip() or None
    values: dict[str, float | None] = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": None}
    for name in names:
        if row[name].strip() not in values:
            raise DataError(f"{where}: `{name}` is `{row[name]}`. Expected 1, 0 or nothing (unknown).")
    return tuple(values[row[name].strip()] for name in names)


def write_table(
    path: str | Path, rows: Iterable[Sequence[Any]], columns: Sequence[str], *, overwrite: bool = False
) -> Path:
    """Write a table as CSV or JSON lines, by the file's ending; the file appears whole or not at all.

    In CSV, text that a spreadsheet would run as a formula gets a leading apostrophe; JSON lines hold it as it is.

    Args:
        path: Ends in ``.csv`` or ``.jsonl``; missing folders are made.
        rows: Cells in the order of the columns: text, numbers, booleans or None.
        columns: Their names.
        overwrite: Replace a file that exists.

    Returns:
        The path.

    Raises:
        ValueError: If the ending is unknown or a row has the wrong length.
        DataError: If the file exists and ``overwrite`` is False.
    """
    file = Path(path)
    if file.suffix not in (".csv", ".jsonl"):
        raise ValueError(f"Expected a path that ends in `.csv` or `.jsonl`, got `{file}`.")
    if file.exists() and not overwrite:
        raise DataError(f"`{file}` exists and is not written over. Choose another path or move it away.")
    with atomic(file) as part, part.open("x", encoding="utf-8", newline="") as stream:
        _write_rows(stream, rows, columns, as_json=file.suffix == ".jsonl")
    return file


def _write_rows(stream: IO[str], rows: Iterable[Sequence[Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Write every row; lengths must agree."""
    plain = csv.writer(stream, lineterminator="\n")
    # The module quotes a lone carriage return only when lines end in one; bare, it would begin a new row.
    quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Sequence[Any]) -> None:
        cells = [_csv_cell(cell) for cell in row]
        (quoted if any("\r" in str(cell) for cell in cells) else plain).writerow(cells)

    if not as_json:
        write(columns)
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"Expected {len(columns)} cells ({', '.join(columns)}), got {len(row)}.")
        if as_json:
            values = dict(zip(columns, map(_json_value, row), strict=True))
            stream.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
        else:
            write(row)


def _csv_cell(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a cell
    """Return a cell that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return value
    text = str(value)
    if text.startswith(_FORMULA_STARTS) or text.lstrip().startswith(_FORMULA_STARTS[:4]):
        return text if _NUMBER.fullmatch(text) else f"'{text}"
    return text


def plain_cell(text: str) -> str:
    """Return the text of a cell that `write_table` wrote to CSV, without the apostrophe that keeps it from running.

    Example:
        >>> plain_cell("'=1+1"), plain_cell("'tis"), plain_cell("good")
        ('=1+1', "'tis", 'good')
    """
    bare = text[1:]
    return bare if text.startswith("'") and _csv_cell(bare) == text else text


def _json_value(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a cell
    """Return a value that JSON knows; infinities and NaN become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
