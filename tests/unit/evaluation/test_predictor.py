from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.data.scan_options import ScanOptions
from lightning_transfer.data.scan_preprocessing import ScanPreprocessing
from lightning_transfer.data.tiling import Tiling
from lightning_transfer.errors import CheckpointError, DataError
from lightning_transfer.evaluation import (
    EXAMPLES_KEY,
    ROUTING_KEY,
    Outputs,
    RoutingPolicy,
    TrainingExamples,
    load,
    predictions,
)
from lightning_transfer.modules import ClassificationModule
from lightning_transfer.modules.transfer import CHECKPOINT_KEY
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Batch, Calibration, OperatingPoint, Record, Schema

CLASSES = ("crack", "free", "pit")


def save(path, module):
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder as a fit leaves it, and the module that was trained."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    module = ClassificationModule("timm/test_resnet", weights="random")
    spec = ImagePreprocessing(size=(32, 32), channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    module.use_schema(Schema(task="multiclass", classes=CLASSES, negative_class="free", preprocessing=spec.to_dict()))
    module.configure_model()
    module.calibration = Calibration(temperature=0.5, threshold=0.66, rule="by hand", n=7)
    module.eval()
    save(folder / "model.ckpt", module)
    return folder, module, spec


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for place in range(5):
        pixels = np.random.default_rng(place).integers(0, 256, (20 + place, 30, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_predictions_equal_the_trained_modules(run, pictures):
    folder, module, spec = run
    found = load(folder).predict(pictures, batch_size=2)
    with torch.no_grad():
        logits = module(torch.stack([spec(path) for path in pictures]))
    probs = torch.softmax(logits.double() / 0.5, dim=1)
    assert [row.id for row in found] == [str(path) for path in pictures]
    for row, share in zip(found, probs, strict=True):
        assert list(row.probabilities) == list(CLASSES)
        torch.testing.assert_close(torch.tensor(list(row.probabilities.values())).double(), share, rtol=1e-4, atol=1e-5)
        assert row.predicted == CLASSES[int(share.argmax())]
        assert row.score == pytest.approx(1 - float(share[1]), abs=1e-5)
        others = {"crack": share[0], "pit": share[2]}
        assert row.decision == (max(others, key=others.get) if row.score >= 0.66 else "free")


@pytest.mark.parametrize("batch_size", [1, 5])
def test_an_image_is_judged_by_its_tiles(pictures, tmp_path, batch_size):
    torch.manual_seed(0)
    module = ClassificationModule("timm/test_resnet", weights="random")
    spec = ImagePreprocessing((32, 32), 3, (0.5,) * 3, (0.25,) * 3, tiling=Tiling((16, 16), overlap=4, top_k=2))
    module.use_schema(Schema(task="multiclass", classes=CLASSES, negative_class="free", preprocessing=spec.to_dict()))
    module.configure_model()
    module.eval()
    save(tmp_path / "model.ckpt", module)
    found = load(tmp_path).predict(pictures, batch_size=batch_size)
    assert [row.id for row in found] == [str(path) for path in pictures]
    for row, path in zip(found, pictures, strict=True):
        with torch.no_grad():
            tiles = torch.softmax(module(spec.tiles(path)).double(), dim=1)
        share = tiles[tiles[:, 1].argsort()[:2]].mean(dim=0)
        torch.testing.assert_close(torch.tensor(list(row.probabilities.values())).double(), share, rtol=1e-4, atol=1e-5)


def test_checkpoint_alone_is_enough_and_holds_everything(run, pictures, tmp_path):
    folder, _, _ = run
    moved = tmp_path / "elsewhere.ckpt"
    moved.write_bytes((folder / "model.ckpt").read_bytes())
    predictor = load(str(moved))
    assert predictor.path == moved
    assert predictor.schema.classes == CLASSES
    assert predictor.calibration == Calibration(0.5, 0.66, "by hand", 7)
    assert not predictor.module.training
    assert predictor.predict(pictures) == load(folder).predict(pictures)


def test_the_nearest_training_example_comes_from_the_checkpoint_alone(run, pictures, tmp_path):
    _, module, spec = run
    records = [Record(path.name, path, CLASSES[place % 3]) for place, path in enumerate(pictures)]
    inputs = torch.stack([spec(path) for path in pictures])
    with torch.no_grad():
        output = module.predict_step(Batch(inputs, None, torch.arange(5)), 0)
    checkpoint = save(tmp_path / "x.ckpt", module)
    examples = TrainingExamples.from_outputs(Outputs.from_batches([output]), records, module.schema)
    checkpoint[CHECKPOINT_KEY][EXAMPLES_KEY] = examples.to_dict()
    torch.save(checkpoint, tmp_path / "x.ckpt")
    found = load(tmp_path / "x.ckpt").predict(pictures[::-1], batch_size=2)
    assert [row.nearest.path for row in found] == [str(path) for path in pictures[::-1]]
    assert [row.nearest.label for row in found] == [CLASSES[place % 3] for place in (4, 3, 2, 1, 0)]
    assert max(row.nearest.distance for row in found) < 1e-3
    # Without them all else is the same.
    plain = load(run[0]).predict(pictures[::-1], batch_size=2)
    assert [row.nearest for row in plain] == [None] * 5
    assert [replace(row, nearest=None) for row in found] == plain


def test_items_are_routed_by_the_policy_of_the_checkpoint(run, pictures, tmp_path):
    _, module, _ = run
    checkpoint = save(tmp_path / "model.ckpt", module)
    first = load(tmp_path).predict(pictures)
    confidences = sorted(max(row.probabilities.values()) for row in first)
    cut = (confidences[1] + confidences[2]) / 2
    checkpoint[CHECKPOINT_KEY][ROUTING_KEY] = RoutingPolicy(0.9, cut).to_dict()
    torch.save(checkpoint, tmp_path / "model.ckpt")
    found = load(tmp_path).route(pictures, batch_size=2)
    assert [row.id for row in found] == [str(path) for path in pictures]
    for row, plain in zip(found, first, strict=True):
        assert row.confidence == pytest.approx(max(plain.probabilities.values()), abs=1e-6)
        assert (row.decision, row.queue) == (("route", plain.predicted) if row.confidence >= cut else ("ask", None))
    assert [row.decision for row in found].count("route") == 3


def test_routing_without_a_policy_is_refused(run, pictures):
    with pytest.raises(ValueError, match=r"model\.ckpt` has no routing policy"):
        load(run[0]).route(pictures)


def test_another_fitted_rate_decides(run, pictures, tmp_path):
    _, module, _ = run
    points = tuple(OperatingPoint(rate, cut, None, 0.0, (0.0, 1.0), 9, 9) for rate, cut in ((0.05, 0.0), (0.01, 1.5)))
    checkpoint = save(tmp_path / "x.ckpt", module)
    checkpoint[CHECKPOINT_KEY]["calibration"] = Calibration(0.5, 0.0, "by hand", 9, points).to_dict()
    torch.save(checkpoint, tmp_path / "x.ckpt")
    assert "free" not in {row.decision for row in load(tmp_path / "x.ckpt").predict(pictures)}
    strict = load(tmp_path / "x.ckpt", max_false_reject_rate=0.01)
    assert strict.calibration.threshold == 1.5
    assert {row.decision for row in strict.predict(pictures)} == {"free"}
    with pytest.raises(ValueError, match=r"false-reject rate 0\.02\. Fitted: 0\.05, 0\.01"):
        load(tmp_path / "x.ckpt", max_false_reject_rate=0.02)


def test_records_pictures_arrays_and_paths_are_read_alike(run, pictures):
    predictor = load(run[0])
    image = Image.open(pictures[0])
    items = [Record(id="first", input=pictures[0]), str(pictures[0]), image, np.asarray(image)]
    found = predictor.predict(items)
    assert [row.id for row in found] == ["first", str(pictures[0]), "2", "3"]
    assert all(row.probabilities == pytest.approx(found[0].probabilities, abs=1e-5) for row in found)


def test_predict_leaves_the_modes_as_they_were(run, pictures):
    predictor = load(run[0])
    predictor.module.train()
    predictor.module.head.eval()
    before = [part.training for part in predictor.module.modules()]
    trained = predictor.predict(pictures)
    assert [part.training for part in predictor.module.modules()] == before
    assert trained == load(run[0]).predict(pictures)
    with pytest.raises(DataError, match=r"none\.png"):
        predictor.predict(["none.png"])
    assert [part.training for part in predictor.module.modules()] == before


def test_no_items_no_predictions(run):
    assert load(run[0]).predict([]) == []


def test_wrong_arguments(run, pictures):
    predictor = load(run[0])
    with pytest.raises(TypeError, match=r"one str\. Write `predict\(\[item\]\)`"):
        predictor.predict(str(pictures[0]))
    with pytest.raises(ValueError, match="got 0"):
        predictor.predict(pictures, batch_size=0)


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(CheckpointError, match=r"no run and no checkpoint at `.*absent`"):
        load(tmp_path / "absent")


def test_folder_of_an_unfinished_run(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match=r"no `model\.ckpt`.*Found: config\.yaml"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.ckpt"):
        load(tmp_path / "x.ckpt")


def test_checkpoint_of_someone_else(tmp_path):
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt.*Found: state_dict, epoch"):
        load(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("preprocessing", "match"),
    [
        ({"kind": "smell"}, "kind `smell`"),
        ({}, "kind `None`"),
        ({"kind": "image", "size": [32, 32]}, "cannot be rebuilt"),
        ({"kind": "image", "size": [0, 3], "channels": 1, "mean": [0.0], "std": [1.0]}, r"\(0, 3\)"),
    ],
)
def test_preprocessing_that_cannot_be_rebuilt(run, tmp_path, preprocessing, match):
    checkpoint = save(tmp_path / "x.ckpt", run[1])
    checkpoint[CHECKPOINT_KEY]["schema"]["preprocessing"] = preprocessing
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=match):
        load(tmp_path / "x.ckpt")


def test_medical_pictures_are_read_as_the_checkpoint_says(run, tmp_path):
    module = run[1]
    spec = ScanPreprocessing((32, 32), 3, (0.5,) * 3, (0.25,) * 3, options=ScanOptions(bit_depth=12))
    checkpoint = save(tmp_path / "x.ckpt", module)
    checkpoint[CHECKPOINT_KEY]["schema"]["preprocessing"] = spec.to_dict()
    torch.save(checkpoint, tmp_path / "x.ckpt")
    rows = np.random.default_rng(0).integers(0, 4096, (3, 20, 30)).astype(np.uint16)
    np.savez(tmp_path / "rows.npz", images=rows)
    predictor = load(tmp_path / "x.ckpt")
    assert predictor.preprocess == spec
    parts = [ImagePart(str(tmp_path / "rows.npz"), place, "images") for place in range(3)]
    found = predictor.predict(parts)
    with torch.inference_mode():
        logits = module.predict_step(Batch(torch.stack([spec(row) for row in rows]), None, torch.arange(3)), 0).logits
    expected = torch.softmax(logits / 0.5, dim=1)
    assert [row.id for row in found] == [str(part) for part in parts]
    for row, probabilities in zip(found, expected, strict=True):
        np.testing.assert_allclose([row.probabilities[name] for name in CLASSES], probabilities, atol=1e-5)
    with pytest.raises(TypeError, match="one ImagePart"):
        predictor.predict(parts[0])


SCHEMAS = {
    "surface": Schema(task="multiclass", classes=CLASSES, negative_class="free"),
    "plain": Schema(task="multiclass", classes=CLASSES),
    "binary": Schema(task="binary", classes=("good", "bad")),
    "swapped": Schema(task="binary", classes=("bad", "good"), negative_class="good"),
    "multilabel": Schema(task="multilabel", classes=CLASSES),
}


def test_multilabel_names_every_class_above_one_half():
    [row] = predictions(torch.tensor([[1.0, -1.0, 2.0]]), ["x"], SCHEMAS["multilabel"], Calibration(threshold=0.99))
    assert row.predicted == row.decision == ("crack", "pit")
    assert row.score is None
