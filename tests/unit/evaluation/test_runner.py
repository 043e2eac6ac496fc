from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_transfer.evaluation import Outputs, collect_features, collect_outputs, collect_transcripts
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Batch, ModelOutput, Record, Schema


class Module(nn.Module):
    """Dropout and batch norm, so that a forgotten eval mode shows."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.head = nn.Linear(6, 2)
        self.seen = []

    def predict_step(self, batch, batch_idx):
        self.seen.append((batch_idx, torch.is_inference_mode_enabled(), self.training))
        features = self.backbone(batch.input)
        return ModelOutput(self.head(features), features, batch.target, batch.index)


def batches(x, order, size=4, target=None):
    order = torch.tensor(order)
    return [Batch(x[part], None if target is None else target[part], part) for part in torch.split(order, size)]


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Module()


def test_outputs_come_in_the_records_order_each_once(module):
    x, target = torch.randn(6, 3), torch.arange(6)
    # As a distributed sampler gives them: shuffled, and two repeated.
    outputs = collect_outputs(module, batches(x, [5, 3, 0, 1, 4, 2, 5, 3], target=target), show_progress=False)
    module.eval()
    with torch.no_grad():
        features = module.backbone(x)
        assert torch.equal(outputs.index, torch.arange(6))
        torch.testing.assert_close(outputs.features, features)
        torch.testing.assert_close(outputs.logits, module.head(features))
    assert torch.equal(outputs.target, target)
    assert len(outputs) == 6


def test_order_and_batch_size_do_not_matter(module):
    x = torch.randn(7, 3)
    one = collect_outputs(module, batches(x, range(7), size=7), show_progress=False)
    other = collect_outputs(module, batches(x, [6, 2, 4, 0, 1, 3, 5], size=2), show_progress=False)
    torch.testing.assert_close(one.logits, other.logits)


def test_steps_run_in_eval_and_inference_mode_with_their_number(module):
    collect_outputs(module.train(), batches(torch.randn(5, 3), range(5)), show_progress=False)
    assert module.seen == [(0, True, False), (1, True, False)]


def test_modes_of_all_parts_are_put_back_also_after_an_error(module):
    module.train()
    module.backbone[1].eval()
    # As a frozen part: it refuses to train.
    module.backbone[2].train = lambda mode=True: module.backbone[2]
    before = {part: part.training for part in module.modules()}
    statistics = module.backbone[1].running_mean.clone()
    collect_outputs(module, batches(torch.randn(5, 3), range(5)), show_progress=False)
    assert {part: part.training for part in module.modules()} == before
    assert torch.equal(module.backbone[1].running_mean, statistics)
    with pytest.raises(RuntimeError, match="mat1"):
        collect_outputs(module, batches(torch.randn(5, 99), range(5)), show_progress=False)
    assert {part: part.training for part in module.modules()} == before


def test_outputs_can_be_computed_with_afterwards(module):
    outputs = collect_outputs(module, batches(torch.randn(5, 3), range(5)), show_progress=False)
    weight = torch.ones(2, requires_grad=True)
    (outputs.logits * weight).sum().backward()
    assert weight.grad is not None


def test_dict_inputs_reach_the_module():
    class Tokens(Module):
        def predict_step(self, batch, batch_idx):
            return super().predict_step(batch._replace(input=batch.input["x"]), batch_idx)

    loader = [Batch({"x": torch.randn(2, 3)}, None, torch.arange(2))]
    outputs = collect_outputs(Tokens(), loader, device="cpu", show_progress=False)
    assert outputs.target is None
    assert outputs.logits.shape == (2, 2)


def test_half_precision_comes_back_as_float(module):
    loader = [Batch(torch.randn(2, 3).bfloat16(), None, torch.arange(2))]
    outputs = collect_outputs(module.bfloat16(), loader, show_progress=False)
    assert outputs.logits.dtype == outputs.features.dtype == torch.float32


def test_features_of_a_bare_backbone(module):
    x = torch.randn(5, 3)
    outputs = collect_features(
        module.backbone.train(), batches(x, [4, 0, 1, 3, 2], target=torch.arange(5)), show_progress=False
    )
    assert outputs.logits.shape == (5, 0)
    assert torch.equal(outputs.target, torch.arange(5))
    assert module.backbone.training
    torch.testing.assert_close(outputs.features, module.backbone.eval()(x))


def test_other_logits_need_the_same_records():
    outputs = Outputs(torch.zeros(3, 2), torch.zeros(3, 4), None, torch.arange(3))
    assert outputs.with_logits(torch.ones(3, 2).double()).logits.dtype == torch.float32
    with pytest.raises(ValueError, match="3 records, got 4"):
        outputs.with_logits(torch.ones(4, 2))


def test_no_batches():
    with pytest.raises(ValueError, match="0 batches"):
        collect_outputs(Module(), [], show_progress=False)


def test_labels_of_some_batches_only():
    one = ModelOutput(torch.zeros(1, 2), torch.zeros(1, 2), None, torch.tensor([0]))
    with pytest.raises(ValueError, match="1 of 2 batches"):
        Outputs.from_batches([one, one._replace(target=torch.tensor([1]))])


def test_something_that_is_no_module():
    with pytest.raises(TypeError, match="got object"):
        collect_outputs(object(), [])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_move_and_the_module_returns_home(module):
    x = torch.randn(5, 3)
    expected = collect_outputs(module, batches(x, range(5)), show_progress=False)
    outputs = collect_outputs(module, batches(x, range(5)), device="cuda", show_progress=False)
    assert next(module.parameters()).device.type == "cpu"
    assert outputs.logits.device.type == "cpu"
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("schema", "labels", "expected"),
    [
        (Schema(task="multiclass", classes=("a", "b")), ("b", "a"), torch.tensor([1, 0])),
        (Schema(task="binary", classes=("a", "b")), ("b", "a"), torch.tensor([1.0, 0.0])),
        (Schema(task="multilabel", classes=("a", "b")), ((1.0, 0.0), (0.0, 1.0)), torch.eye(2)),
        (Schema(task="multiclass", classes=("a", "b")), (None, None), None),
    ],
)
def test_labels_alone_are_what_a_run_would_give(schema, labels, expected):
    records = [Record(str(place), None, label) for place, label in enumerate(labels)]
    outputs = Outputs.from_labels(records, schema)
    assert outputs.index.tolist() == [0, 1]
    assert (outputs.target is None) if expected is None else torch.equal(outputs.target, expected)


def test_labels_of_some_records_only_are_an_error():
    with pytest.raises(ValueError, match="Only 1 of 2 records have labels"):
        Outputs.from_labels([Record("1", None, "a"), Record("2", None)], Schema(task="multiclass", classes=("a", "b")))


def test_some_records_stay_in_order_with_all_that_belongs_to_them():
    outputs = Outputs(torch.arange(8.0).reshape(4, 2), torch.ones(4, 1), torch.arange(4), torch.tensor([1, 3, 5, 7]))
    found = outputs.only([7, 3, 4])
    assert found.index.tolist() == [3, 7]
    assert found.logits.tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert found.target.tolist() == [1, 3]
    assert Outputs(outputs.logits, outputs.features, None, outputs.index).only([1]).target is None


def test_transcripts_of_all_batches_in_one_list(module):
    class Hears(Module):
        def transcribe(self, batch: Batch) -> list[Transcript]:
            assert not self.training
            return [
                Transcript(place, f"{value:g}", None, 1.0)
                for place, value in zip(batch.index.tolist(), batch.input[:, 0], strict=True)
            ]

    hears = Hears().train()
    batches = [
        Batch(torch.full((2, 3), 4.0), None, torch.tensor([3, 1])),
        Batch(torch.ones(1, 3), None, torch.tensor([0])),
    ]
    found = collect_transcripts(hears, batches, show_progress=False)
    assert [(item.index, item.text) for item in found] == [(3, "4"), (1, "4"), (0, "1")]
    assert hears.training
    with pytest.raises(TypeError, match="got object"):
        collect_transcripts(object(), batches)
