"""Which tensors are the backbone's, what lies between two of them, and BatchNorm against torch's own `update_bn`."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim.swa_utils import update_bn

from lightning_transfer.callbacks.forgetting_weights import (
    backbone_tensors,
    blend,
    count_batches,
    find_backbone,
    recompute_batchnorm,
    run_module,
    set_batchnorm,
    statistics,
)
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.depth import resolve_depth
from lightning_transfer.types import BackboneCard


def network(seed=0):
    torch.manual_seed(seed)
    backbone = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 5), nn.BatchNorm1d(5))
    return nn.ModuleDict(
        {"backbone": backbone, "head": nn.Sequential(nn.BatchNorm1d(5, affine=False), nn.Linear(5, 2))}
    )


def forward(net, x):
    return net["head"](net["backbone"](x))


def batches(seed=0, sizes=(8, 8, 8)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 4, generator=generator) * 3 + 1 for size in sizes]


# ---- which tensors ---------------------------------------------------------------------------------------------------


def test_backbone_tensors_are_the_live_ones_without_the_head():
    net = network()
    found = backbone_tensors(net, find_backbone(net, None, None))
    assert set(found) == {name for name in net.state_dict() if name.startswith("backbone.")}
    with torch.no_grad():
        found["backbone.0.weight"].fill_(7.0)
    assert bool((net["backbone"][0].weight == 7).all())


@pytest.mark.parametrize("source", ["timm", "torchvision", "transformers"])
def test_a_head_inside_the_backbone_is_left_out(source):
    if source == "timm":
        model, heads = pytest.importorskip("timm").create_model("resnet10t", num_classes=7), ("fc.",)
    elif source == "torchvision":
        model, heads = pytest.importorskip("torchvision").models.mobilenet_v2(num_classes=7), ("classifier.",)
    else:
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=20
        )
        model, heads = transformers.BertForSequenceClassification(config), ("classifier.",)
    module = nn.Module()
    module.model = model
    found = backbone_tensors(module, find_backbone(module, None, None))
    every = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    assert set(found) == {f"model.{name}" for name in every if not name.startswith(heads)}


def test_a_head_that_keeps_its_alphabet_is_pretrained_too():
    def net(**attributes):
        found = nn.ModuleDict({"backbone": nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "head": nn.Linear(2, 1)})
        for name, value in attributes.items():
            object.__setattr__(found, name, value)
        return found

    def tensors(module):
        return [name for name in backbone_tensors(module, resolve_depth(module)) if name.startswith("head")]

    vocabulary = CTCVocabulary.from_texts(["abc"])
    card = BackboneCard("x", "x", processor={"vocabulary": vocabulary.to_dict()})
    more = CTCVocabulary.from_texts(["abcd"])
    assert tensors(net()) == []
    assert tensors(net(head_is_pretrained=False)) == []
    assert tensors(net(head_is_pretrained=True)) == ["head.weight", "head.bias"]
    assert tensors(net(head_is_pretrained=True, vocabulary=vocabulary, card=card)) == ["head.weight", "head.bias"]
    # The row of the new letter began at random.
    assert tensors(net(head_is_pretrained=True, vocabulary=more, card=card)) == []


def test_names_are_those_from_before_compiling():
    net = network()
    names = list(backbone_tensors(net, find_backbone(net, None, None)))
    net["backbone"] = torch.compile(net["backbone"], backend="eager")
    assert list(backbone_tensors(net, find_backbone(net, None, None))) == names


def test_a_named_head_inside_an_unknown_network():
    module = nn.Module()
    module.net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 2))
    with pytest.raises(MisconfigurationException, match=r"what is pretrained: .*Pass `downstream_head="):
        find_backbone(module, "net", None)
    found = backbone_tensors(module, find_backbone(module, "net", "net.3"))
    assert set(found) == {"net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"}


# ---- in between ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_blend_is_numpys(dtype, alpha):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(50, generator=generator).to(dtype) for _ in range(2))
    expected = (1 - alpha) * first.double().numpy() + alpha * second.double().numpy()
    found = blend(first, second, alpha)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=torch.finfo(dtype).eps, atol=5e-7)


def test_what_did_not_change_is_bitwise_the_same():
    values = torch.tensor([0.1, -torch.inf, torch.inf, 1e-30, 3.3e38])
    for alpha in (0.1, 0.3, 0.7):
        assert torch.equal(blend(values, values.clone(), alpha), values)
    assert blend(torch.tensor([-torch.inf, 1.0]), torch.tensor([-torch.inf, 2.0]), 0.5).tolist() == [-torch.inf, 1.5]


def test_integers_flags_and_what_was_resized_are_the_fine_tuned_ones():
    for first, second in (([1, 2], [3, 4]), ([True], [False]), ([1.0], [2.0, 3.0])):
        assert blend(torch.tensor(first), torch.tensor(second), 0.5).tolist() == second


# ---- BatchNorm -------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_update_bn_and_the_module_is_left_alone():
    net = network()
    before = count_batches(net)
    assert before == {"backbone.1": 0, "backbone.4": 0, "head.0": 0}
    for x in batches(1):
        forward(net.train(), x)
    net["backbone"][1].momentum = 0.3
    state, modes = copy.deepcopy(net.state_dict()), [item.training for item in net.modules()]
    found = recompute_batchnorm(net, before, lambda x: forward(net, x), batches())
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert modes == [item.training for item in net.modules()]
    assert net["backbone"][1].momentum == 0.3
    oracle = copy.deepcopy(net)
    oracle.forward = lambda x: forward(oracle, x)
    update_bn(batches(), oracle)
    assert set(found) == set(before)
    set_batchnorm(net, found)
    for name, values in statistics(oracle).items():
        for got, expected in zip(statistics(net)[name], values, strict=True):
            torch.testing.assert_close(got, expected, msg=name)
    assert int(net["head"][0].num_batches_tracked) == 3


def test_only_what_has_trained_and_is_reached_is_computed():
    net = network()
    net["unused"] = nn.BatchNorm1d(3)
    before = count_batches(net)
    net.train()
    net["backbone"][1].eval()  # frozen all along
    for x in batches(1):
        forward(net, x)
    net["unused"](torch.randn(4, 3))
    net.train()  # modes say nothing: they are put back when a fit ends
    found = recompute_batchnorm(net, before, lambda x: forward(net, x), batches())
    assert set(found) == {"backbone.4", "head.0"}
    assert recompute_batchnorm(network(), before, lambda x: pytest.fail("nothing to compute"), batches()) == {}


def test_a_last_short_batch_does_not_count_as_much_as_the_others():
    net = network()
    before = count_batches(net)
    forward(net.train(), batches(1)[0])
    whole = recompute_batchnorm(net, before, lambda x: forward(net, x), batches(sizes=(8, 8)))
    short = recompute_batchnorm(net, before, lambda x: forward(net, x), batches(sizes=(8, 8, 1)))
    for name, values in whole.items():
        assert torch.equal(values[0], short[name][0])
    assert recompute_batchnorm(net, before, lambda x: forward(net, x), batches(sizes=(3,)))


def test_momentum_comes_back_after_an_error():
    net = network()
    forward(net.train(), batches()[0])
    with pytest.raises(RuntimeError, match="broken"):
        recompute_batchnorm(net, {}, lambda x: (_ for _ in ()).throw(RuntimeError("broken")), batches())
    assert [part.momentum for part in net.modules() if isinstance(part, nn.BatchNorm1d)] == [0.1] * 3


# ---- running a batch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lib", [lightning.pytorch, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_batch_runs_through_all_that_there_is(lib, whole):
    class Module(lib.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5)), nn.Linear(5, 2)

    class WithForward(Module):
        def forward(self, x):
            return self.head(self.backbone(x))

    module, seen = (WithForward if whole else Module)(), []
    module.backbone.register_forward_hook(lambda *given: seen.append("backbone"))
    module.head.register_forward_hook(lambda *given: seen.append("head"))
    trainer = SimpleNamespace(precision_plugin=lightning.pytorch.plugins.Precision())
    run_module(trainer, module, find_backbone(module, None, None), (torch.ones(2, 4), torch.ones(2)))
    assert seen == ["backbone", "head"][: 1 + whole]
