"""`load_backbone` from end to end, with the libraries themselves as oracle."""

import logging
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from lightning_transfer.backbones import licence_notice, list_embedded, load_backbone, load_source_head, sources
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import BackboneCard
from tests.unit.backbones.speech_toys import FAMILIES, TOKENS, ctc_model, save_ctc, sound

models = pytest.importorskip("torchvision.models")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

WEIGHTS = Path(os.environ.get("LT_WEIGHTS_DIR", Path(__file__).parents[4] / "shared" / "weights"))
IMAGE = torch.rand(2, 3, 64, 64)
real_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"needs LT_WEIGHTS_DIR ({WEIGHTS} is missing)")


@pytest.fixture
def saved(tmp_path):
    """A folder with card and weights, and the whole network they belong to."""
    whole = timm.create_model("resnet10t", num_classes=7).eval()
    folder = tmp_path / "saved"
    folder.mkdir()
    torch.save({"state_dict": {f"module.{key}": item for key, item in whole.state_dict().items()}}, folder / "net.pth")
    card = {
        "architecture": "timm/resnet10t",
        "licence": "mit",
        "pretraining": "shapes",
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
    }
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder, whole


@pytest.fixture
def embedded(monkeypatch, tmp_path):
    """An embedded backbone in its file format: the backbone's own keys, and the source head."""
    folder = tmp_path / "embedded"
    folder.mkdir()
    monkeypatch.setattr(sources, "EMBEDDED", folder)
    torch.manual_seed(0)
    backbone, _ = load_backbone("timm/resnet10t", weights="random")
    head = nn.Linear(512, 6)
    state = {**backbone.state_dict(), **{f"source_head.{key}": item for key, item in head.state_dict().items()}}
    save_file(state, folder / "tiny.safetensors")
    card = {"architecture": "timm/resnet10t", "licence": "Apache-2.0", "pretraining": "formula images"}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(card))
    return backbone.eval(), head


def features(module, inputs=IMAGE):
    with torch.no_grad():
        return module.eval()(inputs)


def test_a_local_file_with_its_card(saved, caplog):
    folder, whole = saved
    with caplog.at_level(logging.INFO):
        backbone, card = load_backbone(str(folder / "net.pth"))
    with torch.no_grad():
        torch.testing.assert_close(whole.fc(features(backbone)), whole(IMAGE))
    assert "left out the old head: module.fc.weight, module.fc.bias" in caplog.text
    assert (card.source, card.licence, card.pretraining, card.mean) == ("local", "mit", "shapes", (0.5,) * 3)
    assert (card.num_features, card.num_parameters) == (512, sum(item.numel() for item in backbone.parameters()))
    assert backbone.conv1 is not None, "the library's own names stay"


def test_weights_beside_a_name_use_the_card_beside_the_weights(saved):
    folder, _ = saved
    by_name, card = load_backbone("timm/resnet10t", weights=folder)
    by_path, other = load_backbone(str(folder))
    torch.testing.assert_close(features(by_name), features(by_path))
    assert replace(card, name="") == replace(other, name="", architecture=card.architecture)


def test_weights_without_a_card_have_an_unknown_licence(saved):
    folder, _ = saved
    (folder / "card.yaml").unlink()
    _, card = load_backbone("timm/resnet10t", weights=folder / "net.pth")
    assert (card.source, card.licence, card.pretraining) == ("local", "unknown", "unknown")
    assert card.mean == timm.get_pretrained_cfg("resnet10t").mean
    assert "unknown" in (licence_notice(card) or "")
    with pytest.raises(BackboneError, match=r"Nothing says which network the weights `.*net\.pth` belong to"):
        load_backbone(str(folder / "net.pth"))


