"""Transcribe with an exported model of speech: needs onnxruntime, numpy and soundfile, not torch or transformers.

    python predict_onnx_speech.py call.wav folder_of_calls --output predictions.jsonl
    python predict_onnx_speech.py manifest.jsonl

A manifest has a JSON object in each line: ``audio_filepath``, and if wanted ``offset``, ``duration``, ``channel`` and
``id``. What the model knows (vocabulary, features, sampling rate, how long files are cut) is read from ``model.onnx``
itself. This file and the folder ``speech_parts`` are written by the verb ``export``, which compares their texts with
the checkpoint's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from lightning_transfer.data.audio_files import AUDIO_SUFFIXES, audio_file, blocks, segment_seconds
from lightning_transfer.errors import DataError
from lightning_transfer.export.predict_onnx import open_model
from lightning_transfer.export.speech_decode import Heard, greedy, join
from lightning_transfer.export.speech_features import extract, padded
from lightning_transfer.export.speech_resample import resample
from lightning_transfer.files import atomic
from lightning_transfer.speech import AudioSegment

__all__ = ["BATCH", "Model", "Piece", "Sound", "Steps", "cut_points", "main", "read_sounds"]

BATCH = 8
"""Pieces in one pass of the model: with the usual 30 seconds four minutes of sound."""

# Recordings that are looked at before they are sorted by length: the rest of a long list waits.
_WINDOW = 64
# Silence is put behind what is shorter, as in the training.
_LEAST_SECONDS = 0.1
_MANIFESTS = (".json", ".jsonl", ".ndjson")
_PATHS, _STARTS = ("audio_filepath", "path", "audio", "wav"), ("offset", "start")


class Sound(NamedTuple):
    """One recording to transcribe.

    Attributes:
        id: Name in the output.
        segment: Where it lies.
        reason: Why it cannot be read; empty where nothing is known against it.
    """

    id: str
    segment: AudioSegment
    reason: str = ""


class Piece(NamedTuple):
    """A part of a recording that the network hears at once.

    Attributes:
        segment: Where it lies in the file.
        start: Where it begins in the recording, in seconds.
        seconds: Its length.
    """

    segment: AudioSegment
    start: float
    seconds: float


class Steps:
    """What lies before and behind the network: from a recording to its input, from its logits to words.

    Args:
        facts: What the export says of the model.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.spec: Mapping[str, Any] = facts["preprocessing"]
        if self.spec.get("kind") != "audio":
            raise ValueError(f"this is no model of speech, but of kind `{self.spec.get('kind')}`")
        self.rate = int(self.spec["sampling_rate"])
        self.vocabulary = {**self.spec["vocabulary"], "tokens": facts["classes"]}

    def pieces(self, segment: AudioSegment) -> list[Piece]:
        """Return a recording in pieces, of which one may be all of it.

        Raises:
            DataError: If the file cannot be read, or has nothing at that place.
        """
        seconds = segment_seconds(segment, audio_file(segment.path))
        points = cut_points(seconds, self.spec["chunk_seconds"], self.spec["overlap_seconds"])
        if len(points) == 1:
            return [Piece(segment, 0.0, seconds)]
        return [
            Piece(AudioSegment(segment.path, segment.start + begin, length, segment.channel), begin, length)
            for begin, length in points
        ]

    def features(self, piece: Piece) -> np.ndarray:
        """Return what the network reads of a piece.

        Raises:
            DataError: If it cannot be read.
        """
        wave = np.concatenate(list(blocks(piece.segment)))
        return self.prepared(resample(wave, audio_file(piece.segment.path).rate, self.rate))

    def prepared(self, wave: np.ndarray) -> np.ndarray:
        """Return what the network reads of samples at its rate."""
        least = math.ceil(_LEAST_SECONDS * self.rate)
        return extract(np.pad(wave, (0, max(0, least - len(wave)))), self.spec["feature_extractor"])

    def batch(self, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs of one pass."""
        return padded(rows, self.spec["feature_extractor"])

    def decode(self, logits: np.ndarray, steps: int) -> Heard:
        """Return the words of one piece, whose features had so many steps."""
        return greedy(logits, self.vocabulary, self.facts["frame_seconds"], steps * self.facts["step_seconds"])

    def batches(self, lengths: Sequence[int], batch_size: int) -> list[list[int]]:
        """Return places in batches of like length; of one length, where the network would hear what fills up others."""
        found: list[list[int]] = []
        for place in sorted(range(len(lengths)), key=lambda item: lengths[item]):
            alike = bool(found) and (self.facts["sees_mask"] or lengths[found[-1][0]] == lengths[place])
            if alike and len(found[-1]) < batch_size:
                found[-1].append(place)
            else:
                found.append([place])
        return found


class Model(Steps):
    """An exported model, and what it hears.

    Args:
        path: Of ``model.onnx``, or of its int8 sibling.
        threads: Of onnxruntime; 0 takes all cores.

    Attributes:
        facts: What the export wrote into the file.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self.session, facts = open_model(path, threads)
        super().__init__(facts)

    def transcribe(self, sounds: Iterable[Sound], batch_size: int = BATCH) -> Iterator[dict[str, Any]]:
        """Yield a line for each recording, in order.

        Args:
            sounds: Of any length; long ones are heard in pieces that overlap.
            batch_size: Pieces in one pass of the model.
        """
        waiting = iter(sounds)
        while part := list(islice(waiting, _WINDOW)):
            yield from self._transcribe(part, batch_size)

    def run(self, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the logits ``(frames, L)`` of each piece of a batch."""
        logits, lengths = self.session.run(["logits", "lengths"], dict(inputs))
        return [row[:length] for row, length in zip(logits, lengths.tolist(), strict=True)]

    def _transcribe(self, sounds: Sequence[Sound], batch_size: int) -> Iterator[dict[str, Any]]:
        reasons = {place: sound.reason for place, sound in enumerate(sounds) if sound.reason}
        pieces: list[tuple[int, Piece]] = []
        for place, sound in enumerate(sounds):
            if place not in reasons:
                try:
                    pieces += [(place, piece) for piece in self.pieces(sound.segment)]
                except DataError as error:
                    reasons[place] = str(error)
        heard: list[Heard | None] = [None] * len(pieces)
        # By seconds: the features themselves are made batch by batch, so that few are in memory.
        order = sorted(range(len(pieces)), key=lambda number: pieces[number][1].seconds)
        for start in range(0, len(order), batch_size):
            rows: dict[int, np.ndarray] = {}
            for number in order[start : start + batch_size]:
                place, piece = pieces[number]
                try:
                    rows[number] = self.features(piece)
                except DataError as error:
                    reasons.setdefault(place, str(error))
            numbers = list(rows)
            for part in self.batches([len(rows[number]) for number in numbers], batch_size):
                chosen = [numbers[place] for place in part]
                for number, logits in zip(chosen, self.run(self.batch([rows[item] for item in chosen])), strict=True):
                    heard[number] = self.decode(logits, len(rows[number]))
        for place, sound in enumerate(sounds):
            if place in reasons:
                yield _line(sound, None, reasons[place])
                continue
            mine = [number for number, (owner, _) in enumerate(pieces) if owner == place]
            parts = [item for number in mine if (item := heard[number]) is not None]
            starts = [pieces[number][1].start for number in mine]
            yield _line(sound, parts[0] if len(parts) == 1 else join(parts, starts), "")


def cut_points(seconds: float, chunk: float, overlap: float) -> list[tuple[float, float]]:
    """Return begin and length of each piece of a recording, in seconds: ``chunk`` long, the last one as it comes.

    Example:
        >>> cut_points(25.0, 10.0, 2.0)
        [(0.0, 10.0), (8.0, 10.0), (16.0, 9.0)]
        >>> cut_points(10.0, 10.0, 2.0)
        [(0.0, 10.0)]
    """
    begins = [0.0]
    while begins[-1] + chunk < seconds:
        begins.append(len(begins) * (chunk - overlap))
    return [(begin, min(chunk, seconds - begin)) for begin in begins]


def read_sounds(paths: Sequence[str]) -> Iterator[Sound]:
    """Yield audio files, those below folders in the order of their paths, and the rows of manifests.

    A row that cannot be read is yielded with the reason: none is lost.
    """
    for path in map(Path, paths):
        if path.is_dir():
            found = (item for item in path.rglob("*") if item.suffix.lower() in AUDIO_SUFFIXES and item.is_file())
            hidden = (item for item in found if not any(part.startswith(".") for part in item.relative_to(path).parts))
            for item in sorted(hidden):
                yield Sound(str(item), AudioSegment(str(item)))
        elif path.suffix.lower() in _MANIFESTS:
            yield from _manifest(path)
        else:
            yield Sound(str(path), AudioSegment(str(path)))


def _manifest(path: Path) -> Iterator[Sound]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = f"line {number}"
        try:
            row = json.loads(line)
            place = next((row[key] for key in _PATHS if row.get(key)), None)
            if not isinstance(place, str):
                raise ValueError(f"it has none of {', '.join(_PATHS)}")
            start = next((float(row[key]) for key in _STARTS if row.get(key) is not None), 0.0)
            duration = None if row.get("duration") is None else float(row["duration"])
            channel = row.get("channel", "mix")
            file = place if Path(place).is_absolute() else str(path.parent / place)
            segment = AudioSegment(file, start, duration, channel if channel == "mix" else int(channel))
            yield Sound(str(row.get("id") or place), segment)
        except (AttributeError, TypeError, ValueError) as error:
            yield Sound(name, AudioSegment(""), f"{name} of `{path}` is no row of a manifest: {error}")


def _line(sound: Sound, heard: Heard | None, reason: str) -> dict[str, Any]:
    segment = sound.segment
    return {
        "id": sound.id,
        "path": segment.path or None,
        "start": segment.start,
        "duration": segment.duration,
        "text": None if heard is None else heard.text,
        "confidence": None if heard is None or heard.confidence is None else round(heard.confidence, 6),
        "seconds": None if heard is None else round(heard.seconds, 3),
        "reason": reason or None,
    }


def _write(stream: IO[str], lines: Iterator[dict[str, Any]]) -> tuple[int, int]:
    """Write a line for each recording; return how many there are, and how many could not be read."""
    count = bad = 0
    for line in lines:
        stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        stream.flush()
        count += 1
        bad += line["reason"] is not None
    return count, bad


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where a recording could not be read (its line says why)."""
    parser = argparse.ArgumentParser(description="Transcribe with an exported model; a JSON line for each recording.")
    parser.add_argument("paths", nargs="+", help="audio files, folders of them, and manifests (.jsonl)")
    parser.add_argument(
        "--model", default=str(Path(__file__).with_name("model.onnx")), help="default: beside this file"
    )
    parser.add_argument("--output", help="a new .jsonl file; default: standard output")
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--batch_size", type=int, default=BATCH, help=f"pieces at once; default: {BATCH}")
    given = parser.parse_args(words)
    if given.batch_size < 1:
        parser.error(f"argument --batch_size: expected at least 1, got {given.batch_size}")
    missing = [path for path in given.paths if not Path(path).exists()]
    if missing:
        parser.error(f"there is no `{missing[0]}`")
    try:
        model = Model(given.model, given.threads)
    except Exception as error:  # onnxruntime raises classes of its own
        parser.error(f"cannot use the model `{given.model}`: {error}")
    lines = model.transcribe(read_sounds(given.paths), given.batch_size)
    try:
        if given.output is None:
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
            count, bad = _write(sys.stdout, lines)
        elif Path(given.output).exists():
            parser.error(f"`{given.output}` exists and is not written over")
        else:
            with (
                atomic(given.output) as part,
                part.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
            ):
                count, bad = _write(stream, lines)
    except OSError as error:
        parser.error(str(error))
    if not count:
        parser.error(f"no sound in {', '.join(given.paths)}")
    if bad:
        print(f"{bad} of {count} recordings could not be read: see `reason`.", file=sys.stderr)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
