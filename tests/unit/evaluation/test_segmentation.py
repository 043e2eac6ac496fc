"""Oracles: scikit-learn on all pixels; the bootstrap of the same draws by hand; closed forms."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from lightning_transfer import metrics
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.segmentation import MaskRow, evaluate_segmentation
from lightning_transfer.evaluation.segmentation_judge import judge_mask
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record, Schema
from tests.unit.evaluation.mask_toys import SCHEMA, judged, logits_of, pictures

RECORDS, TARGETS = pictures()
LOGITS = [logits_of(target, 1.0, 1 + place) for place, target in enumerate(TARGETS)]
DRAWN = np.stack([item.argmax(axis=0) for item in LOGITS])
TRUTH = np.stack(TARGETS)
SHOWS = TRUTH.any(axis=(1, 2))


@pytest.fixture(scope="module")
def result():
    rows = {"other": MaskRow(judged(TARGETS, 3.0, 99), "more noise"), "gone": MaskRow(None, "no weights")}
    return evaluate_segmentation(judged(TARGETS), RECORDS, SCHEMA, baselines=rows, n_resamples=200, num_unknown=2)


def test_overlap_is_that_of_all_pixels(result) -> None:
    assert result.metrics["dice"].value == pytest.approx(f1_score(TRUTH.ravel(), DRAWN.ravel()))
    assert result.metrics["iou"].value == pytest.approx(jaccard_score(TRUTH.ravel(), DRAWN.ravel()))
    each = [f1_score(a.ravel(), b.ravel()) for a, b in zip(TRUTH[SHOWS], DRAWN[SHOWS], strict=True)]
    assert result.metrics["image_dice"].value == pytest.approx(np.mean(each))
    assert result.metrics["image_dice"].n == SHOWS.sum()


def test_ranking_is_scikit_learns(result) -> None:
    odds = np.stack([item[1] - item[0] for item in LOGITS])
    wanted = roc_auc_score(TRUTH.ravel(), odds.ravel())
    assert result.metrics["pixel_auroc"].value == pytest.approx(wanted, abs=2e-3)  # counted into bins
    assert result.metrics["image_auroc"].value == pytest.approx(roc_auc_score(SHOWS, odds.max(axis=(1, 2))))
    pit = np.array([record.label in ("good", "pit") for record in RECORDS])
    wanted = roc_auc_score(TRUTH[pit].ravel(), odds[pit].ravel())
    assert result.metrics["pixel_auroc_on_pit"].value == pytest.approx(wanted, abs=2e-3)


def test_distance_is_the_mean_over_pictures_with_both(result) -> None:
    found = [metrics.hausdorff95(a == 1, b == 1) for a, b in zip(DRAWN, TRUTH, strict=True)]
    assert result.metrics["hd95"].value == pytest.approx(np.nanmean(found))
    assert result.metrics["hd95"].n == np.isfinite(found).sum()


def test_missed_and_false_are_shares_of_pictures(result) -> None:
    hit = ((DRAWN == 1) & (TRUTH == 1)).any(axis=(1, 2))
    assert result.metrics["missed_rate"].value == pytest.approx((~hit[SHOWS]).mean())
    drawn = DRAWN.any(axis=(1, 2))
    assert result.metrics["false_alarm_rate"].value == pytest.approx(drawn[~SHOWS].mean())
    assert result.metrics["false_alarm_rate"].n == (~SHOWS).sum()


def test_kinds_are_judged_alone(result) -> None:
    assert [(item.kind, item.n) for item in result.kinds] == [("crack", 10), ("pit", 10)]
    crack = np.array([record.label == "crack" for record in RECORDS])
    wanted = f1_score(TRUTH[crack].ravel(), DRAWN[crack].ravel())
    assert result.kinds[0].metrics["dice"].value == pytest.approx(wanted)


def test_whole_groups_are_drawn(result) -> None:
    """By hand: the same draws, over groups, of the sums of pixels."""
    groups = [record.group for record in RECORDS]
    both = ((DRAWN == 1) & (TRUTH == 1)).sum(axis=(1, 2))
    mass = (DRAWN == 1).sum(axis=(1, 2)) + (TRUTH == 1).sum(axis=(1, 2))
    own = metrics.cluster_bootstrap(lambda w: 2 * (w @ both) / (w @ mass), groups, n_resamples=200)
    found = result.metrics["dice"]
    assert (found.low, found.high, found.num_groups) == pytest.approx((own.low, own.high, 10))


def test_differences_are_paired(result) -> None:
    found = result.differences["other"]["dice"]
    value = result.metrics["dice"].value - result.baselines["other"]["dice"].value
    assert found.value == pytest.approx(value)
    assert found.low > 0
    assert "hd95" not in result.differences["other"]
    assert result.baselines["gone"]["dice"].reason == "no weights"
    assert "gone" not in result.differences


def test_the_flat_form_is_free_of_nan_and_names_baselines(result) -> None:
    flat = json.loads(json.dumps(result.flat(), allow_nan=False))
    assert {"dice", "dice_of_other", "dice_minus_other", "dice_of_gone", "pro_on_crack"} <= set(flat)
    json.dumps(result.to_dict(), allow_nan=False)


def test_slices_are_dice_by_column(result) -> None:
    rows = {item.value: item for item in result.slices.slices if item.column == "site"}
    mask = np.array([record.meta["site"] == "a" for record in RECORDS])
    wanted = f1_score(TRUTH[mask].ravel(), DRAWN[mask].ravel())
    assert rows["a"].metrics["dice"].value == pytest.approx(wanted)


def test_several_classes_have_a_row_each() -> None:
    schema = Schema(task="segmentation", classes=("good", "pit", "crack"), preprocessing=SCHEMA.preprocessing)
    targets = [2 * one if record.label == "crack" else one for one, record in zip(TARGETS, RECORDS, strict=True)]
    rng = np.random.default_rng(0)
    logits = [
        (3.0 * np.stack([one == name for name in range(3)]) + rng.standard_normal((3, *one.shape))).astype(np.float32)
        for one in targets
    ]
    rows = [judge_mask(place, *pair) for place, pair in enumerate(zip(logits, targets, strict=True))]
    found = evaluate_segmentation(rows, RECORDS, schema, n_resamples=20, slices=[])
    flat = np.stack(targets).ravel(), np.stack([one.argmax(0) for one in logits]).ravel()
    _, pit, crack = f1_score(*flat, average=None)
    assert found.metrics["dice_pit"].value == pytest.approx(pit)
    assert found.metrics["dice_crack"].value == pytest.approx(crack)
    assert found.metrics["dice"].value == pytest.approx((pit + crack) / 2)
    assert {"hd95_pit", "image_dice_crack", "iou_pit"} <= set(found.metrics)


def test_slices_of_a_volume_are_one() -> None:
    records = [Record(str(place), ImagePart(f"v{place // 6}.nii", place % 6)) for place in range(len(TARGETS))]
    found = evaluate_segmentation(judged(TARGETS), records, SCHEMA, n_resamples=20, slices=[])
    per = [f1_score(TRUTH[i : i + 6].ravel(), DRAWN[i : i + 6].ravel()) for i in range(0, 30, 6)]
    assert found.metrics["volume_dice"].value == pytest.approx(np.mean(per))
    assert found.num_groups == 5  # without a known patient, a volume is drawn as a whole


def test_without_anything_shown_there_is_a_reason() -> None:
    targets = [0 * TARGETS[0]] * 4
    found = evaluate_segmentation(judged(targets, 0.0), RECORDS[:4], SCHEMA, n_resamples=20, slices=[])
    for name in ("dice", "hd95", "pixel_auroc", "pro", "image_auroc", "missed_rate"):
        assert found.metrics[name].value is None
        assert found.metrics[name].reason == "no picture shows anything but the background", name
    assert found.metrics["false_alarm_rate"].value == 0
    assert found.metrics["false_alarm_rate"].high > 0.3  # none of few says little


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(TransferError, match="None of the 3 records has a mask"):
        evaluate_segmentation([], RECORDS, SCHEMA, num_unknown=3)
    with pytest.raises(TransferError, match="`other` was run on other records"):
        evaluate_segmentation(judged(TARGETS), RECORDS, SCHEMA, baselines={"other": MaskRow(judged(TARGETS)[1:], "")})
