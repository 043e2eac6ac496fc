"""Where features come from, that measuring leaves no trace, and what the comparison says."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import lightning.pytorch
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_transfer.backbones.frames import Frames
from lightning_transfer.callbacks.forgetting_reading import (
    FeatureReader,
    find_reader,
    read_outputs,
    undisturbed,
)


class Module(lightning.pytorch.LightningModule):
    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Statistics(nn.Module):
    """All that a forward may leave behind, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(1))
        self.merged = False

    def train(self, mode=True):
        self.merged = not mode  # as adapters do
        return super().train(mode)

    def forward(self, x):
        self.calls += 1
        self.replaced = self.replaced + 1
        torch.rand(3)
        return self.drop(self.norm(x))


# ---- without a trace -------------------------------------------------------------------------------------------------


def test_everything_is_as_it_was_also_after_an_error():
    module = Module(backbone=Statistics(), other=nn.Dropout())
    module.train()
    module.backbone.norm.eval()  # held frozen by someone else
    state = copy.deepcopy(module.state_dict())
    objects = [id(item) for item in module.buffers()]
    modes = [item.training for item in module.modules()]
    rng, cudnn = torch.get_rng_state(), torch.backends.cudnn.benchmark
    outside = nn.Dropout()

    def measure():
        with undisturbed(module, outside):
            assert not any(item.training for item in (*module.modules(), outside))
            assert not torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            first = module.backbone(torch.randn(3, 4))
            assert torch.equal(module.backbone(torch.ones(2, 4)), module.backbone(torch.ones(2, 4)))
            assert not module.backbone.merged
            return first

    def fail():
        with undisturbed(module):
            module.backbone(torch.ones(2, 4))
            module.backbone(torch.ones(2, 5))

    measure()
    with pytest.raises(RuntimeError, match="running_mean should contain 5"):
        fail()
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert objects == [id(item) for item in module.buffers()]
    assert modes == [item.training for item in module.modules()]
    assert outside.training
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.backends.cudnn.benchmark == cudnn
    assert torch.is_grad_enabled()


def test_what_is_cached_in_a_first_forward_can_be_trained_with():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.table = None

        def forward(self, x):
            if self.table is None:
                self.table = torch.linspace(0, 1, 4) * 1.0
            return x * self.weight * self.table

    module = Module(backbone=Cached())
    with undisturbed(module):
        module.backbone(torch.ones(2, 4))
    module.backbone(torch.ones(2, 4)).sum().backward()
    assert module.backbone.weight.grad is not None


def test_compiled_code_runs_eagerly_and_is_not_compiled_again():
    compiled = []

    def backend(graph, example_inputs):
        compiled.append(1)
        return graph.forward

    module = Module(backbone=torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Dropout()), backend=backend))
    module.train()
    module.backbone(torch.ones(2, 4))
    with undisturbed(module):
        outputs = module.backbone(torch.ones(2, 4))
    module.backbone(torch.ones(2, 4))
    assert len(compiled) == 1
    assert torch.equal(outputs, module.backbone._orig_mod[0](torch.ones(2, 4)))


# ---- features --------------------------------------------------------------------------------------------------------


def read(module, batch, **options):
    options = {"backbone": None, "head": None, "feature_fn": None, **options}
    with undisturbed(module):
        return find_reader(module, **options)(module, batch)


X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("source", ["timm", "torchvision"])
@pytest.mark.parametrize("backbone", [None, "model"])
def test_features_before_a_head_inside_the_backbone(source, backbone):
    if source == "timm":
        model = pytest.importorskip("timm").create_model("resnet10t", num_classes=7)
        model.eval()
        expected = model.forward_head(model.forward_features(X), pre_logits=True)
    else:
        torchvision = pytest.importorskip("torchvision")
        model = torchvision.models.mobilenet_v2(num_classes=7).eval()
        expected = nn.functional.adaptive_avg_pool2d(model.features(X), 1).flatten(1)
    found = read(Module(model=model), (X, torch.zeros(2)), backbone=backbone)
    torch.testing.assert_close(found.features, expected)
    assert not any(item._forward_pre_hooks for item in model.modules())


def test_a_source_head_kept_in_the_module_gives_the_logits():
    module = Module(backbone=nn.Sequential(nn.Linear(3, 4), nn.ReLU()), head=nn.Linear(4, 2), old=nn.Linear(4, 9))
    x = torch.randn(5, 3)
    found = read(module, [x], backbone="backbone", head="old")
    torch.testing.assert_close(found.logits, module.old(module.backbone(x)).detach())
    outside = nn.Linear(4, 9).double()
    found = read(module, [x], backbone="backbone", head=outside)
    torch.testing.assert_close(found.logits, outside(module.backbone(x).double()).detach().float(), check_dtype=False)
    assert found.logits.dtype == torch.float64


