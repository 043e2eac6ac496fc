"""Features are those of transformers' extractors, one recording at a time, then padded."""

import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_transfer.data import audio_preprocessing
from lightning_transfer.data.audio_preprocessing import AudioPreprocessing
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import BackboneCard
from tests.data.speech.make import noise, write

transformers = pytest.importorskip("transformers")

WAVES = [noise(seconds, seed=place) for place, seconds in enumerate((0.41, 1.0, 0.7305))]
EXTRACTORS = {
    "normalised": transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True),
    "as it is": transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True),
    "mel": transformers.SeamlessM4TFeatureExtractor(padding_value=1.0),
    "whisper": transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=2),
}
VOCABULARY = CTCVocabulary.from_texts(["hello you"])


def _card(extractor, **processor) -> BackboneCard:
    values = json.loads(json.dumps(extractor.to_dict()))
    return BackboneCard("hf/test", "hf/test", modality="audio", processor={"feature_extractor": values, **processor})


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_batch_is_what_transformers_makes_of_it(name: str) -> None:
    """Where the extractor pads and masks a batch at once, each recording still is prepared by itself."""
    spec = AudioPreprocessing.from_card(_card(EXTRACTORS[name]))
    batch = spec.collate([spec.features(wave) for wave in WAVES])
    options = {"return_attention_mask": True} if name == "whisper" else {"padding": True}
    expected = EXTRACTORS[name](WAVES, sampling_rate=16_000, return_tensors="pt", **options)
    assert set(batch) == set(expected)
    for key, value in batch.items():
        assert torch.equal(value, expected[key].to(value.dtype)), key
    assert batch["attention_mask"].dtype == torch.int64


def test_normalising_does_not_depend_on_the_batch() -> None:
    """transformers normalises over the padding where an extractor gives no mask; then a batch changes its members."""
    theirs = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)
    spec = AudioPreprocessing.from_card(_card(theirs))
    batch = spec.collate([spec.features(wave) for wave in WAVES])
    for place, wave in enumerate(WAVES):
        alone = theirs(wave, sampling_rate=16_000, return_tensors="pt")["input_values"][0]
        assert torch.equal(batch["input_values"][place, : len(wave)], alone)
        assert batch["input_values"][place, len(wave) :].abs().sum() == 0
        assert batch["attention_mask"][place].sum() == len(wave)


def test_a_segment_is_read_at_the_rate_of_the_network(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1.0, rate=8000), 8000)
    spec = AudioPreprocessing.from_card(_card(EXTRACTORS["normalised"]))
    segment = AudioSegment(str(path), 0.25, 0.5)
    assert len(spec.read(segment)) == 8000
    assert torch.equal(spec(segment)["input_values"], spec.features(spec.read(segment))["input_values"])


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("samples", [1, 50, 399, 560])
def test_the_shortest_sound_has_finite_features(name: str, samples: int) -> None:
    spec = AudioPreprocessing.from_card(_card(EXTRACTORS[name]))
    for wave in (np.zeros(samples, dtype=np.float32), noise(1.0)[:samples]):
        found = spec.features(wave)
        assert all(bool(torch.isfinite(value).all()) for value in found.values())
        assert int(found["attention_mask"].sum()) >= 1
    if spec.layers is not None:
        assert spec.frames(samples / 16_000) >= 1


def test_it_travels_as_plain_values_and_to_workers() -> None:
    card = _card(EXTRACTORS["mel"], vocabulary=VOCABULARY.to_dict())
    spec = AudioPreprocessing.from_card(card, scoring_normaliser="none", chunk_seconds=10)
    values = json.loads(json.dumps(spec.to_dict()))
    assert values["kind"] == "audio"
    assert values["sampling_rate"] == 16_000
    again = AudioPreprocessing.from_dict(values, card)
    assert again == spec
    sent = pickle.loads(pickle.dumps(again))  # noqa: S301
    assert torch.equal(sent.features(WAVES[0])["input_features"], spec.features(WAVES[0])["input_features"])
    with pytest.raises(ValueError, match="kind `audio`, got `image`"):
        AudioPreprocessing.from_dict({"kind": "image"}, card)


def test_targets_are_numbers_of_the_vocabulary() -> None:
    spec = AudioPreprocessing.from_card(_card(EXTRACTORS["mel"], vocabulary=VOCABULARY.to_dict()))
    assert spec.encode("Hello, YOU!") == VOCABULARY.encode("hello you")
    with pytest.raises(DataError, match="There is no vocabulary yet"):
        replace(spec, vocabulary=None).encode("hello")


