"""Features in numpy against transformers' own extractors."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from lightning_transfer.export.speech_features import extract, input_name, padded, shortest

TOLERANCE = 1e-5
"""Of values around 1, relative for the larger ones. With numpy 2.4 filter banks were equal bit by bit, and waveforms to
5e-7 of their size. A steady tone asks for it: a bin that hardly changes is divided by how little it does, and an error
in the seventh digit becomes one in the second."""


def sounds(rate: int = 16000) -> list[np.ndarray]:
    """Noise at all levels, a tone with an offset, a click, and silence."""
    rng = np.random.default_rng(0)
    lengths = ((rate, 0.1), (8123, 0.01), (3 * rate + 1, 0.9), (720, 0.3), (24560, 1e-5))
    found = [rng.standard_normal(length) * level for length, level in lengths]
    found.append(0.2 + 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate))
    found.append(np.eye(1, 5000, 2500)[0])
    found.append(np.zeros(4000))
    return [sound.astype(np.float32) for sound in found]


@pytest.mark.parametrize(
    "extractor",
    [
        Wav2Vec2FeatureExtractor(return_attention_mask=True),
        Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=False, padding_value=-1.0),
        SeamlessM4TFeatureExtractor(),
        SeamlessM4TFeatureExtractor(num_mel_bins=40, feature_size=40, sampling_rate=8000),
        SeamlessM4TFeatureExtractor(padding_value=1.0),
    ],
    ids=["normalised", "as it is", "filter bank", "telephone", "padded with ones"],
)
def test_features_are_those_of_transformers(extractor) -> None:
    spec, given = extractor.to_dict(), sounds(extractor.sampling_rate)
    wanted = extractor(given, sampling_rate=extractor.sampling_rate, padding=True, return_tensors="np")
    name = input_name(spec)
    found = padded([extract(sound, spec) for sound in given], spec)
    assert found[name].dtype == np.float32
    for place in range(len(given)):
        steps = int(wanted["attention_mask"][place].sum())
        assert found["attention_mask"][place].tolist() == [1] * steps + [0] * (found[name].shape[1] - steps)
        np.testing.assert_allclose(
            found[name][place, :steps], wanted[name][place, :steps], rtol=TOLERANCE, atol=TOLERANCE
        )
        assert (found[name][place, steps:] == spec["padding_value"]).all()


@pytest.mark.parametrize("extractor", [Wav2Vec2FeatureExtractor(), SeamlessM4TFeatureExtractor()])
def test_alone_or_in_company_a_sound_has_the_same_features(extractor) -> None:
    spec, given = extractor.to_dict(), sounds()
    rows = [extract(sound, spec) for sound in given]
    together = padded(rows, spec)[input_name(spec)]
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(padded([row], spec)[input_name(spec)][0], together[place, : len(row)])


@pytest.mark.parametrize("extractor", [Wav2Vec2FeatureExtractor(), SeamlessM4TFeatureExtractor()])
def test_the_shortest_sound_has_one_step(extractor) -> None:
    spec = extractor.to_dict()
    sound = sounds()[0][: shortest(spec)]
    row = extract(sound, spec)
    assert len(row) == 1
    assert np.isfinite(row).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "`WhisperFeatureExtractor`; known are"),
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor", "stride": 3}, "each 3 are joined; known is 2"),
        ({}, "`None`"),
    ],
)
def test_other_features_are_refused(spec, message) -> None:
    with pytest.raises(ValueError, match=message):
        input_name(spec)
