import time

import numpy as np
import pytest
import torch

from lightning_transfer.export import latency
from lightning_transfer.export.latency import measure_latency, timed_run
from tests.unit.export.export_toys import SIZE

IMAGES = np.random.default_rng(0).normal(size=(2, 3, *SIZE)).astype(np.float32)


def test_models_take_turns_on_the_same_images_of_each_size():
    calls = []
    runs = {name: lambda images, name=name: calls.append((name, images.shape, images[-1].sum())) for name in "ab"}
    rows = measure_latency(runs, IMAGES, batch_sizes=[1, 5])
    assert [(row["batch_size"], row["runs"]) for row in rows] == [(1, 50), (5, 50)]
    for size in (1, 5):
        timed = [name for name, shape, _ in calls if shape == (size, 3, *SIZE)][2 * latency._WARM_UP :]
        assert timed == ["a", "b"] * 50
    last = {shape[0]: total for _, shape, total in calls}
    assert last == pytest.approx({1: IMAGES[0].sum(), 5: IMAGES[0].sum()})


def test_percentiles_are_those_of_the_clock(monkeypatch):
    """A clock that says that the n-th run took n milliseconds."""
    now = [0.0]

    def run(images):
        run.count += 1
        now[0] += 1e-3 * max(0, run.count - latency._WARM_UP)

    run.count = 0
    monkeypatch.setattr(latency, "_CLOCK", lambda: now[0])
    [row] = measure_latency({"onnx": run}, IMAGES, batch_sizes=[2])
    expected = np.arange(1, 51)
    assert row["p50_ms_onnx"] == pytest.approx(np.percentile(expected, 50))
    assert row["p95_ms_onnx"] == pytest.approx(np.percentile(expected, 95))


def test_a_slow_model_runs_less_often_but_ten_times():
    [row] = measure_latency({"slow": lambda images: time.sleep(0.002)}, IMAGES, batch_sizes=[1], seconds=0.0)
    assert row["runs"] == 10


def test_one_thread_and_the_number_is_put_back_after_an_error():
    threads = torch.get_num_threads()
    seen = []
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError):
            measure_latency({"eager": lambda images: seen.append(torch.get_num_threads()) or 1 / 0}, IMAGES)
        assert seen == [1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_batches_of_texts_are_timed_in_turn_the_same_by_every_model():
    calls = []
    runs = {name: lambda batch, name=name: calls.append((name, batch)) for name in "ab"}
    [row] = measure_latency(runs, lambda size: [f"{size}:{place}" for place in range(3)], batch_sizes=[4])
    timed = calls[2 * latency._WARM_UP :]
    assert timed[:8] == [(name, f"4:{place}") for place in (0, 1, 2, 0) for name in "ab"]
    assert row["runs"] == 50


def test_the_speedup_is_that_of_the_medians():
    now = [0.0]

    def taking(seconds):
        def run(batch):
            now[0] += seconds

        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "_CLOCK", lambda: now[0])
        [row] = measure_latency({"eager": taking(0.006), "onnx": taking(0.002)}, IMAGES, batch_sizes=[1])
    assert row["speedup_onnx"] == pytest.approx(3.0)
    assert "speedup_eager" not in row


def test_what_is_timed_is_the_model(exported):
    found = torch.from_numpy(timed_run(exported.onnx)(IMAGES))
    torch.testing.assert_close(found, exported.module(torch.from_numpy(IMAGES)).detach(), rtol=0, atol=1e-4)


def test_the_real_time_factor_is_time_over_sound_and_padding_is_no_sound():
    now, calls = [0.0], []

    def taking(name, seconds):
        def run(batch):
            calls.append((name, batch))
            now[0] += seconds * len(batch)

        return run

    def batches(size):
        return [("x" * size, 2.0 * size), ("yy" * size, 4.0 * size), ("z" * size, 1.0 * size)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "_CLOCK", lambda: now[0])
        runs = {"eager": taking("eager", 0.06), "onnx": taking("onnx", 0.02)}
        one, eight = latency.measure_real_time(runs, batches, batch_sizes=(1, 8))
    assert calls[2:8] == [(name, batch) for batch in ("x", "yy", "z") for name in ("eager", "onnx")]
    assert (one["runs"], one["seconds_of_sound"], eight["seconds_of_sound"]) == (3, 7.0, 56.0)
    for row in (one, eight):
        assert row["real_time_factor_eager"] == pytest.approx(0.06 * 4 / 7)
        assert row["real_time_factor_onnx"] == pytest.approx(0.02 * 4 / 7)
        assert row["speedup_onnx"] == pytest.approx(3.0)


def test_slow_models_are_timed_on_fewer_batches():
    now = [0.0]

    def slow(batch):
        now[0] += 5.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "_CLOCK", lambda: now[0])
        many = [(None, 1.0)] * 30
        [row] = latency.measure_real_time({"eager": slow}, lambda size: many, batch_sizes=[1], seconds=22.0)
        assert row["runs"] == 5
        [row] = latency.measure_real_time({"eager": slow}, lambda size: many, batch_sizes=[1], seconds=1.0)
        assert row["runs"] == 3
        [row] = latency.measure_real_time({"eager": lambda batch: None}, lambda size: many * 2, batch_sizes=[1])
        assert row["runs"] == 40
