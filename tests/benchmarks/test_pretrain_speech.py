"""The script of the embedded speech model: its features, its loss, a small run, and the file that ships."""

import json
import math
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from benchmarks import pretrain_speech
from benchmarks.pretrain_speech import EMBEDDED, NAME, TOKENS, Recogniser, ctc_loss, decode, encode, read_weights
from benchmarks.synthetic_speech import TRAINING_VOICES, FilterBank, Utterance, batches, disturb, speak, trim

transformers = pytest.importorskip(
    "transformers", reason="transformers is missing: pip install lightning-transfer[speech]"
)
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))).astype(np.float32)


def speech(count: int, max_words: int = 2) -> list[Utterance]:
    pytest.importorskip("espeakng_loader", reason="the synthesiser's wheel is missing: pip install espeakng-loader")
    return speak(np.random.default_rng(5), count, TRAINING_VOICES, max_words, calm=True)


def test_the_features_are_those_of_transformers() -> None:
    waves = [noise(0.5), noise(1.137, 1), noise(0.14, 2)]
    oracle = transformers.SeamlessM4TFeatureExtractor()(waves, sampling_rate=16_000, return_tensors="pt", padding=True)
    features, lengths = FilterBank()(waves)
    assert lengths.tolist() == oracle["attention_mask"].sum(1).tolist()
    for index, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            features[index, :length], oracle["input_features"][index, :length], atol=2e-3, rtol=1e-3
        )


def test_the_loss_is_that_of_each_utterance_over_all_letters() -> None:
    """Against transformers' own CTC head: its sum over one utterance."""
    torch.manual_seed(0)
    logits, lengths, texts = torch.randn(2, 30, len(TOKENS)), torch.tensor([30, 22]), ["ab b", "zoo"]
    parts = [
        torch.nn.CTCLoss(reduction="sum")(
            logits[index, :length].log_softmax(-1),
            torch.tensor(encode(text)),
            torch.tensor(length),
            torch.tensor(len(text)),
        )
        for index, (length, text) in enumerate(zip(lengths.tolist(), texts, strict=True))
    ]
    assert ctc_loss(logits, lengths, texts).item() == pytest.approx(sum(parts).item() / 7, rel=1e-5)


def test_letters_come_back() -> None:
    path = [0, 3, 3, 0, 4, 4, 1, 1, 0, 4, 0, 4, 2, 22, 0]
    logits = torch.nn.functional.one_hot(torch.tensor(path), len(TOKENS)).float()
    assert decode(logits, len(path)) == "ab bb't"
    assert decode(logits, 3) == "a"
    assert [TOKENS[index] for index in encode("i'm a z")] == ["i", "'", "m", "|", "a", "|", "z"]


