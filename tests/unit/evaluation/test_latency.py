from __future__ import annotations

import json
import time
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from lightning_transfer.evaluation import measure_latency
from lightning_transfer.evaluation.latency import live_bytes


class Slow(nn.Module):
    """Takes at least 5 ms a pass, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[Tensor] = []
        self.was_training: set[bool] = set()

    def forward(self, value: Tensor | dict[str, Tensor]) -> Tensor:
        items = value["items"] if isinstance(value, dict) else value
        self.seen.append(items)
        self.was_training.add(self.dropout.training)
        assert not torch.is_grad_enabled()
        time.sleep(0.005)
        return self.dropout(self.layer(items))


def test_times_are_at_least_what_a_pass_takes_and_throughput_is_their_inverse() -> None:
    module = Slow()
    found = measure_latency(module, torch.zeros(3, 2), [1, 8], max_seconds=0.2, size_bytes=2_500_000)
    assert [row.batch_size for row in found.rows] == [1, 8]
    for row in found.rows:
        assert row.p50_ms >= 5.0
        assert row.p95_ms is None or row.p95_ms >= row.p50_ms
        assert row.items_per_s <= row.batch_size / 0.005
    assert found.num_parameters == 6
    assert found.size_mb == 2.5
    assert found.threads == torch.get_num_threads()
    assert found.device == "cpu"


def test_batches_repeat_the_items_in_turn_and_warm_up_is_not_counted() -> None:
    module = Slow()
    items = torch.arange(6.0).reshape(3, 2)
    found = measure_latency(module, {"items": items}, [8], max_seconds=0.05)
    assert all(torch.equal(seen, items[[0, 1, 2, 0, 1, 2, 0, 1]]) for seen in module.seen)
    # One more pass measures the memory.
    assert found.rows[0].runs <= len(module.seen) - 2
    cut = Slow()
    measure_latency(cut, items, [1], max_seconds=0.01)
    assert torch.equal(cut.seen[0], items[:1])


def test_few_passes_have_no_95th_percentile() -> None:
    assert measure_latency(Slow(), torch.zeros(1, 2), [1], max_seconds=0.02).rows[0].p95_ms is None
    fast = measure_latency(nn.Linear(2, 2), torch.zeros(1, 2), [1], max_seconds=5.0)
    assert fast.rows[0].runs == 100
    assert fast.rows[0].p95_ms >= fast.rows[0].p50_ms


def test_modes_gradients_and_context_are_as_they_were() -> None:
    module = Slow()
    module.layer.eval()
    inside: list[bool] = []

    @contextmanager
    def context():
        inside.append(True)
        yield

    measure_latency(module, torch.zeros(1, 2), [1], max_seconds=0.01, context=context)
    assert module.was_training == {False}
    assert (module.training, module.layer.training, module.dropout.training) == (True, False, True)
    assert inside == [True]


@pytest.mark.parametrize(
    ("sizes", "example"), [([], torch.zeros(1, 2)), ([0], torch.zeros(1, 2)), ([1], torch.zeros(0, 2))]
)
def test_what_cannot_be_timed_is_refused(sizes: list[int], example: Tensor) -> None:
    with pytest.raises(ValueError, match=r"got \[\]|got \[0\]|shape \(0, 2\)"):
        measure_latency(Slow(), example, sizes)


def test_peak_memory_is_weights_and_the_tensors_alive_at_once() -> None:
    layers = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
    weights = 4 * (8 * 4 + 4 + 4 * 2 + 2)
    # Of the largest batch: input and output of the activation, 4 floats an item each.
    found = measure_latency(layers, torch.zeros(1, 8), [5, 1], max_seconds=0.01)
    assert found.peak_memory_mb * 1e6 == pytest.approx(weights + 5 * 2 * 4 * 4)
    assert "batch of 5" in found.peak_memory


def test_freed_tensors_views_and_work_in_place_are_not_counted_twice() -> None:
    class Steps(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            for _ in range(10):
                value = value + 1  # a new tensor; the one before is freed
            value.mul_(2)
            return value.reshape(-1)[:3]

    with torch.inference_mode():
        assert live_bytes(Steps(), torch.zeros(100)) == 2 * 400
        assert live_bytes(nn.Flatten(), torch.zeros(10, 2, 2)) == 0


def test_latency_is_plain_json() -> None:
    values = measure_latency(Slow(), torch.zeros(1, 2), [1], max_seconds=0.01).to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == {**values, "rows": list(values["rows"])}
    assert set(values["rows"][0]) == {"batch_size", "p50_ms", "p95_ms", "items_per_s", "runs"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_passes_are_waited_for_and_memory_is_the_allocators() -> None:
    module = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(20)))
    found = measure_latency(module, torch.zeros(1, 2048), [4096], device="cuda", max_seconds=1.0)
    weights = sum(item.numel() * 4 for item in module.parameters())
    assert found.peak_memory_mb * 1e6 >= weights
    # 20 products of 4096 x 2048 x 2048 take more than half a millisecond on any device of today; launches take less.
    assert found.rows[0].p50_ms > 0.5
    assert next(module.parameters()).device.type == "cpu"


class Tokens(nn.Module):
    """Notes the shape of each batch of texts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, value: dict[str, Tensor]) -> Tensor:
        self.seen.append(value)
        return self.layer(value["attention_mask"].float().sum(dim=1, keepdim=True))


def padded(lengths: list[int]) -> dict[str, Tensor]:
    """Each text's ids are its own length."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": mask * torch.tensor(lengths)[:, None], "attention_mask": mask.long()}


def test_texts_are_timed_in_turn_each_batch_padded_to_its_own_longest() -> None:
    lengths = [2, 3, 5, 9, 30, 64]
    module = Tokens()
    measure_latency(module, padded(lengths), [1], max_seconds=5.0)
    for value in module.seen:
        assert value["input_ids"].shape == value["attention_mask"].shape == (1, int(value["input_ids"][0, 0]))
    widths = [value["input_ids"].shape[1] for value in module.seen]
    assert sorted(set(widths)) == lengths
    # Not shortest first: time may be over before the long ones had a turn.
    assert widths[2:8] != lengths
    together = Tokens()
    measure_latency(together, padded(lengths), [4], max_seconds=0.01)
    for value in together.seen:
        assert value["input_ids"].shape == (4, int(value["attention_mask"].sum(dim=1).max()))


def test_memory_is_that_of_the_longest_texts() -> None:
    # Of the longest: the mask as floats, and its sum.
    found = measure_latency(Tokens(), padded([2, 50, 7]), [1], max_seconds=0.01)
    assert found.peak_memory_mb * 1e6 == pytest.approx(8 + 4 * (50 + 1))


def test_texts_keep_their_chunks() -> None:
    example = {**padded([4, 6, 2, 5]), "chunk_of": torch.tensor([0, 0, 1, 2])}
    module = Tokens()
    measure_latency(module, example, [1, 2], max_seconds=1.0)
    rows = {tuple(value["input_ids"][:, 0].tolist()): value["chunk_of"].tolist() for value in module.seen}
    assert rows[(4, 6)] == [0, 0]
    assert rows[(2,)] == rows[(5,)] == [0]
    assert all(owners == sorted(owners) and owners[0] == 0 for owners in rows.values())
    assert {len(set(owners)) for owners in rows.values()} == {1, 2}
