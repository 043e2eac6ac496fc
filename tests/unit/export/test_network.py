import pytest
import torch

from lightning_transfer.backbones.lora import LoraOptions, add_lora
from lightning_transfer.data.texts_tokens import TextPreprocessing
from lightning_transfer.export import ExportError
from lightning_transfer.export.network import exported_network, quantised_operations, speech_network_facts
from lightning_transfer.modules import NormalOnlyModule, TransferModule
from tests.unit.export.export_toys import SIZE, classifier, normal_only
from tests.unit.export.speech_toys import preprocessing, recogniser, sound
from tests.unit.export.text_toys import router


def test_the_network_says_what_the_module_says():
    module, images = classifier(), torch.randn(5, 3, *SIZE)
    torch.testing.assert_close(exported_network(module)(images), module(images).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("num_neighbours", [0, 3])
def test_the_memory_of_patches_goes_along(num_neighbours):
    module, images = normal_only(num_neighbours), torch.randn(5, 3, *SIZE)
    torch.testing.assert_close(exported_network(module)(images), module(images), rtol=0, atol=1e-5)


def test_blocks_of_bounded_memory_do_not_change_a_distance(monkeypatch):
    module, images = normal_only(), torch.randn(5, 3, *SIZE)
    whole = exported_network(module)(images)
    monkeypatch.setattr("lightning_transfer.modules.normal_only_bank._BLOCK", 7 * len(module.bank))
    torch.testing.assert_close(module(images), whole, rtol=0, atol=1e-5)


def test_only_backbone_and_head_go_along():
    module = classifier(class_weights=[1.0, 2.0, 3.0])
    module.source_head = torch.nn.Linear(4, 1000)
    names = {name.partition(".")[0] for name in exported_network(module).state_dict()}
    assert names == {"backbone", "head"}


def test_the_module_stays_as_it_is():
    module = normal_only().train()
    modes = [part.training for part in module.modules()]
    exported_network(module)
    assert [part.training for part in module.modules()] == modes
    assert module.bank.in_blocks
    trainable = classifier().train()
    network = exported_network(trainable)
    assert not network.training
    assert all(parameter.requires_grad for parameter in trainable.parameters())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_half_precision_becomes_float32():
    network = exported_network(classifier().to(torch.bfloat16))
    assert network(torch.zeros(1, 3, *SIZE)).dtype == torch.float32


def test_nothing_to_export_is_said():
    with pytest.raises(ExportError, match="`TransferModule` has no head"):
        exported_network(TransferModule("timm/test_resnet", weights="random"))
    module = NormalOnlyModule("timm/test_resnet", weights="random")
    module.use_schema(normal_only().schema)
    module.configure_model()
    with pytest.raises(ExportError, match="memory of normal patches is empty"):
        exported_network(module)


def test_distances_stay_float():
    assert quantised_operations(classifier()) is None
    assert quantised_operations(normal_only()) == ["Conv"]


def test_texts_give_logits_and_features_pooled_inside(backbone):
    module = router(backbone)
    encode = TextPreprocessing.from_dict(module.schema.preprocessing, module.card)
    batch = encode.collate([encode(text) for text in ("my card", "the invoice is wrong again", "")])
    logits, features = exported_network(module)(**batch)
    with torch.no_grad():
        torch.testing.assert_close(logits, module(batch), rtol=0, atol=0)
        torch.testing.assert_close(features, module.features(batch), rtol=0, atol=0)


def test_adapters_are_added_to_the_weights_and_stay_in_the_module(backbone):
    module = router(backbone)
    encode = TextPreprocessing.from_dict(module.schema.preprocessing, module.card)
    batch = encode.collate([encode(text) for text in ("my card", "the invoice is wrong again")])
    with torch.no_grad():
        before = module(batch)
    add_lora(module.backbone, LoraOptions(rank=2))
    with torch.no_grad():
        for name, value in module.backbone.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.3)
        adapted = module.eval()(batch)
    network = exported_network(module)
    torch.testing.assert_close(network(**batch)[0], adapted, rtol=1e-4, atol=1e-5)
    assert (adapted - before).abs().max() > 0.1
    assert not any("lora" in name for name, _ in network.named_parameters())
    assert any("lora" in name for name, _ in module.named_parameters())


@pytest.mark.parametrize("kind", ["conformer", "wav2vec2, group norm"])
def test_speech_gives_logits_in_time_and_the_number_of_frames(kind):
    module = recogniser(kind)
    spec = preprocessing(module)
    batch = spec.collate([spec.features(sound(seconds, 1)) for seconds in (0.4, 1.0)])
    logits, lengths = exported_network(module)(**batch)
    with torch.no_grad():
        wanted = module(batch)
    torch.testing.assert_close(logits, wanted.logits, rtol=0, atol=0)
    assert lengths.tolist() == wanted.lengths.tolist()


def test_what_a_script_must_know_of_a_speech_network():
    assert speech_network_facts(recogniser()) == {"sees_mask": True, "step_seconds": 0.04, "frame_seconds": 0.04}
    facts = speech_network_facts(recogniser("wav2vec2, group norm"))
    assert facts == {"sees_mask": False, "step_seconds": 1 / 8000, "frame_seconds": 80 / 8000}


def test_the_length_of_the_last_input_is_forgotten():
    """Rotary embeddings of the last length are kept; traced with them, a graph would know that length alone."""
    module = recogniser("conformer, rotary")
    spec = preprocessing(module)
    batch = spec.collate([spec.features(sound(1.0))])
    with torch.no_grad():
        module(batch)
    kept = module.encoder.model.encoder.embed_positions
    assert kept.cached_sequence_length is not None
    copied = exported_network(module).backbone.model.encoder.embed_positions
    assert copied.cached_sequence_length is copied.cached_rotary_positional_embedding is None
    assert kept.cached_sequence_length is not None


def test_adapters_of_a_recogniser_are_added_to_its_weights():
    module = recogniser(lora={"rank": 2})
    with torch.no_grad():
        for name, value in module.backbone.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.3)
    spec = preprocessing(module)
    batch = spec.collate([spec.features(sound(1.0))])
    network = exported_network(module)
    with torch.no_grad():
        torch.testing.assert_close(network(**batch)[0], module(batch).logits, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name, _ in network.named_parameters())