def _tokenizer_json() -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<|endoftext|>": 0, "<|startoftranscript|>": 1, "Hello": 2, "you": 3, ",": 4, "<unk>": 5, "<|": 6}
    made = Tokenizer(models.WordLevel(words, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(["<|endoftext|>", "<|startoftranscript|>"])
    return made.to_str()


def test_targets_of_whisper_are_its_tokens_without_special_ones() -> None:
    card = _card(EXTRACTORS["whisper"], tokenizer_json=_tokenizer_json(), vocabulary=VOCABULARY.to_dict())
    card = replace(card, architecture_config={"max_target_positions": 8})
    spec = AudioPreprocessing.from_card(card)
    assert spec.vocabulary is None
    assert spec.normaliser == "none"  # it knows capitals and punctuation
    assert spec.encode("Hello,  you") == [2, 4, 3]
    assert 0 not in spec.encode("Hello <|endoftext|>")  # a text cannot end itself
    assert spec.frames(1.0) is None
    assert spec.max_label_tokens == 3
    assert not spec.lacks_frames("Hello, you", 0.01)
    assert spec.lacks_frames("Hello, you you", 100.0)
    again = AudioPreprocessing.from_dict(spec.to_dict(), card)
    assert again == spec
    other = replace(card, processor={**card.processor, "tokenizer_json": _tokenizer_json().replace("you", "yon")})
    with pytest.raises(DataError, match=r"The tokenizer of `hf/test` is .*and the model was trained with"):
        AudioPreprocessing.from_dict(spec.to_dict(), other)


def test_windows_and_chunks() -> None:
    whisper = AudioPreprocessing.from_card(_card(EXTRACTORS["whisper"]))
    assert (whisper.chunk_seconds, whisper.overlap_seconds) == (2.0, pytest.approx(1 / 3))
    assert whisper.features(WAVES[0])["input_features"].shape == (80, 200)
    assert whisper.window_seconds == 2
    other = AudioPreprocessing.from_card(_card(EXTRACTORS["mel"]))
    assert (other.chunk_seconds, other.overlap_seconds, other.window_seconds) == (30.0, 4.0, math.inf)
    with pytest.raises(ValueError, match=r"`chunk_seconds` of at most 2, .*got 3"):
        AudioPreprocessing.from_card(_card(EXTRACTORS["whisper"]), chunk_seconds=3)
    with pytest.raises(ValueError, match=r"below half of `chunk_seconds` 10, got 5"):
        AudioPreprocessing.from_card(_card(EXTRACTORS["mel"]), chunk_seconds=10, overlap_seconds=5)


def test_too_short_for_its_text() -> None:
    spec = AudioPreprocessing.from_card(_card(EXTRACTORS["mel"], vocabulary=VOCABULARY.to_dict()))
    # "hello" needs 5 frames and one between the two l; a frame is 20 ms, the first mel window 25 ms.
    seconds = next(count / 1000 for count in range(100, 1000) if spec.frames(count / 1000) == 6)
    assert not spec.lacks_frames("hello", seconds)
    assert spec.lacks_frames("hello", seconds - 0.02)
    assert not spec.lacks_frames("heloo", seconds)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (BackboneCard("timm/a", "timm/a"), "`timm/a` reads image, and these data are sound"),
        (BackboneCard("hf/a", "hf/a", modality="audio"), "`hf/a` comes without a feature extractor"),
        (
            _card(transformers.ClapFeatureExtractor()),
            "feature extractor `ClapFeatureExtractor` cannot be built. Known: Wav2Vec2FeatureExtractor",
        ),
    ],
)
def test_a_card_that_does_not_do(card: BackboneCard, message: str) -> None:
    with pytest.raises(DataError, match=message):
        AudioPreprocessing.from_card(card)


def test_a_broken_torchaudio_breaks_transformers_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str):
            raise RuntimeError("libcudart.so.12: cannot open\nmore")

    monkeypatch.setitem(__import__("sys").modules, "transformers", Broken())
    with pytest.raises(DataError, match=r"cannot be loaded \(libcudart.so.12: cannot open\).*torchaudio of another"):
        audio_preprocessing._build("Wav2Vec2FeatureExtractor", {})