def test_the_users_card_wins_over_all_others(saved, tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("licence: cc-by-nc-4.0\nmean: [0.1, 0.1, 0.1]\n")
    _, card = load_backbone(str(saved[0]), card=own)
    assert (card.licence, card.mean, card.std) == ("cc-by-nc-4.0", (0.1,) * 3, (0.2,) * 3)


def test_a_card_of_another_network_is_refused(saved):
    with pytest.raises(BackboneError, match=r"The backbone is `timm/resnet18`, but the card .* `timm/resnet10t`"):
        load_backbone("timm/resnet18", weights=saved[0])


def test_weights_of_another_network_are_refused(saved):
    (saved[0] / "card.yaml").unlink()
    with pytest.raises(BackboneError, match=r"net\.pth` do not fit `timm/resnet18"):
        load_backbone("timm/resnet18", weights=saved[0] / "net.pth")


def test_embedded_backbones_need_nothing_else(embedded):
    oracle, head = embedded
    backbone, card = load_backbone("embedded/tiny")
    torch.testing.assert_close(features(backbone), features(oracle))
    assert (card.source, card.licence, card.architecture) == ("embedded", "Apache-2.0", "timm/resnet10t")
    loaded = load_source_head("embedded/tiny")
    assert torch.equal(loaded.weight, head.weight)
    assert torch.equal(loaded.bias, head.bias)
    assert not loaded.training


@pytest.mark.usefixtures("embedded")
def test_other_weights_in_an_embedded_network_do_not_inherit_its_licence(saved):
    (saved[0] / "card.yaml").unlink()
    _, card = load_backbone("embedded/tiny", weights=saved[0] / "net.pth")
    assert (card.source, card.licence, card.pretraining) == ("local", "unknown", "unknown")


@pytest.mark.parametrize("name", list_embedded())
def test_the_wheels_own_backbones_load(name):
    backbone, card = load_backbone(name)
    if card.modality == "image":
        assert features(backbone, torch.zeros(1, *card.input_size)).shape == (1, card.num_features)
    assert licence_notice(card) is None
    assert load_source_head(name).in_features == card.num_features


def test_the_source_head_of_a_file(saved):
    folder, whole = saved
    backbone, _ = load_backbone(str(folder))
    head = load_source_head(str(folder))
    with torch.no_grad():
        torch.testing.assert_close(head(features(backbone)), whole(IMAGE))


def test_weights_without_a_source_head_are_told(saved, tmp_path):
    backbone, _ = load_backbone(str(saved[0]))
    torch.save(backbone.state_dict(), tmp_path / "bare.pth")
    with pytest.raises(BackboneError, match=r"no source head.*looked for `source_head`, `fc`"):
        load_source_head("timm/resnet10t", weights=tmp_path / "bare.pth")
    with pytest.raises(BackboneError, match="Random weights of `timm/resnet10t`"):
        load_source_head("timm/resnet10t", weights="random")


def test_random_weights_say_so():
    _, card = load_backbone("timm/resnet10t", weights="random")
    assert (card.source, card.pretraining) == ("random", "none")
    assert licence_notice(card) is None


@pytest.fixture
def cut_off(monkeypatch):
    """No network, no hub, and no reading of any weights."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"touched the outside: {args}")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr("lightning_transfer.backbones.weights_file.load_file", refuse)
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)
    return refuse


def bert_folder(tmp_path):
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    model = transformers.BertModel(transformers.BertConfig(**tiny, vocab_size=40)).eval()
    model.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert", model


@pytest.mark.parametrize("kind", ["timm", "torchvision", "local", "embedded", "hf"])
def test_a_card_alone_rebuilds_the_network(kind, saved, embedded, tmp_path, request):
    inputs = IMAGE
    if kind == "local":
        name = str(saved[0])
    elif kind == "hf":
        name, inputs = str(bert_folder(tmp_path)[0]), torch.tensor([[5, 6, 7]])
    else:
        name = {"timm": "timm/test_vit", "torchvision": "torchvision/squeezenet1_1", "embedded": "embedded/tiny"}[kind]
        inputs = torch.rand(2, 3, 160, 160) if kind == "timm" else IMAGE
    first, card = load_backbone(name, weights="random" if kind in ("timm", "torchvision") else None)
    # What a checkpoint stores, and what it reads back with weights_only.
    torch.save({"card": card.to_dict(), "state": first.state_dict()}, tmp_path / "checkpoint.pt")
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    request.getfixturevalue("cut_off")
    again, same = load_backbone("/gone/with/the/machine", weights="random", card=BackboneCard.from_dict(stored["card"]))
    assert same == BackboneCard.from_dict(card.to_dict())
    again.load_state_dict(stored["state"])
    torch.testing.assert_close(features(again, inputs), features(first, inputs))


@pytest.mark.slow
def test_a_card_alone_rebuilds_in_a_fresh_process_with_the_hub_off(tmp_path):
    _, card = load_backbone(str(bert_folder(tmp_path)[0]))
    torch.save(card.to_dict(), tmp_path / "card.pt")
    code = (
        "import socket, torch\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from lightning_transfer.backbones import load_backbone\n"
        "from lightning_transfer.types import BackboneCard\n"
        f"card = BackboneCard.from_dict(torch.load({str(tmp_path / 'card.pt')!r}, weights_only=True))\n"
        "print(load_backbone('hf/gone', weights='random', card=card)[1] == card)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert ended.stdout.strip() == "True", ended.stderr


def test_a_card_file_alone_builds_a_network_from_nothing(tmp_path):
    card_file = tmp_path / "card.yaml"
    card_file.write_text("architecture: timm/test_vit\narchitecture_config: {img_size: 32}\ninput_size: [3, 32, 32]\n")
    backbone, card = load_backbone("anything", weights="random", card=card_file)
    assert features(backbone, torch.zeros(1, 3, 32, 32)).shape == (1, card.num_features)
    assert (card.source, card.name) == ("random", "anything")


def test_a_stored_card_that_no_longer_fits_is_told():
    _, card = load_backbone("timm/resnet10t", weights="random")
    with pytest.raises(BackboneError, match=r"num_features: 511.*has 512"):
        load_backbone("x", weights="random", card=replace(card, num_features=511))


def test_folders_of_transformers_and_other_weights_for_them(tmp_path):
    folder, oracle = bert_folder(tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = oracle(input_ids=ids).last_hidden_state.mean(1)
    for name in (str(folder), f"hf/{folder}"):
        torch.testing.assert_close(features(load_backbone(name)[0], ids), expected)
    # A state dict of the same network with a head around it, as a training loop leaves it.
    changed = {f"bert.{key}": item * 2 for key, item in oracle.state_dict().items() if "pooler" not in key}
    changed |= {"classifier.weight": torch.zeros(2, 16), "bert.pooler.dense.bias": torch.zeros(16)}
    save_file(changed, tmp_path / "tuned.safetensors")
    tuned, card = load_backbone(str(folder), weights=tmp_path / "tuned.safetensors")
    assert torch.equal(tuned.model.embeddings.word_embeddings.weight, oracle.embeddings.word_embeddings.weight * 2)
    assert (card.source, card.licence) == ("local", "unknown")
    _, card = load_backbone(str(folder), weights="random")
    assert card.source == "random"


def test_a_card_may_choose_the_pooling_of_a_folder(tmp_path):
    folder, oracle = bert_folder(tmp_path)
    (folder / "card.yaml").write_text("pooling: cls\nlicence: mit\n")
    backbone, card = load_backbone(str(folder))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(features(backbone, ids), oracle(input_ids=ids).last_hidden_state[:, 0])
    assert (card.pooling, card.licence) == ("cls", "mit")
    (folder / "card.yaml").write_text("architecture: hf/vit\n")
    with pytest.raises(BackboneError, match="is `hf/bert`, but its card says `hf/vit`"):
        load_backbone(str(folder))


@pytest.mark.real_data
@real_weights
def test_mobilenet_with_tensorflows_padding_is_its_readmes_construction():
    folder = WEIGHTS / "mobilenet_v2_qat"
    whole = models.mobilenet_v2(num_classes=1000).eval()
    whole.load_state_dict(torch.load(folder / "mobilenet_v2_qat.pth", weights_only=True))
    with_torch_padding = whole.features[0][0](torch.ones(1, 3, 224, 224))
    for name, layer in list(whole.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.padding = (0, 0)
            parent, _, attribute = name.rpartition(".")
            setattr(whole.get_submodule(parent), attribute, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), layer))
    backbone, card = load_backbone(str(folder))
    image = torch.rand(2, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        oracle = whole.features(image).mean(dim=(2, 3))
        torch.testing.assert_close(features(backbone, image), oracle)
        torch.testing.assert_close(load_source_head(str(folder))(oracle), whole(image))
    assert not torch.allclose(whole.features[0][0](torch.ones(1, 3, 224, 224)), with_torch_padding)
    assert (card.padding, card.batchnorm, card.mean, card.num_features) == ("tf_same", "folded", (0.5,) * 3, 1280)
    assert licence_notice(card) is None


@pytest.mark.real_data
@real_weights
def test_squeezenet_loads_strictly_and_has_no_linear_source_head():
    folder = WEIGHTS / "squeezenet1_0_dc"
    whole = models.squeezenet1_0()
    whole.load_state_dict(torch.load(folder / "squeezenet1_0_dc.pth", weights_only=True))
    backbone, card = load_backbone("torchvision/squeezenet1_0", weights=folder / "squeezenet1_0_dc.pth")
    image = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(features(backbone, image), whole.eval().features(image).mean(dim=(2, 3)))
    assert (card.licence, card.num_features) == ("BSD", 512)
    with pytest.raises(BackboneError, match=r"no source head that is a linear map of the 512"):
        load_source_head(str(folder))


def test_the_source_head_comes_without_a_word_about_the_backbone(caplog):
    with caplog.at_level("INFO"):
        load_source_head(list_embedded()[0])
        assert not caplog.records
        load_backbone(list_embedded()[0])
    assert "left out the old head" in caplog.text


@pytest.fixture
def embedded_speech(monkeypatch, tmp_path):
    """An embedded speech model in its file format: the encoder's own keys, and `lm_head`."""
    model = ctc_model("wav2vec2_bert")
    monkeypatch.setattr(sources, "EMBEDDED", tmp_path)
    state = {**model.wav2vec2_bert.state_dict(), **{f"lm_head.{k}": v for k, v in model.lm_head.state_dict().items()}}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "speech.safetensors")
    settings = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": 16000, "stride": 2}
    vocabulary = {"tokens": list(TOKENS), "blank": "<pad>", "word_delimiter": "|", "unknown": "<unk>"}
    card = {
        "architecture": "hf/wav2vec2-bert",
        "licence": "Apache-2.0",
        "pretraining": "synthesised sentences",
        "architecture_config": FAMILIES["wav2vec2_bert"][1],
        "processor": {"feature_extractor": settings, "vocabulary": vocabulary},
    }
    (tmp_path / "speech.yaml").write_text(yaml.safe_dump(card))
    return model


