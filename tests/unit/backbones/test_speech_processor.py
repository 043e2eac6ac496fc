"""Processor files of speech models, against transformers' own processors."""

import json
import logging

import pytest
import torch
from safetensors.torch import save_file

from lightning_transfer.backbones import speech_processor, transformers_models
from lightning_transfer.errors import BackboneError
from tests.unit.backbones.speech_toys import FAMILIES, TOKENS, save_ctc, save_whisper

transformers = pytest.importorskip("transformers")


def processor_of(folder):
    return speech_processor.speech_processor(folder, transformers_models.load_config(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_ctc_models_files_are_read_as_plain_values(family, tmp_path):
    save_ctc(tmp_path, family)
    found = processor_of(tmp_path)
    assert json.loads(json.dumps(found)) == found
    kind = "SeamlessM4TFeatureExtractor" if family == "wav2vec2_bert" else "Wav2Vec2FeatureExtractor"
    assert found["feature_extractor"]["feature_extractor_type"] == kind
    assert found["feature_extractor"]["sampling_rate"] == 16000
    oracle = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokens = found["vocabulary"]["tokens"]
    assert tokens == oracle.convert_ids_to_tokens(range(len(TOKENS)))
    assert tokens == list(TOKENS)
    assert found["vocabulary"]["blank"] == oracle.pad_token
    assert found["vocabulary"]["word_delimiter"] == oracle.word_delimiter_token
    assert found["vocabulary"]["unknown"] == oracle.unk_token


def test_settings_that_rebuild_the_feature_extractor(tmp_path):
    save_ctc(tmp_path, "wav2vec2_bert")
    settings = dict(processor_of(tmp_path)["feature_extractor"])
    made = getattr(transformers, settings.pop("feature_extractor_type"))(**settings)
    oracle = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    noise = torch.randn(4000).numpy()
    for values in (made, oracle):
        assert values.stride == 2
    torch.testing.assert_close(
        torch.as_tensor(made(noise, sampling_rate=16000)["input_features"]),
        torch.as_tensor(oracle(noise, sampling_rate=16000)["input_features"]),
    )


def test_older_files_say_the_same(tmp_path):
    """Until transformers 4 the feature extractor had a file of its own, without its class, and mel filters in it."""
    save_ctc(tmp_path, "wav2vec2_layer")
    new = processor_of(tmp_path)
    settings = {key: value for key, value in new["feature_extractor"].items() if key != "feature_extractor_type"}
    settings["mel_filters"] = [[0.0]]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    (tmp_path / "processor_config.json").unlink()
    names = {"pad_token": "<pad>", "unk_token": {"content": "<unk>"}, "word_delimiter_token": "|"}
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names))
    assert processor_of(tmp_path) == new


def test_tokens_beyond_the_head_are_left_out_and_rows_without_a_token_have_a_name(tmp_path, caplog):
    save_ctc(tmp_path, "hubert")
    vocabulary = {token: row for row, token in enumerate(TOKENS) if token not in ("d", "<s>")}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {"1": {"content": "<s>"}, "12": {"content": "<late>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with caplog.at_level(logging.INFO):
        tokens = processor_of(tmp_path)["vocabulary"]["tokens"]
    assert len(tokens) == len(TOKENS)
    assert tokens[TOKENS.index("d")] == f"<unused{TOKENS.index('d')}>"
    assert tokens[1] == "<s>"
    assert "no row for the tokens <late>" in caplog.text


def test_a_vocabulary_of_several_languages_needs_to_say_which(tmp_path):
    save_ctc(tmp_path, "wav2vec2_layer")
    own = {token: row for row, token in enumerate(TOKENS)}
    (tmp_path / "vocab.json").write_text(json.dumps({"eng": own, "deu": {**own, "ß": 5}}))
    assert processor_of(tmp_path)["vocabulary"]["tokens"] == list(TOKENS)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "target_lang": "fra"}))
    with pytest.raises(BackboneError, match=r"no language `fra`. It has eng, deu"):
        processor_of(tmp_path)


@pytest.mark.parametrize(("change", "message"), [({"pad_token_id": 77}, "no blank"), ({}, "no word delimiter")])
def test_a_vocabulary_without_blank_or_delimiter_is_an_error(change, message, tmp_path):
    save_ctc(tmp_path, "wavlm")
    if change:
        values = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**values, **change}))
    else:
        values = json.loads((tmp_path / "vocab.json").read_text())
        del values["|"]
        (tmp_path / "vocab.json").write_text(json.dumps(values))
        settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": {}}))
    with pytest.raises(BackboneError, match=message):
        processor_of(tmp_path)


def test_a_bare_encoder_has_no_vocabulary_and_a_missing_feature_extractor_is_said(tmp_path, caplog):
    save_ctc(tmp_path, "wav2vec2_group", head=False)
    for name in ("vocab.json", "processor_config.json"):
        (tmp_path / name).unlink()
    with caplog.at_level(logging.WARNING):
        assert processor_of(tmp_path) == {}
    assert "has no `preprocessor_config.json`" in caplog.text


def test_whispers_files(tmp_path):
    save_whisper(tmp_path, ["call me back"])
    found = processor_of(tmp_path)
    assert found["feature_extractor"]["feature_extractor_type"] == "WhisperFeatureExtractor"
    assert found["generation"]["is_multilingual"] is True
    assert "transformers_version" not in found["generation"]
    assert "vocabulary" not in found


def test_the_head_alone_is_read(tmp_path):
    model = save_ctc(tmp_path, "hubert")
    head = speech_processor.read_ctc_head(tmp_path)
    torch.testing.assert_close(head["weight"], model.lm_head.weight)
    torch.testing.assert_close(head["bias"], model.lm_head.bias)
    other = {"lm_head.weight": torch.zeros(3, 16), "lm_head.bias": torch.zeros(3)}
    save_file(other, tmp_path / "adapter.deu.safetensors")  # as MMS has one for each language
    torch.testing.assert_close(speech_processor.read_ctc_head(tmp_path)["weight"], model.lm_head.weight)
    (tmp_path / "adapter.deu.safetensors").unlink()
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    torch.testing.assert_close(speech_processor.read_ctc_head(tmp_path)["weight"], model.lm_head.weight)
    (tmp_path / "pytorch_model.bin").unlink()
    assert speech_processor.read_ctc_head(tmp_path) == {}
