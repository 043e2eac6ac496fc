"""Turn columns of the records into a few slices each: by value, by period of a time, or by quarter of a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lightning_transfer.data import image_size, scan_size
from lightning_transfer.data.audit_columns import parse_times
from lightning_transfer.errors import DataError, closest, listing
from lightning_transfer.types import Record, Schema

__all__ = ["MAX_VALUES", "MISSING", "cut_column", "find_columns"]

MAX_VALUES = 20
"""Different values of a column that still make a slice each."""

# A number with more values than this is cut into four bands of like numbers of records.
_MAX_NUMBERS = 8
_NUM_BANDS = 4
MISSING = "(none)"
"""The slice of records without a value."""

_AGES = frozenset({"age", "patient_age", "patientage", "age_years", "age_at_study"})
_AGE_BANDS = ((18.0, "under 18"), (40.0, "18 to 39"), (60.0, "40 to 59"), (80.0, "60 to 79"), (121.0, "80 and over"))
_AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def find_columns(
    records: Sequence[Record], schema: Schema, wanted: Sequence[str] | None = None
) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Return the columns to slice by, with a value for each record, and why others are left out.

    Beside the columns of ``Record.meta``: ``image_long_side`` in pixels (only headers are read), and ``text_length`` in
    characters.

    Args:
        records: What was judged.
        schema: Its preprocessing tells images from texts.
        wanted: Names, in the order of the table; None takes all.
    """
    names = sorted({key for record in records for key in record.meta})
    found: dict[str, list[Any]] = {name: [record.meta.get(name) for record in records] for name in names}
    built_in = _built_in(records, schema, wanted)
    if wanted is None:
        # Like for all records, they are not worth a line.
        return {**found, **{name: values for name, values in built_in.items() if len(set(values)) > 1}}, {}
    found = {**found, **built_in}
    missing = {
        name: f"there is no such column.{closest(name, found)} Columns: {listing(found, 20) or 'none'}"
        for name in wanted
        if name not in found
    }
    return {name: found[name] for name in dict.fromkeys(wanted) if name in found}, missing


def cut_column(values: Sequence[Any], name: str = "") -> tuple[list[str], str]:
    """Return the slice of each record, or no slices and the reason.

    A column of at most 20 values makes a slice of each, missing ones included. One of times with more than 8 is cut
    into quarters of years; into months or days where one quarter holds all, into years where there are too many
    quarters. One of ages in years, or as DICOM writes them (``045Y``), is cut at 18, 40, 60 and 80: quartiles of one
    hospital are no bands of another. One of other numbers with more than 8 is cut at its quartiles; a value on a cut
    belongs to the upper band.

    Args:
        values: One for each record; None, an empty text and NaN are missing.
        name: Of the column; a name such as ``created`` tells that ``20250103`` is a day, and ``age`` what 45 is.

    Example:
        >>> cut_column(["a", "b", None])
        (['a', 'b', '(none)'], '')
        >>> cut_column(["045Y", "018M", None], "patient_age")[0]
        ['40 to 59', 'under 18', '(none)']
        >>> sorted(set(cut_column(list(range(1, 13)))[0]))
        ['1 to 3.75', '3.75 to 6.5', '6.5 to 9.25', '9.25 to 12']
        >>> sorted(set(cut_column([f"2025-{month:02}-01" for month in range(1, 13)])[0]))
        ['2025 Q1', '2025 Q2', '2025 Q3', '2025 Q4']
        >>> cut_column(["a", "a"])
        ([], 'all records have `a`')
    """
    texts = [_text(value) for value in values]
    distinct = sorted(set(texts) - {MISSING})
    if len(set(texts)) < 2:
        return [], f"all records have `{distinct[0]}`" if distinct else "no record has a value"
    ages = _ages(name, texts)
    if ages is not None:
        one = sorted(set(ages) - {MISSING})
        return (ages, "") if len(set(ages)) > 1 else ([], f"all records have an age of `{one[0]}`")
    periods = _periods(name, texts) if len(distinct) > _MAX_NUMBERS else None
    if periods is not None:
        return periods, ""
    numbers = [_number(text) for text in texts]
    if len(distinct) > _MAX_NUMBERS and all(
        number is not None or text == MISSING for number, text in zip(numbers, texts, strict=True)
    ):
        return _bands(numbers)
    if len(distinct) > MAX_VALUES:
        return [], f"{len(distinct)} different values in {len(texts)} records, and at most {MAX_VALUES} make slices"
    return texts, ""


