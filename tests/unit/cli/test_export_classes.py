"""What the terminal shows of classifiers' exports; the steps are tested with images and texts, and in the recipes."""

from __future__ import annotations

from lightning_transfer.cli.export_classes import Latency

ROW = {"batch_size": 32, "runs": 50, "p50_ms_eager": 9.5, "p95_ms_eager": 12.0, "p50_ms_onnx": 3.0,
       "p95_ms_onnx": 4.25, "speedup_onnx": 3.17}  # fmt: skip


def test_the_table_of_times() -> None:
    lines = Latency([ROW]).text().splitlines()
    assert "median / 95th percentile" in lines[0]
    assert lines[1].split() == ["batch", "size", "eager", "onnx"]
    assert lines[2].split() == ["32", "9.50", "/", "12.00", "3.00", "/", "4.25"]
    assert lines[3] == "  Median of eager over theirs: batch of 32: onnx 3.2x"


def test_times_of_a_file_stand_beside_the_checkpoints() -> None:
    ours = {**ROW, "p50_ms_int8": 1.0, "p95_ms_int8": 2.0}
    assert Latency([ours, {}]).of("int8", "onnx") == {
        "p50_ms_eager": 9.5, "p95_ms_eager": 12.0, "p50_ms_onnx": 1.0, "p95_ms_onnx": 2.0,
    }  # fmt: skip