def test_disturbances_change_the_sound_and_keep_the_words_in_it() -> None:
    time = np.arange(16_000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    found = [disturb(tone, np.random.default_rng(seed)) for seed in range(60)]
    lengths = {len(wave) for wave in found}
    assert len(lengths) > 20
    # Tempo by up to 0.26 and a little unevenness; up to 33 ms cut off, up to 250 ms of silence laid on at either end.
    assert min(lengths) >= 16_000 / 1.5 - 1067
    assert max(lengths) <= 16_000 * 1.5 + 8000
    for wave in found:
        assert wave.dtype == np.float32
        assert np.isfinite(wave).all()
        assert 0.02 < np.abs(wave).max() <= 1
        spectrum = np.abs(np.fft.rfft(wave))
        # Tempo moves the tone by the same factor; nothing else does. The loudest frequency stays the tone's.
        peak = np.argmax(spectrum[len(spectrum) // 100 :]) + len(spectrum) // 100
        assert 440 / 1.5 < peak * 8000 / len(spectrum) < 440 * 1.5
    same = disturb(tone, np.random.default_rng(7))
    np.testing.assert_array_equal(same, found[7])


def test_batches_hold_each_utterance_once_and_no_more_than_asked_for() -> None:
    generator = np.random.default_rng(0)
    items = [Utterance(str(index), np.zeros(int(seconds * 16_000), np.float32))
             for index, seconds in enumerate(generator.uniform(0.3, 4, 100))]  # fmt: skip
    found = list(batches(items, generator, 8.0))
    assert sorted(int(item.text) for batch in found for item in batch) == list(range(100))
    for batch in found:
        longest = max(len(item.wave) for item in batch) / 16_000
        assert longest * len(batch) <= 8.0 * 1.11
        assert min(len(item.wave) for item in batch) / 16_000 > 0.5 * longest - 0.2


def test_silence_is_cut() -> None:
    wave = np.concatenate([np.zeros(4000), 0.5 * np.ones(1000), np.zeros(4000)]).astype(np.float32)
    found = trim(wave)
    assert 1000 <= len(found) <= 1500
    assert found.sum() == pytest.approx(500)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_speech, "NETWORK", {**pretrain_speech.NETWORK, **TINY})


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("tiny")
def test_a_small_run_learns_goes_on_and_ends_when_told(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the synthesiser's wheel is missing: pip install espeakng-loader")
    options = [f"--out={tmp_path}", "--round=12", "--held_out=3", "--warmup=5", "--lr=0.01"]
    pretrain_speech.main([*options, "--steps=40"])
    before = [line["loss"] for line in log(tmp_path) if "loss" in line]
    # Uniform letters are ln 29; the first losses are far above, the spelling's own entropy is 2.9.
    assert before[-1] < min(3.5, before[0])
    assert log(tmp_path)[-1]["step"] == 40
    model = read_weights(tmp_path / f"{NAME}.safetensors")
    stored = torch.load(tmp_path / "last.pt", weights_only=True)["average"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, stored[name], atol=1e-3, rtol=1e-3)
    assert (tmp_path / "embedded" / f"{NAME}.yaml").is_file()

    (tmp_path / "decay").touch()
    pretrain_speech.main([*options, "--steps=400", "--decay_share=0.02", "--resume"])
    lines = log(tmp_path)
    assert [line["step"] for line in lines if "decay_from" in line][-1] == 40
    # Told at step 40 of 400, it takes the 8 steps of the decay and no more.
    assert 46 <= lines[-1]["step"] <= 49
    assert math.isfinite(lines[-1]["held_out_wer"])


@pytest.fixture(scope="module")
def card() -> dict[str, object]:
    return yaml.safe_load((EMBEDDED / f"{NAME}.yaml").read_text(encoding="utf-8"))


def test_the_file_that_ships_is_as_its_card_says(card: dict[str, object]) -> None:
    weights = EMBEDDED / f"{NAME}.safetensors"
    assert weights.stat().st_size < 10e6
    state = load_file(weights)
    head = {name: state.pop(f"lm_head.{name}") for name in ("weight", "bias")}
    tokens = card["processor"]["vocabulary"]["tokens"]
    assert tuple(tokens) == TOKENS
    assert head["weight"].shape == (len(tokens), card["num_features"])
    model = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(**card["architecture_config"]))
    assert model.load_state_dict(state) is not None
    assert sum(value.numel() for value in model.parameters()) == card["num_parameters"] < 4e6
    extractor = dict(card["processor"]["feature_extractor"])
    assert extractor.pop("feature_extractor_type") == "SeamlessM4TFeatureExtractor"
    assert transformers.SeamlessM4TFeatureExtractor(**extractor).to_dict() == card["processor"]["feature_extractor"]


def test_the_file_that_ships_hears_words() -> None:
    """By transformers' own feature extractor, without this script's network: what other code will do with it."""
    said = speech(30, max_words=6)
    extractor = transformers.SeamlessM4TFeatureExtractor()
    model = read_weights(EMBEDDED / f"{NAME}.safetensors")
    assert isinstance(model, Recogniser)
    heard = []
    for item in said:
        features = extractor(item.wave, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            logits = model.lm_head(model.backbone(**features).last_hidden_state)[0]
        heard.append(decode(logits, len(logits)))
    assert jiwer.wer([item.text for item in said], heard) < 0.6
