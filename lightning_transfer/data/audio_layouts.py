"""Recognise the layouts that speech comes in, and read each as rows of one kind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from lightning_transfer.data.audio_files import AUDIO_SUFFIXES
from lightning_transfer.data.audio_kaldi import KALDI_COLUMNS, kaldi_rows
from lightning_transfer.data.texts_tables import Row, TextTable
from lightning_transfer.errors import DataError, closest, listing

__all__ = ["ROLES", "AudioLayout", "AudioSource", "find_source"]

AudioLayout = Literal["csv", "nemo", "speechbrain", "kaldi", "commonvoice", "folder"]

ROLES = ("path", "text", "speaker", "accent", "channel", "duration", "offset", "split", "id")
"""What a column may hold, in our own names."""

_NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "nemo": {"path": ("audio_filepath",), "speaker": ("speaker", "speaker_id")},
    "speechbrain": {"path": ("wav",), "text": ("wrd",), "speaker": ("spk_id",), "id": ("ID",)},
    "commonvoice": {"text": ("sentence",), "speaker": ("client_id",), "accent": ("accents", "accent"), "id": ()},
}
_COMMON_VOICE = {"train": "train", "dev": "val", "test": "test"}
_TITLES = {
    "csv": "a table",
    "nemo": "a NeMo manifest",
    "speechbrain": "a SpeechBrain manifest",
    "kaldi": "a Kaldi folder",
    "commonvoice": "Common Voice",
    "folder": "a folder of recordings",
}


@dataclass(frozen=True)
class AudioSource:
    """Where utterances are listed, and how.

    Attributes:
        layout: See `find_source`.
        path: The table, or the folder.
        root: What paths in it are relative to, unless the user names another folder.
    """

    layout: AudioLayout
    path: Path
    root: Path

    @property
    def title(self) -> str:
        """The layout in words."""
        return _TITLES[self.layout]

    def rows(self) -> tuple[list[Row], list[str]]:
        """Return all rows, in order, and the names of the columns.

        Raises:
            DataError: If something cannot be read.
        """
        if self.layout == "kaldi":
            return list(kaldi_rows(self.path)), list(KALDI_COLUMNS)
        if self.layout == "folder":
            files = _sounds(self.path)
            return [Row(place, place + 1, {"path": file}) for place, file in enumerate(files)], ["path"]
        if self.path.is_file():
            table = TextTable(self.path)
            return list(table), list(table.columns)
        return self._common_voice()

    def column_of(self, role: str, columns: list[str]) -> str | None:
        """Return the column that usually has this role in this layout; None where the table lacks it.

        Example:
            >>> source = AudioSource("commonvoice", Path("en"), Path("en/clips"))
            >>> [source.column_of(role, ["client_id", "path", "sentence"]) for role in ("speaker", "path", "accent")]
            ['client_id', 'path', None]
        """
        names = _NAMES.get(self.layout, {}).get(role, (role,))
        return next((name for name in names if name in columns), None)

    def usual_name(self, role: str) -> str:
        """Return what the layout calls the column of a role, for messages."""
        return (*_NAMES.get(self.layout, {}).get(role, ()), role)[0]

    def where(self, row: Row) -> str:
        """Name the place of a row, for messages."""
        return f"`{self.path}`, row {row.number}"

    def _common_voice(self) -> tuple[list[Row], list[str]]:
        """Join the tables of the splits, or take the one of all that is validated."""
        names = [name for name in _COMMON_VOICE if (self.path / f"{name}.tsv").is_file()] or ["validated"]
        rows: list[Row] = []
        columns: list[str] = []
        for name in names:
            table = TextTable(self.path / f"{name}.tsv")
            split = {"split": _COMMON_VOICE[name]} if name in _COMMON_VOICE else {}
            rows += [replace(row, place=len(rows), values={**row.values, **split}) for row in table]
            columns += [column for column in (*table.columns, *split) if column not in columns]
        return [replace(row, place=place) for place, row in enumerate(rows)], columns


def find_source(path: str | Path, layout: Literal["auto"] | AudioLayout = "auto", *, lone: bool = False) -> AudioSource:
    """Return where utterances are listed, and in which layout.

    ``kaldi`` is a folder with ``wav.scp``; ``commonvoice`` a folder with ``train.tsv``, ``dev.tsv``, ``test.tsv`` or
    ``validated.tsv``, or one of these tables; ``nemo`` lines of JSON with ``audio_filepath``; ``speechbrain`` CSV with
    ``wav`` and ``ID`` or ``wrd``; ``csv`` any other table; ``folder`` recordings without any list.

    Args:
        path: Of a table or a folder; a folder may hold a ``manifest.csv``, ``.jsonl``, ``.json`` or ``.tsv``.
        layout: If it is not to be found out.
        lone: Whether a folder of recordings without a list will do (prediction).

    Raises:
        DataError: If there is no such file, or nothing is recognised.
    """
    if layout != "auto" and layout not in get_args(AudioLayout):
        known = ("auto", *get_args(AudioLayout))
        raise DataError(f"Unknown `format` `{layout}`.{closest(layout, known)} Known: {', '.join(known)}.")
    place = Path(path).expanduser()
    if not place.exists():
        names = sorted(item.name for item in place.parent.iterdir()) if place.parent.is_dir() else []
        raise DataError(
            f"There is no `{place}`.{closest(place.name, names)} In `{place.parent}`: {listing(names) or 'nothing'}."
        )
    if place.name == "wav.scp":
        place = place.parent
    if place.is_dir():
        return _of_folder(place, layout, lone)
    found = layout if layout != "auto" else _of_table(place)
    if found in ("kaldi", "folder"):
        raise DataError(f"`{place}` is a file, and the format `{found}` is a folder. Name the folder.")
    clips = place.parent / "clips"
    return AudioSource(found, place, clips if found == "commonvoice" and clips.is_dir() else place.parent)


def _of_folder(folder: Path, layout: Literal["auto"] | AudioLayout, lone: bool) -> AudioSource:
    manifests = [folder / f"manifest{end}" for end in (".csv", ".jsonl", ".json", ".tsv")]
    voices = [folder / f"{name}.tsv" for name in (*_COMMON_VOICE, "validated")]
    if layout == "kaldi" or (layout == "auto" and (folder / "wav.scp").is_file()):
        return AudioSource("kaldi", folder, folder)
    if layout == "commonvoice" or (layout == "auto" and any(file.is_file() for file in voices)):
        clips = folder / "clips"
        return AudioSource("commonvoice", folder, clips if clips.is_dir() else folder)
    manifest = next((file for file in manifests if file.is_file()), None)
    if layout != "folder" and manifest is not None:
        return find_source(manifest, layout)
    if lone and layout in ("auto", "folder"):
        return AudioSource("folder", folder, folder)
    names = listing(sorted(item.name for item in folder.iterdir()))
    raise DataError(
        f"The folder `{folder}` lists no utterances. Looked for: `wav.scp` (Kaldi), `train.tsv` (Common Voice),"
        f" `manifest.csv`, `manifest.jsonl`. It holds: {names or 'nothing'}. Name a table as `data.file`."
    )


def _of_table(file: Path) -> AudioLayout:
    """Tell a table's layout by the columns of its first row."""
    table = TextTable(file)
    next(iter(table))
    columns = set(table.columns)
    if "audio_filepath" in columns:
        return "nemo"
    if {"client_id", "sentence"} <= columns:
        return "commonvoice"
    if "wav" in columns and columns & {"ID", "wrd"}:
        return "speechbrain"
    return "csv"


def _sounds(folder: Path) -> list[str]:
    """Return the recordings below a folder, hidden ones not, in the order of their paths."""
    found = [
        Path(top, name).relative_to(folder).as_posix()
        for top, _, names in _walk(folder)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES
    ]
    if not found:
        raise DataError(f"The folder `{folder}` holds no file that ends in {', '.join(AUDIO_SUFFIXES)}.")
    return sorted(found)


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    def refuse(error: OSError) -> None:
        raise DataError(f"Cannot list the folder `{error.filename}`: {error.strerror}.") from error

    for top, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield top, folders, names
