from __future__ import annotations

import numpy as np
import pytest

from lightning_transfer.export import ParityError, SpeechParity

LOGITS = np.array([[0.0, 8.0, 1.0], [5.0, 1.0, 1.0], [0.0, 2.0, 2.0]], dtype=np.float32)


def test_what_rounding_does_passes() -> None:
    parity = SpeechParity()
    parity.add("a", "yes no", "yes no", [(LOGITS, LOGITS + 1e-6), (LOGITS[:0], LOGITS[:0])])
    parity.add("b", "", "", [(0.5 * LOGITS, 0.5 * LOGITS)])
    parity.check("model.onnx")
    assert (parity.n, parity.largest_logit) == (2, 8.0)
    assert parity.max_difference == pytest.approx(1e-6, rel=0.5)
    assert parity.tolerance == pytest.approx(8e-4)
    assert parity.to_dict() == {
        "n": 2, "max_difference": parity.max_difference, "tolerance": parity.tolerance, "same_texts": 2,
        "changed_texts": [], "ties": [],
    }  # fmt: skip
    assert parity.text("model.onnx", 1.5) == (
        f"model.onnx: 1.5 MB; logits differ by at most {parity.max_difference:.1e} (allowed 8.0e-04); 2 of 2 texts are "
        "the checkpoint's"
    )


@pytest.mark.parametrize("wrong", [0.01, float("nan"), float("inf")])
def test_other_logits_are_refused_whatever_the_text(wrong: float) -> None:
    parity = SpeechParity()
    changed = LOGITS.copy()
    changed[1, 2] += wrong
    parity.add("a", "yes", "yes", [(LOGITS, changed)])
    # What follows does not hide it.
    parity.add("b", "yes", "yes", [(LOGITS, LOGITS)])
    with pytest.raises(ParityError, match=r"`model\.onnx` does not write what the checkpoint writes on 2 recordings"):
        parity.check("model.onnx")


def test_another_text_is_refused_with_both() -> None:
    parity = SpeechParity()
    changed = LOGITS.copy()
    changed[1] = [5.0, 5.0005, 1.0]
    parity.add("a", "yes", "yet", [(LOGITS, changed)])
    parity.add("b", "same", "same", [(LOGITS, LOGITS)])
    with pytest.raises(ParityError, match="1 texts differ: a; of `a` it writes `yet` and not `yes`"):
        parity.check("model.onnx")


def test_another_text_of_the_same_logits_is_refused() -> None:
    """It was decoded, or joined, in another way."""
    parity = SpeechParity()
    parity.add("a", "yes", "yess", [(LOGITS, LOGITS)])
    assert (parity.ties, list(parity.changed)) == ([], ["a"])


def test_two_tokens_that_are_equally_likely_may_change_places() -> None:
    parity = SpeechParity()
    changed = LOGITS.copy()
    changed[2] = [0.0, 2.0, 2.0 + 1e-6]
    parity.add("a", "yes", "yet", [(LOGITS, changed)])
    parity.check("model.onnx")
    assert parity.ties == ["a"]
    assert parity.to_dict()["same_texts"] == 0
    assert "0 of 1 texts are the checkpoint's (1 differ where two letters are equally likely)" in parity.text("m", 1)
    # But not beside one that is no tie.
    changed[0] = [8.1, 8.0, 1.0]
    parity.add("b", "yes", "net", [(LOGITS, changed)])
    assert list(parity.changed) == ["b"]


def test_another_number_of_frames_and_a_diverged_checkpoint() -> None:
    with pytest.raises(ParityError, match="makes 2 frames of `a`, and the checkpoint 3"):
        SpeechParity().add("a", "", "", [(LOGITS, LOGITS[:2])])
    with pytest.raises(ParityError, match="logits of `a` are not finite"):
        SpeechParity().add("a", "", "", [(LOGITS * np.nan, LOGITS)])


def test_several_ways_of_making_batches_are_one_line() -> None:
    first, second = SpeechParity(), SpeechParity()
    first.add("a", "x", "x", [(LOGITS, LOGITS)])
    second.add("a", "x", "y", [(LOGITS, LOGITS + 1e-5)])
    joined = first.joined([second])
    assert (joined.n, list(joined.changed)) == (1, ["a"])
    assert joined.max_difference == second.max_difference
    broken = SpeechParity()
    broken.add("a", "x", "x", [(LOGITS, LOGITS * np.nan)])
    assert np.isnan(broken.joined([first]).max_difference)
