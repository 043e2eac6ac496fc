"""Write small sets of tones in the layouts that speech comes in, and files in every format that soundfile writes.

A "speaker" says a letter as a tone of its own pitch, so texts can be told from their sound.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

soundfile = pytest.importorskip("soundfile")  # of the extra `speech`

RATE = 16_000
LETTERS = "abcdefghijklmnopqrstuvwxyz'"
LETTER_SECONDS = 0.08

# What a format loses: the highest difference from the samples that were written.
FORMATS: dict[str, tuple[dict[str, Any], float]] = {
    "pcm16.wav": ({"subtype": "PCM_16"}, 1e-4),
    "pcm24.wav": ({"subtype": "PCM_24"}, 1e-6),
    "pcm32.wav": ({"subtype": "PCM_32"}, 1e-6),
    "float.wav": ({"subtype": "FLOAT"}, 0.0),
    "double.wav": ({"subtype": "DOUBLE"}, 1e-6),
    "eight.wav": ({"subtype": "PCM_U8"}, 0.01),
    "mulaw.wav": ({"subtype": "ULAW"}, 0.02),
    "alaw.wav": ({"subtype": "ALAW"}, 0.02),
    "gsm.wav": ({"subtype": "GSM610"}, 0.5),
    "plain.flac": ({}, 1e-4),
    "deep.flac": ({"subtype": "PCM_24"}, 1e-6),
    "vorbis.ogg": ({}, 0.2),
    "opus.ogg": ({"format": "OGG", "subtype": "OPUS"}, 0.3),
    "layer3.mp3": ({}, 0.2),
    "mulaw.au": ({"subtype": "ULAW"}, 0.02),
    "plain.aiff": ({}, 1e-4),
    "plain.w64": ({}, 1e-4),
    "plain.caf": ({}, 1e-4),
}


def say(text: str, *, rate: int = RATE, pitch: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return a tone for each letter, silence for spaces, a little noise, float32."""
    length = round(LETTER_SECONDS * rate)
    time = np.arange(length) / rate
    window = np.hanning(length)
    parts = [np.zeros(length)]
    for letter in text.lower():
        place = LETTERS.find(letter)
        tone = 0.3 * np.sin(2 * np.pi * pitch * (250 + 110 * place) * time) * window if place >= 0 else 0.0 * time
        parts.append(tone)
    parts.append(np.zeros(length))
    wave = np.concatenate(parts)
    wave += 0.002 * np.random.default_rng(seed).standard_normal(len(wave))
    return wave.astype(np.float32)


