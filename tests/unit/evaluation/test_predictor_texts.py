"""`load(run).predict(texts)`: the same at every batch size, every text in its place, none lost."""

from __future__ import annotations

import random

import pytest
import torch

from lightning_transfer.errors import CheckpointError
from lightning_transfer.evaluation import EXAMPLES_KEY, TrainingExamples, load
from lightning_transfer.types import Record
from tests.unit.export.text_toys import QUEUES, TEXTS, backbone_folder, router, save


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return backbone_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module", params=["head_tail", "head", "chunks"])
def run(request, backbone, tmp_path_factory):
    module = router(backbone, long_texts=request.param)
    return save(tmp_path_factory.mktemp("run"), module), module


def shares(rows):
    return torch.tensor([list(row.probabilities.values()) for row in rows])


def mixed(count=70):
    """Short and long texts side by side, the same ones at several places."""
    chooser = random.Random(0)
    return [chooser.choice(TEXTS) for _ in range(count)]


def test_each_prediction_is_that_of_the_module_on_the_text_alone(run):
    folder, module = run
    predictor = load(folder)
    found = predictor.predict(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        encode = predictor.preprocess
        with torch.no_grad():
            logits = module(encode.collate([encode(encode.clean(text))]))
        torch.testing.assert_close(
            shares([row]), torch.softmax(logits.double() / 0.5, dim=1).float(), atol=1e-5, rtol=1e-4
        )
    assert len({row.decision for row in found}) > 1


def test_batches_of_1_of_32_and_of_any_mixture_say_the_same_of_each_text(run):
    predictor, texts = load(run[0]), mixed()
    alone = predictor.predict(texts, batch_size=1)
    assert [row.id for row in alone] == [str(place) for place in range(len(texts))]
    for size in (3, 32, 1000):
        together = predictor.predict(texts, batch_size=size)
        torch.testing.assert_close(shares(together), shares(alone), atol=1e-5, rtol=1e-4)
        assert [row.decision for row in together] == [row.decision for row in alone]
    logits, features = predictor.outputs(texts, batch_size=32)
    assert logits.shape == (len(texts), 3)
    assert features.shape == (len(texts), 16)
    assert [QUEUES[place] for place in logits.argmax(dim=1)] == [row.decision for row in alone]


def test_a_text_of_which_nothing_is_left_keeps_its_place(run):
    texts = ["", "My card!", "  \n\t", None, float("nan"), "\u200b\x07\ufeff", "<p> </p>", "the invoice", "!"]
    found = load(run[0]).predict(texts, batch_size=2)
    assert len(found) == len(texts)
    for place in (0, 2, 3, 4, 5, 6):
        assert found[place].decision == "unreadable"
        assert found[place].predicted is None
        assert found[place].probabilities == {}
        assert "nothing is left of the text" in found[place].reason
    assert [found[place].predicted in QUEUES for place in (1, 7, 8)] == [True] * 3
    assert [row.id for row in found] == [str(place) for place in range(len(texts))]
    alone = load(run[0]).predict(["the invoice"])
    torch.testing.assert_close(shares([found[7]]), shares(alone), atol=1e-5, rtol=1e-4)
    assert [row.decision for row in load(run[0]).predict(["", " "])] == ["unreadable"] * 2


def test_a_megabyte_and_control_characters(run):
    long = "My parcel is late. " * 55_000
    assert len(long) > 1_000_000
    noisy, plain = "my\x00 ca\u00adrd\x1b is\r\nwrong\u200b", "my card is\nwrong"
    found = load(run[0]).predict([long, noisy, "my card", plain])
    assert [row.decision in QUEUES for row in found] == [True] * 4
    assert found[1].probabilities == pytest.approx(found[3].probabilities, abs=1e-6)
    assert found[2].probabilities == pytest.approx(load(run[0]).predict(["my card"])[0].probabilities, abs=1e-5)


def test_texts_are_cleaned_as_in_training_and_records_are_clean(run):
    predictor = load(run[0])
    html, plain = "<p>the invoice<br>is wrong</p>", "the invoice\nis wrong"
    found = predictor.predict([html, plain, {"subject": "AW: my card", "body": html}, {"body": plain}])
    assert found[0].probabilities == pytest.approx(found[1].probabilities, abs=1e-6)
    assert found[3].probabilities == pytest.approx(found[1].probabilities, abs=1e-6)
    # What a reader of tables would have made of subject and body.
    text, _ = predictor.preprocess.cleaning.clean("AW: my card", html)
    [record] = predictor.predict([Record("T-1", text)])
    assert record.id == "T-1"
    assert found[2].probabilities == pytest.approx(record.probabilities, abs=1e-6)
    raw, clean = predictor.predict([Record("T-2", html), Record("T-3", plain)])
    assert raw.probabilities != pytest.approx(clean.probabilities, abs=1e-4)


def test_what_was_not_cleaned_in_training_is_not_cleaned_now(backbone, tmp_path):
    module = router(backbone)
    spec = dict(module.schema.preprocessing)
    spec["cleaning"] = {**spec["cleaning"], "html": False}
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    checkpoint["lightning_transfer"]["schema"]["preprocessing"] = spec
    torch.save(checkpoint, tmp_path / "model.ckpt")
    first, second = load(tmp_path).predict(["<p>the invoice<br>is wrong</p>", "the invoice\nis wrong"])
    assert first.probabilities != pytest.approx(second.probabilities, abs=1e-4)


def test_the_nearest_training_text_is_found_and_none_for_an_empty_one(backbone, tmp_path):
    module = router(backbone)
    save(tmp_path, module)
    features = load(tmp_path).outputs(TEXTS)[1]
    unit = (features / features.norm(dim=1, keepdim=True)).half()
    examples = TrainingExamples(unit, tuple(f"T-{place}" for place in range(len(TEXTS))), ("billing",) * len(TEXTS))
    save(tmp_path, module, **{EXAMPLES_KEY: examples.to_dict()})
    found = load(tmp_path).predict([*TEXTS[::-1], ""], batch_size=3)
    assert [row.nearest.path for row in found[:-1]] == [f"T-{place}" for place in range(len(TEXTS))][::-1]
    assert found[-1].nearest is None


def test_what_is_no_text_is_refused(run):
    predictor = load(run[0])
    with pytest.raises(TypeError, match=r"got int \(item 1\)"):
        predictor.predict(["my card", 17])
    with pytest.raises(TypeError, match=r"got one str\. Write `predict\(\[item\]\)`"):
        predictor.predict("my card")
    with pytest.raises(TypeError, match="got one dict"):
        predictor.predict({"body": "my card"})
    with pytest.raises(TypeError, match="in item 0, got text"):
        predictor.predict([{"text": "my card"}])
    assert predictor.predict([]) == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda spec: spec.pop("max_length"), "it lacks 'max_length'"),
        (lambda spec: spec.update(max_length=65), "at most 64"),
        (lambda spec: spec.update(tokenizer="0123456789abcdef"), "trained with 0123456789abcdef"),
    ],
)
def test_preprocessing_that_cannot_be_rebuilt(backbone, tmp_path, change, match):
    module = router(backbone)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    change(checkpoint["lightning_transfer"]["schema"]["preprocessing"])
    torch.save(checkpoint, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=match):
        load(tmp_path)
