"""Each picture once, at its own size, with unknown pixels left out."""

import numpy as np
import pytest
import torch

from lightning_transfer.evaluation.segmentation_judge import MaskJudge, judge_mask
from lightning_transfer.modules.segmentation import PixelOutput
from lightning_transfer.types import Record
from tests.unit.evaluation.mask_toys import SCHEMA, SIZE, logits_of, pictures

RECORDS, TARGETS = pictures(6)


class Data:
    spacing = None

    def input_size(self, record: Record) -> tuple[int, int]:
        return SIZE

    def load_labels(self, record: Record):
        return None if record.label == "crack" else TARGETS[RECORDS.index(record)]

    def pixel_spacing(self, record: Record):
        return self.spacing


def _output(places: list[int]) -> PixelOutput:
    frames = [torch.from_numpy(logits_of(np.ones((16, 16), dtype=np.int64), 0.0, 0)) for _ in places]
    return PixelOutput(torch.stack(frames), torch.tensor(places))


def test_unknown_pixels_count_nowhere() -> None:
    target, logits = TARGETS[1].copy(), logits_of(TARGETS[1], 1.0, 0)
    target[:, 10:] = -100
    found, cut = judge_mask(0, logits, target), judge_mask(0, logits[:, :, :10], target[:, :10])
    for name in ("overlap", "pixels"):
        for one, other in zip(getattr(found, name), getattr(cut, name), strict=True):
            assert np.array_equal(one, other)
    assert found.score == cut.score


def test_distances_are_in_millimetres_where_the_spacing_is_known() -> None:
    target = TARGETS[1]
    logits = logits_of(np.roll(target, 2, axis=0), 0.0, 0)
    pixels, millimetres = judge_mask(0, logits, target), judge_mask(0, logits, target, (0.5, 0.5))
    assert millimetres.distance[1] == pytest.approx(pixels.distance[1] / 2)
    assert (pixels.unit, millimetres.unit) == ("px", "mm")


def test_each_record_is_judged_once_and_drawn_at_its_own_size() -> None:
    drawn = []
    judge = MaskJudge(Data(), RECORDS, SCHEMA, on_drawn=drawn.append)
    judge(_output([0, 1]))
    judge(_output([1, 2, 3]))
    assert [item.place for item in drawn] == [0, 1, 2, 3]
    assert {item.labels.shape for item in drawn} == {SIZE}
    assert [item.place for item in judge.rows()] == [0, 1, 3]
    assert judge.unknown == {2}
    assert drawn[0].score == pytest.approx(1 / (1 + np.exp(-1.5)))
    assert drawn[0].area.tolist() == [0, SIZE[0] * SIZE[1]]


def test_predicting_reads_no_truth() -> None:
    class Blind(Data):
        def load_labels(self, record: Record):
            raise AssertionError("read")

    judge = MaskJudge(Blind(), RECORDS, SCHEMA, compare=False)
    judge(_output([0, 1]))
    assert judge.unknown == {0, 1}
    assert not judge.judged


def test_what_is_wrong_is_named() -> None:
    judge = MaskJudge(Data(), RECORDS, SCHEMA)
    with pytest.raises(ValueError, match=r"`good/0.png` is not finite"):
        judge.add(0, torch.full((2, 16, 16), float("nan")))
    with pytest.raises(ValueError, match=r"truth's size \(16, 20\), got \(16, 16\)"):
        judge_mask(0, np.zeros((2, 16, 16), dtype=np.float32), TARGETS[0])