def noise(seconds: float, *, rate: int = RATE, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Return reddish noise, of which every part differs from every other: ``(T,)``, or ``(T, channels)``."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((round(seconds * rate) + 8, channels))
    red = np.stack([np.convolve(column, np.ones(8) / 8, mode="valid") for column in white.T], axis=1)[:-1]
    wave = (0.2 * red / np.abs(red).max()).astype(np.float32)
    return wave[:, 0] if channels == 1 else wave


def write(path: Path, wave: np.ndarray, rate: int = RATE, **options: Any) -> Path:
    """Write samples; the ending says the format unless ``options`` do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, **options)
    return path


def write_formats(folder: Path, wave: np.ndarray, rate: int = RATE) -> dict[str, Path]:
    """Write the same samples in every format."""
    return {name: write(folder / name, wave, rate, **options) for name, (options, _) in FORMATS.items()}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], delimiter: str = ",") -> Path:
    """Write a table with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
        writer = csv.DictWriter(
            stream, list(rows[0]), delimiter=delimiter, quoting=quoting, quotechar=None if quoting else '"'
        )
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a line of JSON for each row."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


WORDS = ("hello", "agent", "my", "card", "is", "lost", "please", "help", "me", "now")


def utterances(count: int = 24, speakers: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """Return what is said by whom: texts of two to four words, in turns."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = [WORDS[place] for place in rng.integers(len(WORDS), size=2 + number % 3)]
        speaker = number % speakers
        rows.append(
            {
                "id": f"u{number:03}",
                "text": " ".join(words),
                "speaker": f"s{speaker}",
                "accent": ("north", "south")[speaker % 2],
                "channel": ("mobile", "landline", "app")[speaker % 3],
                "pitch": 1.0 + 0.05 * speaker,
            }
        )
    return rows


def write_set(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None, rate: int = RATE) -> list[dict[str, Any]]:
    """Write a WAV for each utterance below ``wavs``; return the rows with ``path`` and ``duration``."""
    found = []
    for number, row in enumerate(utterances() if rows is None else rows):
        wave = say(row["text"], rate=rate, pitch=row["pitch"], seed=number)
        write(folder / "wavs" / f"{row['id']}.wav", wave, rate)
        plain = {key: value for key, value in row.items() if key != "pitch"}
        found.append({**plain, "path": f"wavs/{row['id']}.wav", "duration": round(len(wave) / rate, 3)})
    return found


def write_ours(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """Write our own CSV."""
    found = write_set(folder, rows)
    names = ("path", "text", "speaker", "accent", "channel", "duration", "id")
    return write_rows(folder / "manifest.csv", [{name: row[name] for name in names} for row in found])


def write_nemo(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """Write a NeMo manifest."""
    keys = {"path": "audio_filepath", "duration": "duration", "text": "text", "speaker": "speaker"}
    found = [{new: row[old] for old, new in keys.items()} for row in write_set(folder, rows)]
    return write_jsonl(folder / "manifest.json", found)


def write_speechbrain(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """Write SpeechBrain's CSV, whose paths begin with a variable."""
    found = [
        {
            "ID": row["id"],
            "duration": row["duration"],
            "wav": f"$data_root/{row['path']}",
            "spk_id": row["speaker"],
            "wrd": row["text"].upper(),
        }
        for row in write_set(folder, rows)
    ]
    return write_rows(folder / "train.csv", found)


def write_kaldi(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None, *, segments: bool = False) -> Path:
    """Write a Kaldi data folder; with ``segments`` all sound of a speaker is one recording."""
    found = write_set(folder, rows)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": [], "segments": []}
    for row in found:
        lines["text"].append(f"{row['id']} {row['text']}")
        lines["utt2spk"].append(f"{row['id']} {row['speaker']}")
        if not segments:
            lines["wav.scp"].append(f"{row['id']} {folder / row['path']}")
    if segments:
        for speaker in sorted({row["speaker"] for row in found}):
            parts, begin = [], 0.0
            for row in (row for row in found if row["speaker"] == speaker):
                wave, _ = soundfile.read(folder / row["path"], dtype="float32")
                end = begin + len(wave) / RATE
                lines["segments"].append(f"{row['id']} rec-{speaker} {begin:.4f} {end:.4f}")
                parts.append(wave)
                begin = end
            write(folder / "long" / f"{speaker}.flac", np.concatenate(parts))
            lines["wav.scp"].append(f"rec-{speaker} long/{speaker}.flac")
    for name, content in lines.items():
        if content:
            (data / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    return data


def write_commonvoice(folder: Path, rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
    """Write a language of Common Voice: ``clips`` of MP3, and a table for each split."""
    found = write_set(folder / "made", rows)
    columns = (
        "client_id",
        "path",
        "sentence",
        "up_votes",
        "down_votes",
        "age",
        "gender",
        "accents",
        "locale",
        "segment",
    )
    tables: dict[str, list[dict[str, str]]] = {"train": [], "dev": [], "test": []}
    for row in found:
        wave, rate = soundfile.read(folder / "made" / row["path"], dtype="float32")
        write(folder / "clips" / f"common_voice_en_{row['id']}.mp3", wave, rate)
        speaker = int(row["speaker"][1:])
        split = "test" if speaker == 0 else "dev" if speaker == 1 else "train"
        values = ("", "", "", "", "", "", "", row["accent"], "en", "")
        tables[split].append(
            {
                **dict(zip(columns, values, strict=True)),
                "client_id": f"hash-{row['speaker']}",
                "path": f"common_voice_en_{row['id']}.mp3",
                "sentence": f'"{row["text"].capitalize()}.',  # a lone quote, as there are many
            }
        )
    for name, lines in tables.items():
        write_rows(folder / f"{name}.tsv", lines, "\t")
    return folder
