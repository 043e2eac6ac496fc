"""Speech of many voices from Kokoro, a neural synthesiser: what espeak-ng and Flite lack, the variety of people.

Kokoro-82M (https://huggingface.co/hexgrad/Kokoro-82M, Apache-2.0) is needed as an ONNX file (inputs ``tokens``,
``style``, ``speed``) with its vocabulary, and its voices as files ``<voice>.bin`` of 32-bit floats (lengths x 256). It
takes half a CPU second for each second of speech, so what it says is kept in a folder and heard many times, each time
disturbed anew; more of it may be spoken while `benchmarks.pretrain_speech --pool` runs.

    python -m benchmarks.kokoro_speech --model FILE.onnx --vocabulary FILE.json --voices DIR --out POOL [--hours 1.5]
        [--seed 0]
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.synthetic_speech import Generator, Utterance, Wave, trim
from recipes.speech.sentences import general_sentence
from recipes.speech.synthesis import SAMPLE_RATE

RATE = 24_000
# Words of a sentence at most, and how often. A single word costs as much as three: it comes with a second of silence.
MAX_WORDS, SHARES = (1, 3, 5, 8, 12), (0.15, 0.2, 0.25, 0.25, 0.15)
POOL_SEED = 777
SHARD = 100


class Kokoro:
    """The synthesiser, on one thread.

    Args:
        model: The ONNX file.
        vocabulary: JSON with the object ``vocab``: phoneme -> number.
        voices: Folder of the voices; the first letter of a name is its language, ``a`` is American.
    """

    def __init__(self, model: Path, vocabulary: Path, voices: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.numbers: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]
        self.styles = {path.stem: np.fromfile(path, np.float32).reshape(-1, 256) for path in voices.glob("*.bin")}

    def synthesise(self, text: str, style: np.ndarray[Any, Any], speed: float) -> Wave:
        """Speak a text at 16 kHz; ``style`` is a voice, or a mean of some."""
        from torchaudio.functional import resample

        tokens = [self.numbers[letter] for letter in phonemes(text) if letter in self.numbers]
        feed = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": style[min(len(tokens), len(style) - 1)][None],
            "speed": np.array([speed], np.float32),
        }
        (found,) = self.session.run(None, feed)
        wave: Wave = resample(torch.from_numpy(found.copy()), RATE, SAMPLE_RATE).clamp_(-1, 1).numpy()
        return wave

    def draw_style(self, generator: Generator) -> np.ndarray[Any, Any]:
        """Draw a person: mostly an American voice, else one of another language; two in five pure, others mixed.

        All read American phonemes: what other voices bring is throats, not an accent of words.
        """
        by_language = [[name for name in sorted(self.styles) if test(name[0])] for test in _LANGUAGES]
        american = by_language[0]
        names = by_language[generator.choice(len(by_language), p=(0.6, 0.2, 0.2))] or american
        first, second = names[generator.integers(len(names))], american[generator.integers(len(american))]
        share = 0.0 if generator.random() < 0.4 else generator.uniform(0, 0.6)
        mixed = (1 - share) * self.styles[first] + share * self.styles[second]
        return mixed.astype(np.float32)


# American; British; any other but Japanese, whose voices distort English most.
_LANGUAGES = (lambda c: c == "a", lambda c: c == "b", lambda c: c not in "abj")


@functools.cache
def _espeak() -> Any:  # noqa: ANN401 - a library
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0)
    if library.espeak_SetVoiceByName(b"en-us"):
        raise SystemExit("espeak-ng has no voice `en-us`.")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    return library


def phonemes(text: str) -> str:
    """Return a text's American phonemes in the symbols of Kokoro's vocabulary, by espeak-ng."""
    pointer = ctypes.pointer(ctypes.c_char_p(text.encode()))
    found = []
    while pointer.contents.value:
        part = _espeak().espeak_TextToPhonemes(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_void_p)), 1, 0x02)
        found.append(part.decode())
    joined = " ".join(found)
    for symbol, known in (("_", ""), ("ʲ", "j"), ("r", "ɹ"), ("x", "k"), ("ɬ", "l")):
        joined = joined.replace(symbol, known)
    return joined


def write_shards(kokoro: Kokoro, out: Path, seed: int, hours: float) -> None:
    """Speak general sentences until there are so many hours, a hundred to a file; files that are there are kept."""
    out.mkdir(parents=True, exist_ok=True)
    spoken, number = 0.0, 0
    while spoken < hours:
        path = out / f"{seed:03d}-{number:03d}.npz"
        if not path.is_file():
            generator = np.random.default_rng([POOL_SEED, seed, number])
            _write(path, [_draw(kokoro, generator) for _ in range(SHARD)])
        spoken += sum(len(item.wave) for item in read_shard(path)) / SAMPLE_RATE / 3600
        number += 1
        print(f"{path.name}: {spoken:.2f} hours", flush=True)


def _draw(kokoro: Kokoro, generator: Generator) -> Utterance:
    text = general_sentence(generator, int(generator.choice(MAX_WORDS, p=SHARES)))
    speed = float(np.clip(math.exp(generator.normal(0.05, 0.2)), 0.7, 1.5))
    return Utterance(text, trim(kokoro.synthesise(text, kokoro.draw_style(generator), speed)))


def _write(path: Path, spoken: Sequence[Utterance]) -> None:
    waves = [(item.wave * (2**15 - 1)).astype(np.int16) for item in spoken]
    half = path.with_suffix(".half.npz")
    np.savez(
        half,
        text=np.array([item.text for item in spoken]),
        wave=np.concatenate(waves),
        size=np.array([len(wave) for wave in waves]),
    )
    os.replace(half, path)


def read_shard(path: Path) -> list[Utterance]:
    """Return what a file holds."""
    with np.load(path) as stored:
        parts = np.split(stored["wave"], np.cumsum(stored["size"])[:-1])
        return [
            Utterance(str(text), part.astype(np.float32) / (2**15 - 1))
            for text, part in zip(stored["text"], parts, strict=True)
        ]


def draw_from_pool(pool: Path, generator: Generator, count: int) -> Iterator[Utterance]:
    """Draw so many utterances of a folder, as many of its files as it takes, those it has at the moment."""
    paths = sorted(path for path in pool.glob("*.npz") if ".half" not in path.name)
    if not paths:
        raise SystemExit(f"{pool} has no speech yet: see `python -m benchmarks.kokoro_speech --help`.")
    left = count
    while left > 0:
        for index in generator.permutation(len(paths)):
            spoken = read_shard(paths[index])[:left]
            yield from spoken
            left -= len(spoken)
            if left <= 0:
                return


def main() -> None:
    """Fill a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--vocabulary", type=Path, required=True)
    parser.add_argument("--voices", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    write_shards(Kokoro(args.model, args.vocabulary, args.voices), args.out, args.seed, args.hours)


if __name__ == "__main__":
    main()
