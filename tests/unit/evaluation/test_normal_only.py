"""What a normal-only model adds. Oracles: scikit-learn on all pixels, shares counted by hand."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from lightning_transfer.evaluation import Outputs, evaluate_localisation, recall_by_kind
from lightning_transfer.evaluation.normal_only_maps import image_map
from lightning_transfer.metrics import PixelCounts, count_pixels, region_overlap
from lightning_transfer.types import Calibration, Record, Schema

SCHEMA = Schema(
    task="binary",
    classes=("good", "defect"),
    negative_class="good",
    preprocessing={"kind": "image", "size": [32, 32], "pad": "none"},
)


@pytest.fixture
def split(tmp_path) -> tuple[dict[int, torch.Tensor], list[Record], list[np.ndarray]]:
    """Six images of different sizes, two good ones, and noisy distances that are higher at the defect."""
    generator = np.random.default_rng(0)
    grids, records, masks = {}, [], []
    for place in range(6):
        size = (30 + 2 * place, 40 - place)
        mask = np.zeros(size, dtype=bool)
        if place >= 2:
            mask[4 : 4 + 3 * place, 5:15] = True
        Image.new("L", (size[1], size[0])).save(tmp_path / f"{place}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{place}_mask.png")
        small = np.asarray(Image.fromarray(mask).resize((8, 8))).astype(float)
        grids[place] = torch.from_numpy(generator.random((8, 8)) + 0.7 * small).float()
        label = "defect" if place >= 2 else "good"
        kind = {"original_label": "pit" if place % 2 else "crack"} if place >= 2 else {}
        known = tmp_path / f"{place}_mask.png" if place >= 2 else None
        records.append(
            Record(str(place), tmp_path / f"{place}.png", label, group=f"g{place // 2}", meta=kind, mask=known)
        )
        masks.append(mask)
    return grids, records, masks


def test_pixel_metrics_are_those_of_all_pixels_at_their_images_size(split) -> None:
    grids, records, masks = split
    found = evaluate_localisation(grids, records, SCHEMA, sigma=1.0, n_resamples=50)
    maps = [image_map(grids[i], masks[i].shape, SCHEMA.preprocessing, 1.0) for i in range(6)]
    target, score = (np.concatenate([item.ravel() for item in items]) for items in (masks, maps))
    assert found["pixel_auroc"].value == pytest.approx(roc_auc_score(target, score), abs=1e-3)
    bins = np.unique(score)[1:]
    counts = PixelCounts.join([count_pixels(*pair, bins) for pair in zip(maps, masks, strict=True)])
    assert found["pro"].value == pytest.approx(region_overlap(np.ones((1, 6)), counts)[0], abs=2e-3)
    assert found["pro"].low <= found["pro"].value <= found["pro"].high
    assert (found["pro"].n, found["pro"].num_groups) == (6, 3)


def test_defects_without_mask_are_left_out_and_counted(split, caplog) -> None:
    grids, records, _ = split
    without = [replace(record, mask=None) if record.id in "35" else record for record in records]
    with caplog.at_level(logging.WARNING):
        found = evaluate_localisation(grids, without, SCHEMA, n_resamples=10)
    assert "2 defects have no mask" in caplog.text
    assert found["pixel_auroc"].n == 4
    left = {place: grids[place] for place in (0, 1, 2, 4)}
    assert found == evaluate_localisation(left, records, SCHEMA, n_resamples=10)


def test_undefined_has_a_reason(split) -> None:
    grids, records, _ = split
    bare = [replace(record, mask=None) for record in records]
    assert str(evaluate_localisation(grids, bare, SCHEMA)["pro"]) == "n/a (no defect has a mask)"
    assert "no maps" in evaluate_localisation({}, records, SCHEMA)["pixel_auroc"].reason
    tiled = replace(SCHEMA, preprocessing={**SCHEMA.preprocessing, "tiling": {"size": [8, 8]}})
    assert "tiles" in evaluate_localisation(grids, records, tiled)["pro"].reason


def test_recall_of_each_kind_is_a_share(split) -> None:
    _, records, _ = split
    # Of 2 to 5: crack, pit, crack, pit.
    logits = torch.tensor([[-1.0], [2.0], [3.0], [-2.0], [-0.5], [-3.0]])
    outputs = Outputs(logits, torch.zeros(6, 1), torch.tensor([0.0, 0, 1, 1, 1, 1]), torch.arange(6))
    found = recall_by_kind(outputs, records, SCHEMA, Calibration(temperature=2.0, threshold=0.6), n_resamples=100)
    assert list(found) == ["recall_at_threshold_crack", "recall_at_threshold_pit"]
    assert found["recall_at_threshold_crack"].value == 0.5
    assert found["recall_at_threshold_pit"].value == 0.0
    assert found["recall_at_threshold_crack"].n == 2
    assert recall_by_kind(outputs, records, SCHEMA, Calibration()) == {}
    plain = [replace(record, meta={}) for record in records]
    assert recall_by_kind(outputs, plain, SCHEMA, Calibration(threshold=0.5)) == {}
