"""Error rates over batches against jiwer over everything at once."""

import math

import pytest
import torch

from lightning_transfer.metrics.error_rate import ErrorRate

jiwer = pytest.importorskip("jiwer")

SAID = ["call me back", "my number is seven seven", "yes", "thank you very much indeed for your call"]
HEARD = ["call me", "my my number is eleven", "yes yes yes yes", "thank you very much for your call"]


@pytest.mark.parametrize(("units", "oracle"), [("words", jiwer.wer), ("characters", jiwer.cer)])
def test_batches_of_any_size_add_up(units: str, oracle: object) -> None:
    rate = ErrorRate(units)  # type: ignore[arg-type]
    rate.update(SAID[:1], HEARD[:1])
    rate.update(SAID[1:], HEARD[1:])
    assert float(rate.compute()) == pytest.approx(oracle(SAID, HEARD))  # type: ignore[operator]
    mean = sum(oracle([said], [heard]) for said, heard in zip(SAID, HEARD, strict=True)) / 4  # type: ignore[operator]
    assert float(rate.compute()) != pytest.approx(mean)


def test_two_processes_sum_what_they_counted() -> None:
    first, second, whole = (ErrorRate("words") for _ in range(3))
    first.update(SAID[:3], HEARD[:3])
    second.update(SAID[3:], HEARD[3:])
    whole.update(SAID, HEARD)
    reductions = first._reductions
    merged = {name: reductions[name](torch.stack([getattr(first, name), getattr(second, name)])) for name in reductions}
    assert merged == {"errors": whole.errors, "length": whole.length}


def test_without_words_it_is_not_a_number_and_more_than_everything_may_be_wrong() -> None:
    rate = ErrorRate("words")
    rate.update(["", ""], ["hello", ""])
    assert math.isnan(float(rate.compute()))
    rate.update(["yes"], ["no no no"])
    assert float(rate.compute()) == 4.0


def test_wrong_units_are_named() -> None:
    with pytest.raises(ValueError, match="got 'syllables'"):
        ErrorRate("syllables")  # type: ignore[arg-type]
