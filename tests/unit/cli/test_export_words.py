from __future__ import annotations

import jiwer
import numpy as np
import pytest

from lightning_transfer.cli.export_words import measure_word_loss
from lightning_transfer.types import Record

WORDS = "one two three four five six seven eight nine zero".split()


def test_the_loss_is_that_of_jiwer_paired_over_speakers() -> None:
    rng = np.random.default_rng(0)
    said = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(40)]
    texts = {
        name: [" ".join("hm" if rng.random() < share else word for word in text.split()) for text in said]
        for name, share in (("float", 0.1), ("int8", 0.2))
    }
    records = [Record(str(n), None, text.upper() + "!", "test", f"speaker {n % 8}") for n, text in enumerate(said)]
    records.append(Record("unlabelled", None, None, "test", "speaker 1"))
    loss = measure_word_loss(records, [*texts["float"], "x"], [*texts["int8"], "y"], "basic")
    values = loss.to_dict()
    for name in ("float", "int8"):
        assert values["wer"][name]["value"] == pytest.approx(jiwer.wer(said, texts[name]))
        assert values["wer"][name]["num_groups"] == 8
    lost = values["wer"]["lost"]
    assert lost["value"] == pytest.approx(jiwer.wer(said, texts["int8"]) - jiwer.wer(said, texts["float"]))
    assert lost["low"] < lost["value"] < lost["high"]
    same = sum(one == other for one, other in zip(texts["float"], texts["int8"], strict=True))
    assert (values["n"], values["same_texts"]) == (40, same)
    assert loss.text("model_int8.onnx", 1.25).startswith(f"model_int8.onnx: 1.2 MB; {same} of 40 texts on test as in")


def test_a_model_that_rounds_nothing_loses_nothing_and_capitals_do_not_count() -> None:
    records = [Record(str(n), None, text, "test", f"s{n}") for n, text in enumerate(("Yes.", "no no", "maybe"))]
    loss = measure_word_loss(records, ["yes", "no no", "me"], ["YES", "no no", "me"], "basic")
    assert (loss.lost.value, loss.lost.low, loss.lost.high) == (0.0, 0.0, 0.0)
    assert loss.rates["float"].value == pytest.approx(1 / 4)
    assert loss.same_texts == 2
    assert measure_word_loss(records, ["Yes.", "no no", "me"], ["yes", "no no", "me"], "none").lost.value > 0
