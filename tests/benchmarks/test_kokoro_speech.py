"""The pool of a neural synthesiser's speech: its phonemes, its voices, its files, and what is drawn of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import kokoro_speech
from benchmarks.kokoro_speech import SHARD, Kokoro, draw_from_pool, read_shard, write_shards
from benchmarks.synthetic_speech import Utterance

ROOT = Path(__file__).parents[2]
VOICES = ("af_one", "am_two", "bf_three", "if_four", "jf_five")


class Session:
    """Stands for the network: a tone whose length is that of the tokens."""

    def __init__(self) -> None:
        self.feeds: list[dict[str, np.ndarray]] = []

    def run(self, _: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.feeds.append(feed)
        length = 2400 * feed["tokens"].shape[1]
        return [np.sin(0.2 * np.arange(length)).astype(np.float32)]


@pytest.fixture
def kokoro(tmp_path: Path) -> Kokoro:
    found = object.__new__(Kokoro)
    found.session = Session()
    found.numbers = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz ", 1)}
    found.styles = {name: np.full((20, 256), place, dtype=np.float32) for place, name in enumerate(VOICES)}
    return found


def test_phonemes_are_american_and_of_the_vocabulary() -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `offline` is not installed")
    # In a process of its own: the library is set up once, and the recipe's synthesis sets it up otherwise.
    code = "from benchmarks.kokoro_speech import phonemes; print(ascii(phonemes('seven better cars')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == ascii("sˈɛvən bˈɛɾɚ kˈɑːɹz")


def test_the_style_is_that_of_the_number_of_tokens(kokoro: Kokoro, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kokoro_speech, "phonemes", lambda text: text)
    style = np.arange(20, dtype=np.float32)[:, None].repeat(256, axis=1)
    wave = kokoro.synthesise("ab!c", style, 1.5)
    (feed,) = kokoro.session.feeds
    assert feed["tokens"].tolist() == [[0, 1, 2, 3, 0]]
    assert feed["style"].shape == (1, 256)
    assert feed["style"][0, 0] == 3.0
    assert feed["speed"].tolist() == [1.5]
    assert len(wave) == 5 * 1600
    kokoro.synthesise("a" * 50, style, 1.0)
    assert kokoro.session.feeds[-1]["style"][0, 0] == 19.0


def test_most_people_are_american_and_none_is_japanese(kokoro: Kokoro) -> None:
    generator = np.random.default_rng(0)
    drawn = Counter(float(kokoro.draw_style(generator)[0, 0]) for _ in range(2000))
    # A voice of number 2 or 3 mixed with an American (0 or 1), or pure; never 4.
    assert all(0 <= value <= 3 for value in drawn)
    pure = {value: count / 2000 for value, count in drawn.items() if value in (0.0, 1.0, 2.0, 3.0)}
    assert pure[2.0] == pytest.approx(0.08, abs=0.02)
    assert pure[3.0] == pytest.approx(0.08, abs=0.02)
    assert pure[0.0] + pure[1.0] > 0.24


def test_a_pool_is_spoken_once_and_drawn_from(
    kokoro: Kokoro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kokoro_speech, "phonemes", lambda text: text)
    write_shards(kokoro, tmp_path, 3, hours=0.05)
    paths = sorted(tmp_path.glob("*.npz"))
    assert [path.name for path in paths] == [f"003-{number:03d}.npz" for number in range(len(paths))]
    assert capsys.readouterr().out.count("hours") == len(paths)
    spoken = len(kokoro.session.feeds)
    assert spoken == SHARD * len(paths)
    write_shards(kokoro, tmp_path, 3, hours=0.05)
    assert len(kokoro.session.feeds) == spoken
    whole = [item for path in paths for item in read_shard(path)]
    assert all(isinstance(item, Utterance) and item.wave.dtype == np.float32 for item in whole)
    assert 0.9 < max(np.abs(item.wave).max() for item in whole) <= 1.0
    drawn = list(draw_from_pool(tmp_path, np.random.default_rng(0), len(whole)))
    assert Counter(item.text for item in drawn) == Counter(item.text for item in whole)
    assert len(list(draw_from_pool(tmp_path, np.random.default_rng(0), len(whole) + 5))) == len(whole) + 5
    with pytest.raises(SystemExit, match="has no speech yet"):
        list(draw_from_pool(tmp_path / "none", np.random.default_rng(0), 1))


def test_the_vocabulary_and_the_voices_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, providers: (path, providers))
    (tmp_path / "vocab.json").write_text(json.dumps({"vocab": {"a": 43}}))
    np.arange(512, dtype=np.float32).tofile(tmp_path / "af_x.bin")
    found = Kokoro(tmp_path / "m.onnx", tmp_path / "vocab.json", tmp_path)
    assert found.numbers == {"a": 43}
    assert found.styles["af_x"].shape == (2, 256)
