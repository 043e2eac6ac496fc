"""What a user reads after a test."""

from dataclasses import replace

from lightning_transfer.evaluation.segmentation_terminal import format_segmentation
from lightning_transfer.metrics import Interval
from tests.unit.evaluation.test_segmentation_result import RESULT


def test_every_part_has_its_lines() -> None:
    text = format_segmentation(replace(RESULT, notes=("Few groups.",), num_unknown=3))
    assert "10 pictures of 5 groups, 4 of them show something" in text
    assert "hd95 (mm)" in text
    assert "n/a (nothing was met)" in text
    assert "+0.000 [-0.100, +0.100]" in text
    assert "a U-Net" in text
    assert "pit   4  0.500 [0.250, 0.750]" in text
    assert "missed  0.000      0     12" in text
    assert "3 pictures without a known mask are not judged" in text
    assert text.endswith("Note: Few groups.")


def test_a_baseline_that_was_not_run_has_no_numbers() -> None:
    gone = Interval(None, None, None, 10, reason="no weights")
    text = format_segmentation(replace(RESULT, baselines={"scratch": {"dice": gone}}, differences={}))
    assert "scratch      n/a   n/a" in text


def test_names_of_files_give_the_terminal_no_commands() -> None:
    worst = replace(RESULT.worst[0], id="a\x1b[31m")
    assert "\x1b" not in format_segmentation(replace(RESULT, worst=(worst,)))
