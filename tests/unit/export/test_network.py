import pytest
import torch

from lightning_transfer.backbones.lora import LoraOptions, add_lora
from lightning_transfer.data.texts_tokens import TextPreprocessing
from lightning_transfer.export import ExportError
from lightning_transfer.export.network import exported_network, quantised_operations
from lightning_transfer.modules import NormalOnlyModule, TransferModule
from tests.unit.export.export_toys import SIZE, classifier, normal_only
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
