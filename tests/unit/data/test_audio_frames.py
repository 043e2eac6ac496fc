"""Frames are counted as transformers' own networks count them, and as they come out of the network."""

import numpy as np
import pytest
import torch

from lightning_transfer.data.audio_frames import FrameLayer, count_frames, frame_layers

transformers = pytest.importorskip("transformers")

RAW = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16_000}
MEL = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": 16_000, "stride": 2}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "output_hidden_size": 16,
}
CONV = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2}
CONV |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("samples", [1600, 1601, 4321, 16_000, 99_999])
def test_networks_of_raw_samples(samples: int, adapter: bool) -> None:
    config = transformers.Wav2Vec2Config(**SMALL, **CONV, add_adapter=adapter, num_adapter_layers=2)
    model = transformers.Wav2Vec2Model(config).eval()
    found = count_frames(samples, RAW, frame_layers(config.to_dict()))
    assert found == int(model._get_feat_extract_output_lengths(torch.tensor(samples)))
    with torch.no_grad():
        assert found == model(torch.randn(1, samples)).last_hidden_state.shape[1]


@pytest.mark.parametrize("kind", ["Hubert", "WavLM"])
def test_its_kin(kind: str) -> None:
    config = getattr(transformers, f"{kind}Config")()
    layers = frame_layers(config.to_dict())
    assert [count_frames(size, RAW, layers) for size in (400, 719, 720, 16_000)] == [1, 1, 2, 49]


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("samples", [1600, 2001, 4400, 4559, 4560, 16_000, 50_001])
def test_networks_of_mel_bands(samples: int, adapter: bool) -> None:
    extractor = transformers.SeamlessM4TFeatureExtractor(sampling_rate=16_000)
    batch = extractor(np.random.default_rng(0).standard_normal(samples).astype(np.float32), sampling_rate=16_000)
    config = transformers.Wav2Vec2BertConfig(**SMALL, feature_projection_input_dim=160, add_adapter=adapter)
    layers = frame_layers(config.to_dict())
    real = int(batch["attention_mask"].sum())
    assert count_frames(samples, MEL, ()) == real
    model = transformers.Wav2Vec2BertModel(config).eval()
    found = count_frames(samples, MEL, layers)
    assert found == int(model._get_feat_extract_output_lengths(torch.tensor(real)))


def test_what_is_too_short_has_no_frame() -> None:
    assert count_frames(100, RAW, [FrameLayer(400, 320)]) == 0
    assert count_frames(100, MEL, ()) == 0
