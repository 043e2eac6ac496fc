"""Means and variances over views and checkpoints. Oracles: the members one by one, NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.errors import CheckpointError
from lightning_transfer.evaluation import Outputs, load
from lightning_transfer.evaluation.ensembles import Ensemble, join_outputs, load_ensemble, predict_views
from lightning_transfer.modules import FindingsModule
from lightning_transfer.modules.views import views_of
from lightning_transfer.types import Calibration, Record, Schema

CLASSES = ("Edema", "Mass")


def _save(folder: Path, seed: int, task: str = "multilabel", classes: tuple[str, ...] = CLASSES, **more: Any) -> Path:
    torch.manual_seed(seed)
    module = FindingsModule("timm/test_resnet", weights="random", **more)
    spec = ImagePreprocessing(size=(32, 32), channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    module.use_schema(Schema(task=task, classes=classes, preprocessing=spec.to_dict()))  # type: ignore[arg-type]
    module.configure_model()
    with torch.no_grad():
        module.head[-1].weight.mul_(20)  # type: ignore[index, union-attr, operator]
    module.calibration = Calibration(
        temperature=0.5 + seed, label_thresholds=(0.3, 0.7) if task == "multilabel" else ()
    )
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    folder.mkdir(parents=True)
    torch.save(checkpoint, folder / "model.ckpt")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    return [_save(root / str(seed), seed) for seed in range(3)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root, paths = tmp_path_factory.mktemp("pictures"), []
    for place in range(4):
        pixels = np.random.default_rng(place).integers(0, 256, (20 + place, 30, 3), dtype=np.uint8)
        paths.append(root / f"{place}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_members_are_averaged_after_their_own_temperature(runs: list[Path], pictures: list[Path]) -> None:
    ensemble = load_ensemble(runs)
    found = ensemble.predict(pictures, batch_size=3)
    each = np.array([[list(row.probabilities.values()) for row in load(run).predict(pictures)] for run in runs])
    for place, row in enumerate(found):
        np.testing.assert_allclose(list(row.prediction.probabilities.values()), each[:, place].mean(0), atol=1e-5)
        np.testing.assert_allclose(list(row.variance.values()), each[:, place].var(0), atol=1e-6)
        assert row.uncertainty == pytest.approx(each[:, place].std(0).max(), abs=1e-5)
        assert row.num_members == 3
        # Thresholds of members are not those of their mean.
        assert row.prediction.decision == row.prediction.predicted
        assert row.prediction.id == str(pictures[place])
    assert ensemble.predict([]) == []


def test_an_ensemble_is_calibrated_by_outputs_of_its_own(runs: list[Path], pictures: list[Path]) -> None:
    ensemble = load_ensemble(runs[:2])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, float("nan")], [0.0, 0.0]])
    outputs = ensemble.outputs(pictures, target)
    means = [list(row.prediction.probabilities.values()) for row in ensemble.predict(pictures)]
    np.testing.assert_allclose(outputs.logits.sigmoid(), means, atol=1e-5)
    calibrated = ensemble.calibrated(outputs)
    assert len(calibrated.calibration.label_thresholds) == 2
    assert ensemble.calibration.label_thresholds == ()
    again = calibrated.predict(pictures)[0].prediction.probabilities["Edema"]
    logit = outputs.logits[0, 0].item() / calibrated.calibration.temperature
    assert again == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-5)


def test_exclusive_and_binary_classes(tmp_path: Path, pictures: list[Path]) -> None:
    for task, classes in (("multiclass", ("a", "b", "c")), ("binary", ("none", "covid"))):
        runs = [_save(tmp_path / task / str(seed), seed, task, classes) for seed in range(2)]
        each = np.array([[list(row.probabilities.values()) for row in load(run).predict(pictures)] for run in runs])
        for place, row in enumerate(load_ensemble(runs).predict(pictures)):
            np.testing.assert_allclose(list(row.prediction.probabilities.values()), each[:, place].mean(0), atol=1e-5)
            np.testing.assert_allclose(list(row.variance.values()), each[:, place].var(0), atol=1e-6)


def test_what_is_no_ensemble_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 runs"):
        load_ensemble(runs[:1])
    with pytest.raises(ValueError, match="at least 2 runs"):
        load_ensemble(str(runs[0]))  # type: ignore[arg-type]
    other = _save(tmp_path / "other", 5, classes=("Mass", "Edema"))
    with pytest.raises(CheckpointError, match=r"Mass, Edema.*one task and the same classes in one order"):
        load_ensemble([runs[0], other])


def test_outputs_of_other_records_are_not_joined() -> None:
    one = Outputs(torch.zeros(2, 2), torch.zeros(2, 1), None, torch.tensor([0, 1]))
    other = Outputs(torch.zeros(2, 2), torch.zeros(2, 1), None, torch.tensor([0, 2]))
    schema = Schema(task="multilabel", classes=CLASSES)
    with pytest.raises(ValueError, match="outputs 1 are of other records"):
        join_outputs([one, other], schema)
    with pytest.raises(ValueError, match="at least one model"):
        join_outputs([], schema)


def test_views_of_each_picture_are_averaged(runs: list[Path], pictures: list[Path]) -> None:
    predictor = load(runs[0])
    records = [Record(f"r{place}", path) for place, path in enumerate(pictures)]
    found = predict_views(predictor, records, ["horizontal_flip", "scale"])
    for row, path in zip(found, pictures, strict=True):
        image = predictor.preprocess(path)[None]
        with torch.no_grad():
            seen = torch.stack([predictor.module(view)[0] for view in views_of(image, ["horizontal_flip", "scale"])])
        temperature = predictor.calibration.temperature
        # The mean is over the network's own probabilities, as a fit with these views takes it; temperature follows.
        mean = torch.logit(seen.double().sigmoid().mean(0)) / temperature
        np.testing.assert_allclose(list(row.prediction.probabilities.values()), mean.sigmoid(), atol=1e-5)
        variance = (seen.double() / temperature).sigmoid().var(0, unbiased=False)
        np.testing.assert_allclose(list(row.variance.values()), variance, atol=1e-5)
        assert row.num_members == 4
    assert [row.prediction.id for row in found] == ["r0", "r1", "r2", "r3"]
    assert predict_views(predictor, []) == []


def test_a_model_with_views_of_its_own_gives_its_own_answer_by_them(tmp_path: Path, pictures: list[Path]) -> None:
    predictor = load(_save(tmp_path / "run", 1, test_time_views=["shift"]))
    plain, found = predictor.predict(pictures), predict_views(predictor, pictures, ["shift"])
    for own, row in zip(plain, found, strict=True):
        for name in CLASSES:
            assert row.prediction.probabilities[name] == pytest.approx(own.probabilities[name], abs=1e-5)
        assert row.prediction.decision == own.decision
    assert predictor.module.test_time_views == ("shift",)


def test_views_are_of_whole_pictures(runs: list[Path], pictures: list[Path]) -> None:
    predictor = load(runs[0])
    with pytest.raises(ValueError, match="Unknown test-time view"):
        predict_views(predictor, pictures, ["flip"])
    from dataclasses import replace

    text = replace(predictor, schema=replace(predictor.schema, preprocessing={"kind": "text"}))
    with pytest.raises(CheckpointError, match="whole images"):
        predict_views(text, pictures)
    volumes = replace(predictor, preprocess=lambda item: torch.zeros(5, 3, 32, 32))
    with pytest.raises(CheckpointError, match="reads volumes"):
        predict_views(volumes, pictures)
    assert isinstance(load_ensemble(runs[:2]), Ensemble)