def test_token_models_are_pooled_without_padding():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=20
    )
    module = Module(model=transformers.BertForSequenceClassification(config).eval())
    tokens = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])
    batch = {"input_ids": tokens, "attention_mask": (tokens > 0).long(), "labels": torch.tensor([0, 1])}
    outputs = module.model.bert(input_ids=tokens, attention_mask=batch["attention_mask"])
    states = outputs.last_hidden_state.detach()
    expected = torch.stack([states[0, :3].mean(0), states[1, :2].mean(0)])
    torch.testing.assert_close(read(module, batch, backbone="model.bert").features, expected)
    # With the classifier inside the backbone, features are what enters the classifier.
    torch.testing.assert_close(read(module, batch).features, outputs.pooler_output.detach())


class Shaped(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return torch.arange(float(np.prod(self.shape))).reshape(self.shape)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 5), None), ((2,), None), ((2, 4, 5), (1,)), ((2, 5, 3, 3), (2, 3)), ((2, 5, 2, 2, 2), (2, 3, 4))],
)
def test_pooling(shape, axes):
    raw = Shaped(*shape)(None)
    expected = raw.mean(axes) if axes else raw.reshape(2, -1)
    found = FeatureReader("backbone")(Module(backbone=Shaped(*shape)), X)
    torch.testing.assert_close(found.features, expected)


def test_frames_are_averaged_without_padding():
    class Encoder(nn.Module):
        def forward(self, x):
            return Frames(x, torch.tensor([2, 3, 0]))

    x = torch.randn(3, 3, 4)
    found = FeatureReader("backbone")(Module(backbone=Encoder()), x)
    torch.testing.assert_close(found.features, torch.stack([x[0, :2].mean(0), x[1].mean(0), torch.zeros(4)]))


@pytest.mark.parametrize("batch", [{"image": X, "label": torch.zeros(2)}, {"x": X}, ({"image": X}, torch.zeros(2))])
def test_dicts_reach_a_plain_forward(batch):
    class Plain(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    found = FeatureReader("backbone")(Module(backbone=Plain()), batch)
    torch.testing.assert_close(found.features, X.mean((2, 3)))


def test_dict_as_one_argument():
    class Both(nn.Module):
        def forward(self, inputs):
            return inputs["a"] + inputs["b"]

    found = FeatureReader("backbone")(Module(backbone=Both()), {"a": torch.ones(2, 3), "b": torch.ones(2, 3)})
    assert found.features.tolist() == [[2.0] * 3] * 2


def test_feature_fn_needs_no_backbone():
    module = Module(one=nn.Linear(3, 4), two=nn.Linear(3, 4))
    found = read(module, torch.ones(2, 3), feature_fn=lambda module, batch: module.one(batch) + module.two(batch))
    assert found.features.shape == (2, 4)


def test_batches_are_read_in_the_trainers_precision():
    plugin = lightning.pytorch.plugins.DoublePrecision()
    module = Module(backbone=nn.Linear(3, 4)).double()
    trainer = SimpleNamespace(precision_plugin=plugin)
    batches = [torch.ones(2, 3), torch.ones(1, 3)]
    found = read_outputs(FeatureReader("backbone"), module, trainer, batches)
    assert found.features.dtype == torch.float64
    assert found.features.shape == (3, 4)


def test_batches_are_read_under_the_trainers_autocast():
    trainer = SimpleNamespace(precision_plugin=lightning.pytorch.plugins.MixedPrecision("bf16-mixed", "cpu"))
    module, x = Module(backbone=nn.Linear(3, 4)), torch.randn(5, 3)
    found = read_outputs(FeatureReader("backbone"), module, trainer, [x])
    expected = nn.functional.linear(x.bfloat16(), module.backbone.weight.bfloat16(), module.backbone.bias.bfloat16())
    assert torch.equal(found.features, expected.float())
    assert not torch.equal(found.features, module.backbone(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "backbon"}, r"`backbon`.*`backbone`.*Did you mean `backbone`.*There are: backbone, other, head"),
        ({"head": "heat"}, r"`heat`.*Did you mean `head`"),
        ({"backbone": ("backbone", "other")}, r"Found 2 backbones \(backbone, other\)"),
    ],
)
def test_wrong_names(options, message):
    blocks = [nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2)]
    module = Module(backbone=blocks[0], other=blocks[1], head=nn.Linear(3, 2))
    with pytest.raises(MisconfigurationException, match=message):
        read(module, X, **options)


def test_an_explicit_backbone_needs_no_head_beside_it():
    module = Module(net=nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    x = torch.ones(2, 3)
    torch.testing.assert_close(read(module, x, backbone="net").features, module.net(x).detach())
    with pytest.raises(MisconfigurationException, match=r"did not find where the features are.*`net`.*feature_fn"):
        read(module, x)


def test_features_that_are_no_tensor():
    with pytest.raises(MisconfigurationException, match=r"got str.*feature_fn"):
        read(Module(), X, feature_fn=lambda module, batch: "features")


def test_a_head_that_is_not_called():
    module = Module(backbone=nn.Linear(3, 4), head=nn.Linear(4, 2))
    with pytest.raises(MisconfigurationException, match="did not call its head `head`"):
        FeatureReader("backbone", ("head",))(module, torch.ones(2, 3))
