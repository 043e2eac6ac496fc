"""The utterances with most errors: what was said beside what was heard, and the sound itself where it is wanted."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_transfer.reporting.numbers import usable
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.worst_errors import DataFiles

__all__ = ["alignments_section", "cells", "sounds"]

Section = dict[str, Any]
Item = Mapping[str, Any]

_MOST_UTTERANCES = 10
_MOST_SPEAKERS = 5
# Of an hour's transcript a reader wants the errors with some words around them.
_CONTEXT = 6
_MOST_CELLS = 160

_MOST_SOUNDS = 5
_MOST_SECONDS = 15.0
_RATE = 16_000
_MOST_BYTES = 4_000_000


def alignments_section(run: RunFiles) -> Section:
    """Return the worst utterances of all, and those of the worst speakers, each with its alignment."""
    worst = [_utterance(item) for item in (run.evaluation.get("worst") or ())[:_MOST_UTTERANCES]]
    shown = {item["id"] for item in worst}
    speakers = []
    for row in (run.evaluation.get("speakers") or ())[:_MOST_SPEAKERS]:
        own = [_utterance(item) for item in row.get("worst") or ()]
        speakers.append(
            {
                "speaker": row.get("speaker"),
                "wer": row.get("wer"),
                "n": row.get("n"),
                "worst": [item for item in own if item["id"] not in shown],
                "above": [item["id"] for item in own if item["id"] in shown],
            }
        )
    nothing = "" if worst else "No word was wrong on the test split."
    return {
        "missing": nothing if run.evaluation else "Not known: the test left no `evaluation.json`.",
        "template": "alignments",
        "worst": worst,
        "speakers": [item for item in speakers if item["worst"] or item["above"]],
    }


def cells(parts: Sequence[Item]) -> list[Section]:
    """Return an alignment as cells to show: right words in runs, wrong ones each by itself, long right runs cut.

    Args:
        parts: ``kind``, ``reference`` and ``hypothesis``, as ``evaluation.json`` holds them.

    Returns:
        ``kind`` is ``equal``, ``substitute``, ``insert``, ``delete`` or ``left_out``; ``said`` and ``heard`` are texts.

    Example:
        >>> parts = [{"kind": "equal", "reference": ["call"], "hypothesis": ["call"]},
        ...          {"kind": "substitute", "reference": ["me", "now"], "hypothesis": ["my", "no"]},
        ...          {"kind": "insert", "reference": [], "hypothesis": ["uh"]}]
        >>> [(cell["kind"], cell["said"], cell["heard"]) for cell in cells(parts)]
        [('equal', 'call', ''), ('substitute', 'me', 'my'), ('substitute', 'now', 'no'), ('insert', '', 'uh')]
    """
    found = list(_cells(parts))
    if len(found) <= _MOST_CELLS:
        return found
    rest = sum(cell["kind"] not in ("equal", "left_out") for cell in found[_MOST_CELLS:])
    return [*found[:_MOST_CELLS], {"kind": "left_out", "said": f"{rest} more errors", "heard": ""}]


def sounds(run: RunFiles, data_root: str | None = None) -> tuple[dict[str, str], list[str]]:
    """Return the sound of the worst utterances as ``data:`` addresses of WAV files, and what is to be said of them.

    Files are read below the data root alone, which is the folder of ``data.file`` where the config names no
    ``data.root``; of long utterances the beginning. At most five, of 15 s each, 16 kHz, one channel, 16 bits: together
    2.4 MB as sound, a third more in the page.

    Args:
        run: Of a test.
        data_root: Where the data are now, if they moved.

    Returns:
        Id -> address, and notes.
    """
    data = run.section("data")
    if data_root is None and not data.get("root") and isinstance(data.get("file"), str):
        named = Path(data["file"]).expanduser()
        data_root = str(named if named.is_dir() else named.parent)
    files = DataFiles(run, data_root)
    found: dict[str, str] = {}
    notes: list[str] = []
    if files.root is None:
        return {}, [f"The sound is not embedded: {files.reason}."]
    wanted = (run.evaluation.get("worst") or ())[:_MOST_SOUNDS]
    lost = cut = total = 0
    for item in wanted:
        path = files.find(str(item.get("path") or ""), str(item.get("id") or ""))
        content = None if path is None else _wave(str(path), item)
        if content is None or total + len(content) > _MOST_BYTES:
            lost += 1
            continue
        total += len(content)
        cut += (usable(item.get("duration")) or 0.0) > _MOST_SECONDS
        found[str(item.get("id"))] = "data:audio/wav;base64," + base64.b64encode(content).decode("ascii")
    if lost:
        notes.append(f"The sound of {lost} of {len(wanted)} utterances could not be read below the data root.")
    if cut:
        notes.append(f"Of {cut} long utterances the first {_MOST_SECONDS:g} s are embedded.")
    return found, notes


def _utterance(item: Item) -> Section:
    counts = item.get("counts") or {}
    return {
        "id": str(item.get("id") or ""),
        "path": str(item.get("path") or ""),
        "start": usable(item.get("start")) or 0.0,
        "duration": usable(item.get("duration")),
        "channel": item.get("channel"),
        "speaker": item.get("speaker"),
        "confidence": usable(item.get("confidence")),
        "problem": str(item.get("problem") or ""),
        "wer": usable(item.get("wer")),
        "substitutions": counts.get("substitutions") or 0,
        "insertions": counts.get("insertions") or 0,
        "deletions": counts.get("deletions") or 0,
        "words": sum(counts.get(name) or 0 for name in ("hits", "substitutions", "deletions")),
        "cells": cells(item.get("parts") or ()),
    }


def _cells(parts: Sequence[Item]) -> Iterator[Section]:
    for place, part in enumerate(parts):
        kind, said, heard = part.get("kind"), list(part.get("reference") or ()), list(part.get("hypothesis") or ())
        if kind == "equal":
            yield from _right(said, first=place == 0, last=place == len(parts) - 1)
        elif kind in ("substitute", "insert", "delete"):
            for number in range(max(len(said), len(heard))):
                one = said[number] if number < len(said) else ""
                other = heard[number] if number < len(heard) else ""
                yield {"kind": kind, "said": one, "heard": other}


def _right(words: list[str], *, first: bool, last: bool) -> Iterator[Section]:
    """Yield the words next to errors, and how many were left out between them."""
    begin, end = 0 if first else _CONTEXT, 0 if last else _CONTEXT
    left_out = len(words) - begin - end
    if left_out <= _CONTEXT:
        yield {"kind": "equal", "said": " ".join(words), "heard": ""}
        return
    if begin:
        yield {"kind": "equal", "said": " ".join(words[:begin]), "heard": ""}
    yield {"kind": "left_out", "said": f"{left_out} words right", "heard": ""}
    if end:
        yield {"kind": "equal", "said": " ".join(words[-end:]), "heard": ""}


def _wave(path: str, item: Item) -> bytes | None:
    """Return the beginning of an utterance as the bytes of a WAV file; None where it cannot be read."""
    from lightning_transfer.errors import TransferError

    try:
        import numpy as np

        from lightning_transfer.data.audio_files import audio_file, read_audio
        from lightning_transfer.speech import AudioSegment

        start, channel = usable(item.get("start")) or 0.0, item.get("channel")
        rest = audio_file(path).seconds - start
        duration = min(usable(item.get("duration")) or rest, rest, _MOST_SECONDS)
        segment = AudioSegment(path, start, duration, channel if isinstance(channel, int) else "mix")
        samples = read_audio(segment, _RATE)
        stream = io.BytesIO()
        with wave.open(stream, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(_RATE)
            file.writeframes((np.clip(samples, -1.0, 1.0) * 32767).astype("<i2").tobytes())
        return stream.getvalue()
    except (TransferError, ImportError, OSError, ValueError):
        return None
