"""Speak the demo's data, so that a first run needs neither network nor recordings.

Calls: phrases of a call centre (``phrases.txt``), with names of products that no dictionary has (``products.txt``), by
Scottish voices over a telephone line. General: sentences as the embedded model learnt them, drawn with a seed that it
never saw, in its own accent: what must not be forgotten.

    python -m recipes.speech.sample.make FOLDER [--seed 0]
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import re
import wave
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_transfer.errors import DataError
from lightning_transfer.files import write_folder
from recipes.speech.numbers import cardinal, ordinal, spoken_digits
from recipes.speech.sentences import DAYS, MONTHS, general_sentence
from recipes.speech.synthesis import SAMPLE_RATE, Voice, synthesise

__all__ = ["CALL_ACCENT", "GENERAL_ACCENT", "Sample", "call_sentence", "mu_law", "telephone", "write_sample"]

Wave = NDArray[np.float32]

CALL_ACCENT = "en-gb-scotland"
GENERAL_ACCENT = "en-us"
COLUMNS = ("path", "text", "speaker", "accent", "channel", "duration", "split")
# In this order, and round again with another pitch; both kinds come early, so that few speakers are mixed, too.
VARIANTS = ("m1", "f1", "m3", "f2", "m7", "f3", "m2", "f4", "m5", "m4", "m6")
_FOLDER = Path(__file__).parent
_MARKER = "sample.json"
_FORMAT = 1  # of the set: raise it when the same arguments give other speech or columns
# Mixed into the seed, so that no stream of numbers is one that pretraining drew its sentences from.
_CALLS, _GENERAL = 7_001, 7_002


@dataclass(frozen=True)
class Sample:
    """Where the written files are.

    Attributes:
        root: The folder; paths in both tables are relative to it.
        calls: CSV of the calls: ``path, text, speaker, accent, channel, duration, split``. No speaker is in two splits.
        general: CSV of the general sentences, with the same columns; its splits are ``val``, to watch while
            training, and ``test``, to report: other sentences by other speakers.
        keywords: The products, one a line.
    """

    root: Path
    calls: Path
    general: Path
    keywords: Path


def write_sample(
    folder: Path | str,
    *,
    seed: int = 0,
    num_speakers: int = 9,
    calls_per_speaker: int = 30,
    num_general: int = 120,
) -> Sample:
    """Speak calls and general sentences into a folder, unless the same are there already.

    Two ninths of the callers are ``val``, two ninths ``test``. The folder appears whole or not at all.

    Args:
        folder: Where to write; its parents are made.
        seed: Another seed gives other callers, phrases and sentences.
        num_speakers: Callers, 3 at least.
        calls_per_speaker: Utterances of each.
        num_general: General sentences, half of them ``val``; 0 writes an empty table.

    Raises:
        ValueError: If an argument is out of range.
        DataError: If the folder holds something else, or the synthesiser is missing.
    """
    given = {"seed": (seed, 0), "num_speakers": (num_speakers, 3), "calls_per_speaker": (calls_per_speaker, 1)}
    given["num_general"] = (num_general, 0)
    for name, (value, least) in given.items():
        if value < least:
            raise ValueError(f"Expected `{name}` of at least {least}, got {value}.")
    root = Path(folder)
    wanted = {"format": _FORMAT, **{name: value for name, (value, _) in given.items()}}
    write_folder(root, lambda part: _write(part, wanted), lambda: _is_there(root, wanted))
    return _sample(root)


def call_sentence(generator: np.random.Generator) -> str:
    """Draw what a caller says: lower case, numbers spelled.

    Example:
        >>> call_sentence(np.random.default_rng(3))
        'i lost my tarnexo card please block it'
    """
    phrases = _lines("phrases")

    def fill(match: re.Match[str]) -> str:
        slot = match[1]
        if slot == "digits":
            return spoken_digits("".join(str(digit) for digit in generator.integers(10, size=4)))
        if slot == "number":
            return cardinal(int(generator.integers(2, 100)))
        if slot == "ordinal":
            return ordinal(int(generator.integers(1, 32)))
        words: dict[str, Sequence[str]] = {"product": _lines("products"), "name": _lines("names")}
        words |= {"day": DAYS, "month": MONTHS}
        return words[slot][generator.integers(len(words[slot]))]

    return re.sub(r"\{(\w+)\}", fill, phrases[generator.integers(len(phrases))])


def telephone(wave: Wave) -> Wave:
    """Return speech at 16 kHz as a narrow-band line passes it on: 8 kHz, each sample in 8 bits of mu-law, and back."""
    from torchaudio.functional import resample

    narrow = resample(torch.from_numpy(wave), SAMPLE_RATE, SAMPLE_RATE // 2).clamp(-1, 1).numpy()
    line = torch.from_numpy(mu_law(narrow).astype(np.float32))
    found: Wave = resample(line, SAMPLE_RATE // 2, SAMPLE_RATE).clamp(-1, 1).numpy()
    return found


def mu_law(wave: NDArray[Any]) -> NDArray[Any]:
    """Store each sample of [-1, 1] in 8 bits by the mu-law (mu = 255), and read it again."""
    code = np.floor((np.sign(wave) * np.log1p(255 * np.abs(wave)) / math.log(256) + 1) / 2 * 255 + 0.5)
    stored = code / 255 * 2 - 1
    found: NDArray[Any] = np.sign(stored) * np.expm1(np.abs(stored) * math.log(256)) / 255
    return found


def _write(folder: Path, wanted: dict[str, int]) -> None:
    generator = np.random.default_rng([_CALLS, wanted["seed"]])
    rows = []
    count = wanted["num_speakers"]
    judged = max(1, round(count * 2 / 9))
    splits = ["test"] * judged + ["val"] * judged + ["train"] * (count - 2 * judged)
    for index, split in enumerate(splits):
        voice = _caller(index, generator)
        speaker = f"caller_{index + 1:02d}"
        texts = _distinct(functools.partial(call_sentence, generator), wanted["calls_per_speaker"])
        for number, text in enumerate(texts, 1):
            path = f"calls/{speaker}_{number:03d}.wav"
            duration = _save(folder / path, telephone(synthesise(text, voice)))
            rows.append((path, text, speaker, CALL_ACCENT, "telephone", duration, split))
    _table(folder / "calls.csv", rows)

    generator = np.random.default_rng([_GENERAL, wanted["seed"]])
    rows = []
    texts = _distinct(lambda: general_sentence(generator, max_words=9), wanted["num_general"])
    for number, text in enumerate(texts, 1):
        split = "val" if number % 2 else "test"
        variant = VARIANTS[2 * generator.integers(5) + number % 2]
        voice = Voice(f"{GENERAL_ACCENT}+{variant}", rate=int(generator.integers(150, 195)), pitch=50)
        path = f"general/{number:03d}.wav"
        duration = _save(folder / path, synthesise(text, voice))
        rows.append((path, text, f"general_{variant}", GENERAL_ACCENT, "wideband", duration, split))
    _table(folder / "general.csv", rows)
    (folder / "keywords.txt").write_text("\n".join(_lines("products")) + "\n", encoding="utf-8")
    # Last: a folder without it is not whole.
    (folder / _MARKER).write_text(json.dumps(wanted), encoding="utf-8")


def _caller(index: int, generator: np.random.Generator) -> Voice:
    variant = VARIANTS[index % len(VARIANTS)]
    return Voice(
        f"{CALL_ACCENT}+{variant}",
        rate=int(generator.integers(145, 205)),
        pitch=int(generator.integers(32, 68)),
        pitch_range=int(generator.integers(40, 70)),
    )


def _distinct(draw: Any, count: int) -> list[str]:  # noqa: ANN401 - a function without arguments
    """Draw texts until so many differ; where there are no more, they begin to repeat."""
    found: dict[str, None] = {}
    tries = 0
    while len(found) < count and tries < 50 * count:
        found[draw()] = None
        tries += 1
    texts = list(found)
    return [texts[index % len(texts)] for index in range(count)]


def _save(path: Path, samples: Wave) -> str:
    """Write 16-bit WAV; return its seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.round(samples * 32767).astype("<i2").tobytes())
    return f"{len(samples) / SAMPLE_RATE:.3f}"


