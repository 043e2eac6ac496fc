"""Frames and their number against transformers' own models, and what padding does to them."""

import pytest
import torch

from lightning_transfer.backbones import Frames, load_backbone
from lightning_transfer.backbones.frames import (
    FrameTransformer,
    MeanFrameTransformer,
    frame_lengths,
    freeze_feature_encoder,
    step_seconds,
    without_random_masks,
)
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import BackboneCard
from tests.unit.backbones.speech_toys import FAMILIES, WHISPER, ctc_model, sound

transformers = pytest.importorskip("transformers")

LENGTHS = [400, 250, 61]
MASKED = [name for name, (_, values) in FAMILIES.items() if values.get("feat_extract_norm") != "group"]


def encoder(family, **config):
    model = ctc_model(family, head=False, **config)
    without_random_masks(model.config)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_are_the_models_own(family):
    model = encoder(family)
    batch = sound(family, LENGTHS)
    own = dict(batch) if family in MASKED else {key: value for key, value in batch.items() if key != "attention_mask"}
    with torch.no_grad():
        expected = model(**own).last_hidden_state
        frames = FrameTransformer(model)(batch)
    assert isinstance(frames, Frames)
    torch.testing.assert_close(frames.features, expected)
    torch.testing.assert_close(frames.lengths, model._get_feat_extract_output_lengths(torch.tensor(LENGTHS)).long())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_number_of_frames_is_what_the_network_makes_of_that_much_sound(family):
    model = encoder(family)
    with torch.no_grad():
        for length in (20, 21, 29, 30, 177, 400):
            alone = sound(family, [length])
            made = model(**{key: value for key, value in alone.items() if key != "attention_mask"})
            assert int(frame_lengths(model, torch.tensor([length]))) == made.last_hidden_state.shape[1]


@pytest.mark.parametrize("family", MASKED)
def test_padding_changes_no_real_frame_where_the_family_masks(family):
    backbone = FrameTransformer(encoder(family))
    batch = sound(family, LENGTHS)
    with torch.no_grad():
        together = backbone(batch)
        for row, length in enumerate(LENGTHS):
            alone = backbone({key: value[row : row + 1, :length] for key, value in batch.items()})
            count = int(alone.lengths)
            assert count == int(together.lengths[row])
            torch.testing.assert_close(together.features[row, :count], alone.features[0], atol=1e-5, rtol=1e-4)


def test_a_mask_that_hides_padding_is_kept_from_group_norm_and_lengths_count_all_the_same():
    backbone = FrameTransformer(encoder("wav2vec2_group"))
    batch = sound("wav2vec2_group", LENGTHS)
    with torch.no_grad():
        masked, bare = backbone(batch), backbone(batch["input_values"])
    torch.testing.assert_close(masked.features, bare.features)
    assert masked.lengths.tolist() == [39, 24, 5]
    assert bare.lengths.tolist() == [39, 39, 39]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_is_over_real_frames(family):
    model = encoder(family)
    batch = sound(family, LENGTHS)
    with torch.no_grad():
        frames = FrameTransformer(model)(batch)
        pooled = MeanFrameTransformer(model)(batch)
    for row, count in enumerate(frames.lengths.tolist()):
        torch.testing.assert_close(pooled[row], frames.features[row, :count].mean(0))


@pytest.mark.parametrize("family", ["wav2vec2_group", "wav2vec2_layer", "wav2vec2_bert"])
def test_sound_shorter_than_a_frame_has_none(family):
    model = encoder(family)
    shortest = 20 if family != "wav2vec2_bert" else 1
    batch = sound(family, [shortest - 1, 100])
    with torch.no_grad():
        frames = FrameTransformer(model)(batch)
        alone = FrameTransformer(model)(sound(family, [max(1, shortest - 1)]))
        pooled = MeanFrameTransformer(model)(batch)
    assert frames.lengths[0] == 0
    assert bool(torch.isfinite(frames.features).all())
    assert alone.lengths.tolist() == ([0] if shortest > 1 else [1])
    assert not pooled[0].any()
    assert pooled[1].any()


def test_a_batch_of_the_shortest_sound_goes_through():
    with torch.no_grad():
        frames = FrameTransformer(encoder("wav2vec2_layer"))(sound("wav2vec2_layer", [1, 20]))
    assert frames.lengths.tolist() == [0, 1]
    assert bool(torch.isfinite(frames.features).all())


def test_an_adapter_shortens_the_frames():
    model = encoder(
        "wav2vec2_bert", add_adapter=True, num_adapter_layers=1, output_hidden_size=16, adapter_kernel_size=3
    )
    batch = sound("wav2vec2_bert", [40, 21])
    with torch.no_grad():
        frames = FrameTransformer(model)(batch)
    assert frames.lengths.tolist() == [20, 11]
    assert frames.features.shape[1] == 20
    assert FrameTransformer(model).steps_per_frame == 2


