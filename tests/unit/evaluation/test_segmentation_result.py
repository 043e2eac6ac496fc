"""All of it as plain values."""

import json
from pathlib import Path

from lightning_transfer.evaluation.segmentation_result import KindScore, SegmentationResult, WorstMask
from lightning_transfer.metrics import Interval

ITEM = Interval(0.5, 0.25, 0.75, n=10, num_groups=5)
RESULT = SegmentationResult(
    metrics={"dice": ITEM, "hd95": Interval(None, None, None, 0, reason="nothing was met")},
    n=10,
    num_groups=5,
    classes=("good", "pit"),
    unit="mm",
    num_shown=4,
    baselines={"unet": {"dice": ITEM}},
    differences={"unet": {"dice": Interval(0.0, -0.1, 0.1, 10)}},
    descriptions={"unet": "a U-Net"},
    kinds=(KindScore("pit", 4, {"dice": ITEM}),),
    worst=(WorstMask("a", "a.png", "pit", "missed", 0.0, 0, 12, "masks/a.png"),),
)


def test_metrics_are_flat_and_whole(tmp_path: Path) -> None:
    found = json.loads(RESULT.write_json(tmp_path / "metrics.json").read_text())
    assert found["dice"]["low"] == 0.25
    assert found["hd95"] == {"value": None, "low": None, "high": None, "n": 0, "num_groups": None,
                             "reason": "nothing was met"}  # fmt: skip
    assert found["dice_of_unet"]["value"] == 0.5
    assert found["dice_minus_unet"]["low"] == -0.1


def test_everything_survives_json() -> None:
    found = json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))
    assert found["task"] == "segmentation"
    assert found["headline"] == "dice"
    assert found["unit"] == "mm"
    assert found["kinds"] == [{"kind": "pit", "n": 4, "metrics": {"dice": ITEM.to_dict()}}]
    assert found["worst_masks"][0]["shown"] == 12
    assert found["slices"] == []