def test_an_embedded_speech_model_is_frames_a_mean_and_a_head(embedded_speech, caplog):
    batch = sound("wav2vec2_bert", [60, 41])
    with caplog.at_level(logging.INFO):
        backbone, card = load_backbone("embedded/speech", frames=True)
    assert "left out the old head: lm_head.bias, lm_head.weight" in caplog.text
    assert (card.modality, card.pooling, card.source, card.num_features) == ("audio", "mean", "embedded", 16)
    assert card.processor["vocabulary"]["tokens"] == list(TOKENS)
    head = load_source_head("embedded/speech")
    with torch.no_grad():
        frames = backbone.eval()(batch)
        torch.testing.assert_close(head(frames.features), embedded_speech(**batch).logits)
    pooled, _ = load_backbone("embedded/speech")
    torch.testing.assert_close(features(pooled, batch)[1], frames.features[1, :41].mean(0))


@pytest.mark.usefixtures("embedded_speech")
def test_a_speech_card_alone_rebuilds_frames():
    backbone, card = load_backbone("embedded/speech", frames=True)
    again, same = load_backbone(card.name, weights="random", card=BackboneCard.from_dict(card.to_dict()), frames=True)
    again.load_state_dict(backbone.state_dict())
    batch = sound("wav2vec2_bert", [60, 41])
    torch.testing.assert_close(features(again, batch).features, features(backbone, batch).features)
    assert same == card


def test_a_weights_file_of_a_whole_ctc_model_says_what_became_of_its_head(tmp_path, caplog):
    model = save_ctc(tmp_path, "hubert")
    name = str(tmp_path)
    with caplog.at_level(logging.INFO):
        backbone, _ = load_backbone(name, weights=tmp_path / "model.safetensors", frames=True)
    assert "left out the old head: lm_head.bias, lm_head.weight" in caplog.text
    assert "no place for" not in caplog.text
    head = load_source_head(name, weights=tmp_path / "model.safetensors")
    batch = sound("hubert", [300])
    with torch.no_grad():
        torch.testing.assert_close(head(features(backbone, batch).features), model(batch["input_values"]).logits)


def test_a_file_without_a_ctc_head_says_so(tmp_path):
    save_ctc(tmp_path, "hubert", head=False)
    with pytest.raises(BackboneError, match=r"no CTC head over its 16 features \(looked for `lm_head`"):
        load_source_head(str(tmp_path), weights=tmp_path / "model.safetensors")
