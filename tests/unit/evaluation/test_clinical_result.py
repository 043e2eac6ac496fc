"""What the result of findings says of itself: names and plain values."""

import json

from lightning_transfer.evaluation.clinical_points import FindingPoint
from lightning_transfer.evaluation.clinical_result import AppliedPoint, ClinicalResult, FindingResult
from lightning_transfer.metrics import Interval

POINT = FindingPoint("Edema", "sensitivity", 0.95, 0.0, 0.95, 0.6, 20, 40, 18)
ITEM = Interval(0.9, 0.8, 0.95, 20, 18)
NOTHING = Interval(None, None, None, 0, 0, "no record with `Edema`")
RESULT = ClinicalResult(
    (FindingResult("Edema", 20, 40, 18, None, {"auroc": ITEM}, (AppliedPoint(POINT, {"ppv": NOTHING}),)),), 60, 50
)


def test_flat_names_the_point_and_the_finding() -> None:
    assert RESULT.flat() == {"auroc_Edema": ITEM, "ppv_at_sensitivity_0.95_Edema": NOTHING}


def test_plain_values_hold_everything_and_no_nan() -> None:
    plain = json.loads(json.dumps(RESULT.to_dict(), allow_nan=False))
    [finding] = plain["findings"]
    assert (plain["n"], plain["num_groups"], finding["num_positive_groups"]) == (60, 50, 18)
    [point] = finding["points"]
    assert point["probability"] == 0.5
    assert point["metrics"]["ppv"]["reason"] == "no record with `Edema`"
    assert finding["reliability"] is None
