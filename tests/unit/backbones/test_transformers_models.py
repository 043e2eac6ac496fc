"""transformers backbones against transformers itself, from tiny configurations."""

import json

import pytest
import torch

from lightning_transfer.backbones import transformers_models
from lightning_transfer.errors import BackboneError

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
VIT = {**TINY, "image_size": 16, "patch_size": 8}
BERT = {**TINY, "vocab_size": 40}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
WAV = {**TINY, "conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2}
WAV |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def built(model_type, values, pooling):
    made = transformers_models.build(model_type, values, pooling)
    return made._replace(module=made.module.eval())


def test_the_pooler_is_left_out_unless_it_is_the_pooling():
    assert not any("pooler" in name for name, _ in built("bert", BERT, "mean").module.named_parameters())
    assert not any("pooler" in name for name, _ in built("vit", VIT, "cls").module.named_parameters())
    assert any("pooler" in name for name, _ in built("vit", VIT, "").module.named_parameters())


@pytest.mark.parametrize("model_type", ["resnet", "convnext", "swin"])
def test_networks_without_tokens_pool_by_themselves(model_type):
    values = {"resnet": {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"}}
    values |= {"convnext": {"hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2}}
    values |= {
        "swin": {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
        }
    }
    config = transformers_models.make_config(model_type, values[model_type], "test")
    assert transformers_models.modality_of(config) == "image"
    pooling = transformers_models.choose_pooling(config, "image")
    assert pooling == ""
    backbone = built(model_type, values[model_type], pooling)
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        features = backbone.module(pixels)
        torch.testing.assert_close(features, backbone.module.model(pixels).pooler_output.flatten(1))
    assert features.shape == (2, backbone.num_features)


def test_vision_tokens_are_pooled_by_the_class_token():
    config = transformers_models.make_config("vit", VIT, "test")
    assert transformers_models.choose_pooling(config, "image") == "cls"
    backbone = built("vit", VIT, "cls").module
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pixels), backbone.model(pixels).last_hidden_state[:, 0])


def test_of_an_encoder_decoder_the_encoder_is_taken():
    backbone = built("t5", T5, "mean")
    assert not any("decoder" in name for name, _ in backbone.module.named_parameters())
    with torch.no_grad():
        features = backbone.module({"input_ids": IDS, "attention_mask": MASK})
        hidden = backbone.module.model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(features[1], hidden[1, :2].mean(0))


@pytest.mark.parametrize(("model_type", "values"), [("bert", BERT), ("vit", VIT), ("t5", T5)])
def test_plain_values_rebuild_the_same_network(model_type, values):
    config = transformers_models.make_config(model_type, values, "test")
    plain = transformers_models.plain_config(config)
    assert json.loads(json.dumps(plain)) == plain
    pooling = "cls" if model_type == "vit" else "mean"
    first, second = (built(model_type, item, pooling).module for item in (values, plain))
    second.load_state_dict(first.state_dict())
    inputs = torch.rand(2, 3, 16, 16) if model_type == "vit" else IDS
    with torch.no_grad():
        torch.testing.assert_close(first(inputs), second(inputs))


@pytest.mark.parametrize(
    ("model_type", "values", "message"),
    [
        ("bertt", BERT, "no model type `bertt`.*Did you mean `bert`"),
        ("", {"auto_map": {"AutoModel": "code.Model"}}, "own code are not run"),
        ("clip", {"projection_dim": 8}, "a vision and a text tower"),
        ("bert", {}, "`architecture_config` is empty"),
        ("bert", {**BERT, "hidden_size": 17}, "cannot build `bert`.*17"),
    ],
)
def test_what_cannot_be_built_is_told(model_type, values, message):
    with pytest.raises(BackboneError, match=message):
        transformers_models.build(model_type, values, "mean")


@pytest.mark.parametrize(("content", "message"), [("{", "no valid JSON"), (None, "No such file")])
def test_a_damaged_configuration_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BackboneError, match=rf"config\.json.*{message}"):
        transformers_models.load_config(tmp_path)


def test_speech_encoders_come_as_frames_or_their_mean():
    values = {**WAV, "feat_extract_norm": "layer"}
    frames = transformers_models.build("wav2vec2", values, "mean", "frames")
    pooled = transformers_models.build("wav2vec2", values, "mean")
    assert (frames.num_features, pooled.num_features) == (16, 16)
    pooled.module.load_state_dict(frames.module.state_dict())
    waveform = torch.randn(2, 400)
    with torch.no_grad():
        hidden, lengths = frames.module.eval()(waveform)
        torch.testing.assert_close(pooled.module.eval()(waveform), hidden.mean(1))
    assert lengths.tolist() == [hidden.shape[1]] * 2
    assert not frames.module.model.masked_spec_embed.requires_grad


def test_an_adapter_behind_the_encoder_gives_the_width():
    values = {**TINY, "feature_projection_input_dim": 8, "add_adapter": True, "output_hidden_size": 12}
    built_bert = transformers_models.build("wav2vec2-bert", {**values, "num_adapter_layers": 1}, "mean", "frames")
    assert built_bert.num_features == 12


@pytest.mark.parametrize(
    ("model_type", "values", "form", "message"),
    [
        ("bert", BERT, "frames", "`hf/bert` takes no sound"),
        ("t5", T5, "seq2seq", "`hf/t5` writes no text by itself: Whisper does"),
    ],
)
def test_a_form_that_a_network_does_not_have_is_told(model_type, values, form, message):
    with pytest.raises(BackboneError, match=message):
        transformers_models.build(model_type, values, "mean", form)
