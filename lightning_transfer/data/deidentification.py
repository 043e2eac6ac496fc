"""Take what tells who a patient is out of records, before anything of them is printed, learnt or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_transfer.data.findings_table import FACT_COLUMNS
from lightning_transfer.data.private_values import OLDEST, pseudonym
from lightning_transfer.data.tables import Skipped, plain_cell, read_csv, write_table
from lightning_transfer.errors import DataError
from lightning_transfer.findings import Finding
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record

__all__ = ["PUBLIC_KEY", "PUBLIC_PSEUDONYMS", "Pseudonyms", "read_key", "source_path", "without_folders"]

PUBLIC_KEY = "lightning-transfer"
"""Of pseudonyms where the user gives no secret: names stay out of files, but whoever knows the form of the patients'
numbers can try them all."""

PUBLIC_PSEUDONYMS = Finding(
    "public-pseudonyms",
    "note",
    "Pseudonyms are made with the public key: who knows the form of your patients' numbers can try them all.",
    1,
    (),
    "Before results leave the hospital, give a secret of your own: `data.pseudonym_key_file`.",
)
"""What the check says where the key is the public one."""

_MIN_KEY = 16


def read_key(path: str | Path | None) -> str:
    """Return the secret key of a file, or the public one.

    Raises:
        DataError: If there is no such file, or fewer than 16 characters in it.
    """
    if path is None:
        return PUBLIC_KEY
    file = Path(path).expanduser()
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Cannot read the key of the pseudonyms, `{file}` (`pseudonym_key_file`). Make one, once, with"
            f' `python -c "import secrets; print(secrets.token_hex(32))" > {file}`, and keep it: with another key the'
            " patients have other pseudonyms, and other splits."
        ) from error
    if len(key) < _MIN_KEY:
        raise DataError(
            f"The key of the pseudonyms in `{file}` has {len(key)} characters. Expected at least {_MIN_KEY}, drawn at"
            " random."
        )
    return key


class Pseudonyms:
    """Replace ids, patients and studies by keyed hashes, the same ones each time.

    Args:
        key: Secret; who has it can find the pseudonym of a patient, and so nobody else should.
        kept: Further columns of ``meta`` that stay as they are, beside site, view, age, sex and scanner. All others go.

    Example:
        >>> names = Pseudonyms("0123456789abcdef")
        >>> known = {"site": "A", "age": "97", "name": "DOE"}
        >>> row = Record("DOE/1.png", Path("/data/DOE/1.png"), group="DOE", meta=known)
        >>> hidden = names.record(row)
        >>> hidden.group == names.of("DOE"), len(hidden.id), dict(hidden.meta)
        (True, 12, {'site': 'A', 'age': '90'})
    """

    def __init__(self, key: str, kept: Sequence[str] = ()) -> None:
        self._key = key
        self._kept = frozenset(FACT_COLUMNS) | set(kept)
        self._known: dict[str, str] = {}
        self._metas: dict[int, tuple[Any, dict[str, Any]]] = {}

    def of(self, value: str) -> str:
        """Return the pseudonym of one value."""
        if value not in self._known:
            self._known[value] = pseudonym(value, self._key)
        return self._known[value]

    def record(self, record: Record) -> Record:
        """Return a record that names nobody; its input is an `ImagePart`, whose path no table of ours writes."""
        name, _, index = record.id.rpartition("#") if _has_index(record.input) else (record.id, "", "")
        source = record.input
        if isinstance(source, str | Path):
            source = ImagePart(str(source))
        return replace(
            record,
            # One image comes once: nothing is gained by remembering its name.
            id=pseudonym(name, self._key) + (f"#{index}" if index else ""),
            input=source,
            group=None if record.group is None else self.of(record.group),
            meta=self._meta(record.meta),
        )

    def hide(
        self, records: Sequence[Record], places: Mapping[str, tuple[int, ...]]
    ) -> tuple[list[Record], dict[str, tuple[int, ...]]]:
        """Return records that name nobody, and what was known by their ids by the new ones.

        Args:
            records: As they were read.
            places: Id -> uncertain findings, such as `FindingsTable` has them.
        """
        hidden = [self.record(record) for record in records]
        pairs = zip(records, hidden, strict=True)
        return hidden, {new.id: places[old.id] for old, new in pairs if old.id in places}

    def skipped(self, skip: Skipped) -> Skipped:
        """Return what was left out, likewise."""
        if skip.record.input is None:  # a row of a table, called by its number
            return skip
        return replace(skip, record=self.record(skip.record))

    def write(self, path: str | Path, records: Sequence[Record], root: Path) -> Path:
        """Write which pseudonym is whose, as confidential as the data, beside what the file says of other images.

        Args:
            path: Of the CSV file.
            records: As they were read.
            root: Paths are written relative to it.
        """
        target = Path(path).expanduser()
        columns = ["id", "path", "patient", "patient_pseudonym", "study", "study_pseudonym"]
        rows: dict[str, list[str | None]] = {}
        if target.is_file():
            names, known = read_csv(target)
            if names != columns:
                raise DataError(f"`{target}` is no table of pseudonyms, and is not written over. Choose another path.")
            rows = {row[0]: [plain_cell(cell) for cell in row] for row in known}
        for record in records:
            file = Path(source_path(record.input))
            place = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
            study = str(record.meta.get("study") or "")
            hidden = self.record(record)
            whose = self.of(study) if study else None
            rows[hidden.id] = [hidden.id, place, record.group, hidden.group, study or None, whose]
        write_table(target, rows.values(), columns, overwrite=True)
        target.chmod(0o600)
        return target

    def _meta(self, meta: Any) -> dict[str, Any]:  # noqa: ANN401 - a mapping, shared by many records
        # The mapping is kept beside what was made of it, so that no other can have its id.
        known = self._metas.get(id(meta))
        if known is None:
            found = {name: value for name, value in meta.items() if name in self._kept}
            if found.get("study"):
                found["study"] = self.of(str(found["study"]))
            if "age" in found:
                found["age"] = _capped(found["age"])
            known = self._metas[id(meta)] = (meta, found)
        return known[1]


def source_path(source: Any) -> str:  # noqa: ANN401 - path, part of a file, or something that lies in no file
    """Return the file that an input lies in; empty for what lies in none.

    Example:
        >>> source_path(ImagePart("head.nii.gz", 3)), source_path(Path("a.png"))
        ('head.nii.gz', 'a.png')
    """
    if isinstance(source, ImagePart):
        return source.path
    return str(source) if isinstance(source, str | Path) else ""


def without_folders(message: str, path: str) -> str:
    """Return a message in which a file has no folder before its name: folders are often called after patients.

    Example:
        >>> without_folders("Cannot read `/data/DOE/1.dcm`: the file is empty.", "/data/DOE/1.dcm")
        'Cannot read `1.dcm`: the file is empty.'
    """
    return message.replace(path, Path(path).name) if path else message


def _has_index(source: Any) -> bool:  # noqa: ANN401
    return isinstance(source, ImagePart) and source.index is not None


def _capped(age: Any) -> Any:  # noqa: ANN401 - as read
    try:
        years = float(age)
    except (TypeError, ValueError):
        return age
    return str(OLDEST) if years >= OLDEST else age