def _table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _sample(root: Path) -> Sample:
    return Sample(root, root / "calls.csv", root / "general.csv", root / "keywords.txt")


def _is_there(root: Path, wanted: dict[str, int]) -> bool:
    """Return whether the set is in the folder; an empty one or none is to be written."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"`{root}` is not empty and holds no generated speech (no readable `{_MARKER}`). Name a new folder, or"
            " switch the sample off to read what is there."
        ) from None
    if found != wanted:
        changed = ", ".join(
            f"{name} {found.get(name)}, now {value}" for name, value in wanted.items() if found.get(name) != value
        )
        raise DataError(f"`{root}` holds speech of other arguments: {changed}. Delete it, or name a new folder.")
    for table in ("calls.csv", "general.csv"):
        with (root / table).open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                if not (root / row["path"]).is_file():
                    raise DataError(f"`{root / row['path']}` is missing. Delete `{root}`, and it is spoken anew.")
    return True


@functools.cache
def _lines(name: str) -> tuple[str, ...]:
    text = (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").lower()
    return tuple(text.splitlines() if name == "phrases" else text.split())


def main(args: Sequence[str] | None = None) -> None:
    """Write the sample, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num_speakers", type=int, default=9)
    parser.add_argument("--calls_per_speaker", type=int, default=30)
    parser.add_argument("--num_general", type=int, default=120)
    found = vars(parser.parse_args(args))
    for name, path in asdict(write_sample(found.pop("folder"), **found)).items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main()
