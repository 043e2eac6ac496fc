import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score, roc_auc_score

from lightning_transfer.cli.export_int8 import measure_loss
from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.export import exported_facts
from lightning_transfer.types import BackboneCard, Calibration, Record, Schema

CLASSES = ("good", "crack", "pit")
SPEC = ImagePreprocessing(size=(1, 3), channels=1, mean=(0.0,), std=(1.0,), pad="none")
SCHEMA = Schema("multiclass", CLASSES, negative_class="good", preprocessing=SPEC.to_dict())
CALIBRATION = Calibration(temperature=0.5, threshold=0.6)


@pytest.fixture
def records(tmp_path):
    """Pictures of three pixels, which stand for the three logits."""
    rng = np.random.default_rng(0)
    found = []
    for place in range(60):
        label = int(rng.integers(3))
        pixels = rng.integers(0, 150, (1, 3)).astype(np.uint8)
        pixels[0, label] += 70
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
        found.append(Record(f"{place}", tmp_path / f"{place}.png", CLASSES[label], "test", f"lot{place // 4}"))
    return found


def exact(images):
    return 10.0 * images[:, 0, 0, :]


def coarse(images):
    """What rounding does, without its ties, which would be broken by the last bit."""
    return exact(images) + 1.5 * np.sin(37.0 * exact(images))


def rows(records, first, second):
    for record in records:
        image = SPEC(record.input).numpy()[None]
        yield {"float": first(image)[0], "int8": second(image)[0]}


def test_the_loss_is_that_of_the_scores_by_sklearn(records):
    facts = exported_facts(BackboneCard("toy", "toy"), SCHEMA, CALIBRATION)
    loss = measure_loss(rows(records, exact, coarse), records, SCHEMA, CALIBRATION, facts)
    images = np.stack([SPEC(record.input).numpy() for record in records])
    target = np.array([CLASSES.index(record.label) for record in records])
    scores, auroc, decisions = {}, {}, {}
    for name, run in (("float", exact), ("int8", coarse)):
        logits = run(images).astype(np.float64)
        scores[name] = f1_score(target, logits.argmax(axis=1), average="macro")
        shares = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum(axis=1, keepdims=True)
        auroc[name] = roc_auc_score(target != 0, 1 - shares[:, 0])
        worst = 1 + shares[:, 1:].argmax(axis=1)
        decisions[name] = np.where(1 - shares[:, 0] >= 0.6, worst, 0)
    values = loss.to_dict()
    for name, expected in (("macro_f1", scores), ("auroc", auroc)):
        assert values["scores"][name]["float"]["value"] == pytest.approx(expected["float"])
        assert values["scores"][name]["int8"]["value"] == pytest.approx(expected["int8"])
        lost = values["scores"][name]["lost"]
        assert lost["value"] == pytest.approx(expected["float"] - expected["int8"])
        assert lost["low"] < lost["value"] < lost["high"]
        assert (lost["n"], lost["num_groups"]) == (60, 15)
    assert values["same_decisions"] == (decisions["float"] == decisions["int8"]).sum() < 60
    assert values["max_difference"] == pytest.approx(np.abs(exact(images) - coarse(images)).max())
    text = loss.text("model_int8.onnx", 1.25)
    assert text.startswith(f"model_int8.onnx: 1.2 MB; {values['same_decisions']} of 60 decisions on test as in float")
    assert "macro_f1: " in text
    assert "auroc: " in text


def test_a_model_that_rounds_nothing_loses_nothing(records):
    facts = exported_facts(BackboneCard("toy", "toy"), SCHEMA, CALIBRATION)
    loss = measure_loss(rows(records, exact, exact), records, SCHEMA, CALIBRATION, facts)
    lost = loss.to_dict()["scores"]["macro_f1"]["lost"]
    assert (lost["value"], lost["low"], lost["high"], loss.same_decisions) == (0.0, 0.0, 0.0, 60)