def test_whisper_gives_its_encoders_frames_of_the_whole_window():
    config = transformers.WhisperConfig(**WHISPER, vocab_size=20, pad_token_id=0, decoder_start_token_id=1)
    model = transformers.WhisperModel(without_random_masks(config)).eval().get_encoder()
    batch = sound("whisper", [100, 31])
    with torch.no_grad():
        frames = FrameTransformer(model)(batch)
        torch.testing.assert_close(frames.features, model(batch["input_features"]).last_hidden_state)
        pooled = MeanFrameTransformer(model)(batch)
    assert frames.lengths.tolist() == [50, 16]
    torch.testing.assert_close(pooled[1], frames.features[1, :16].mean(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_per_frame_say_when_a_frame_is(family):
    backbone = FrameTransformer(encoder(family))
    assert backbone.steps_per_frame == (1 if family == "wav2vec2_bert" else 10)
    assert backbone.shortest == (1 if family == "wav2vec2_bert" else 20)


@pytest.mark.parametrize("family", ["wav2vec2_layer", "hubert", "wav2vec2_bert", "whisper"])
def test_augmentation_sees_real_lengths_and_what_it_returns_goes_on(family):
    if family == "whisper":
        config = transformers.WhisperConfig(**WHISPER, vocab_size=20, pad_token_id=0, decoder_start_token_id=1)
        model = transformers.WhisperModel(without_random_masks(config)).eval().get_encoder()
        lengths, expected = [100, 31], [100, 31]
    else:
        model = encoder(family)
        lengths, expected = [400, 250], [400, 250] if family == "wav2vec2_bert" else [39, 24]
    backbone = FrameTransformer(model)
    seen = []

    def blank_out(features, counted, mark):
        seen.append((features.shape, counted.tolist(), mark.shape))
        return mark.expand_as(features).clone()

    batch = sound(family, lengths)
    with torch.no_grad():
        hidden = backbone(batch, augment=blank_out)
        # What was heard no longer matters, but for where the padding is.
        other = backbone({**batch, next(iter(batch)): torch.randn_like(next(iter(batch.values())))}, augment=blank_out)
        plain = backbone(batch)
    torch.testing.assert_close(hidden.features, other.features)
    assert not torch.allclose(hidden.features, plain.features)
    assert len(seen) == 2, "an augmentation is for one call"
    assert seen[0][1] == expected
    assert seen[0][0][1] == max(expected)
    assert seen[0][2] == seen[0][0][2:]


def test_the_convolutions_over_the_waveform_freeze_and_nothing_else():
    backbone = FrameTransformer(encoder("wavlm"))
    assert freeze_feature_encoder(backbone)
    frozen = {name for name, value in backbone.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, _ in backbone.named_parameters() if ".feature_extractor." in name}
    loss = backbone.train()(sound("wavlm", [100])).features.sum()
    loss.backward()
    assert backbone.model.feature_projection.projection.weight.grad is not None
    assert not freeze_feature_encoder(FrameTransformer(encoder("wav2vec2_bert")))


def test_training_draws_no_number_of_its_own():
    config = {"feat_proj_dropout": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    model = encoder("wav2vec2_layer", **config).train()
    backbone = FrameTransformer(model)
    batch = sound("wav2vec2_layer", [60, 45])  # shorter than one of transformers' own masks
    first, second = backbone(batch).features, backbone(batch).features
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_a_network_without_frames_is_refused():
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    with pytest.raises(BackboneError, match="`BertModel` does not say how many frames"):
        FrameTransformer(transformers.BertModel(config))
    with pytest.raises(BackboneError, match=r"`timm/test_resnet`.*gives no features in time"):
        load_backbone("timm/test_resnet", weights="random", frames=True)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000}, 1 / 16000),
        ({"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": 16000, "stride": 2}, 0.02),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16000, "hop_length": 160}, 0.01),
    ],
)
def test_seconds_of_a_step_are_the_feature_extractors(settings, seconds):
    card = BackboneCard("a", "hf/x", processor={"feature_extractor": settings})
    assert step_seconds(card) == pytest.approx(seconds)
    # transformers' own arithmetic: a second of sound becomes that many steps.
    made = getattr(transformers, settings["feature_extractor_type"])(**settings)
    steps = made([0.1] * 16000 * 4, sampling_rate=16000, return_tensors="pt")
    values = next(iter(steps.values()))
    count = values.shape[2] if "Whisper" in settings["feature_extractor_type"] else values.shape[1]
    total = 30.0 if "Whisper" in settings["feature_extractor_type"] else 4.0
    assert count * seconds == pytest.approx(total, abs=0.05)


def test_a_card_without_sampling_rate_says_what_is_missing():
    with pytest.raises(BackboneError, match="`toy` does not say its `sampling_rate`"):
        step_seconds(BackboneCard("toy", "hf/wav2vec2"))