def _ages(name: str, texts: Sequence[str]) -> list[str] | None:
    """Return the band of each age; None where the column is no age, or has bands already."""
    if name.strip().lower().replace(" ", "_") not in _AGES:
        return None
    years = [None if text == MISSING else _years(text) for text in texts]
    if any(year is None and text != MISSING for year, text in zip(years, texts, strict=True)):
        return None
    return [MISSING if year is None else next(band for end, band in _AGE_BANDS if year < end) for year in years]


def _years(text: str) -> float | None:
    """Return an age in years; None for what is none."""
    text = text.removesuffix("+")  # `90+` of anonymised data
    unit = _AGE_UNITS.get(text[-1:].upper())
    number = _number(text if unit is None else text[:-1])
    if number is None:
        return None
    years = number * (1.0 if unit is None else unit)
    return years if 0.0 <= years < _AGE_BANDS[-1][0] else None


def _periods(name: str, texts: Sequence[str]) -> list[str] | None:
    """Return the quarter of each time, or another period that makes some slices and not too many; None for no times."""
    known = [text for text in texts if text != MISSING]
    found = parse_times(name, known)
    if found is None:
        return None
    times = iter([None if math.isnan(time) else datetime.fromtimestamp(time, tz=timezone.utc) for time in found])
    days = [None if text == MISSING else next(times) for text in texts]
    for form in ("quarter", "%Y-%m", "%Y-%m-%d", "%Y"):
        names = [MISSING if day is None else _period(day, form) for day in days]
        if 2 <= len(set(names) - {MISSING}) <= MAX_VALUES:
            return names
    return None


def _period(day: datetime, form: str) -> str:
    return f"{day.year} Q{(day.month + 2) // 3}" if form == "quarter" else day.strftime(form)


def _bands(numbers: Sequence[float | None]) -> tuple[list[str], str]:
    known = np.array([number for number in numbers if number is not None])
    edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, _NUM_BANDS + 1)))
    names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    if len(set(names)) < 2:
        return [], f"its quartiles lie within {names[0] if names else f'{edges[0]:.4g}'}"
    places = np.clip(np.searchsorted(edges, known, side="right") - 1, 0, len(names) - 1)
    bands = iter(places.tolist())
    return [MISSING if number is None else names[next(bands)] for number in numbers], ""


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a reader put there
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return str(value).strip() or MISSING


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _built_in(records: Sequence[Record], schema: Schema, wanted: Sequence[str] | None) -> Mapping[str, list[Any]]:
    """Return what every record of a kind has; a column of that name in the data comes first."""
    columns: dict[str, list[Any]] = {}
    kind = schema.preprocessing.get("kind")
    is_image = kind in ("image", "scan")
    if is_image and (wanted is None or "image_long_side" in wanted):
        columns["image_long_side"] = [_long_side(record.input, kind) for record in records]
    if not is_image and records and all(isinstance(record.input, str) for record in records):
        columns["text_length"] = [len(record.input) for record in records]
    named = {key for record in records for key in record.meta}
    return {name: values for name, values in columns.items() if name not in named}


def _long_side(image: Any, kind: str | None) -> int | None:  # noqa: ANN401 - path, part, array or picture
    try:
        if kind == "scan":
            return max(scan_size(image))
        return max(image_size(Path(image) if isinstance(image, str) else image))
    except DataError:  # gone since it was judged
        return None
