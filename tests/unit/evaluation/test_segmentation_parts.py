"""Worst pictures, volumes and notes."""

import numpy as np

from lightning_transfer import metrics
from lightning_transfer.evaluation.segmentation_judge import judge_mask
from lightning_transfer.evaluation.segmentation_parts import evaluation_notes, mask_terms, volumes_of, worst_masks
from lightning_transfer.scans import ImagePart
from lightning_transfer.types import Record
from tests.unit.evaluation.mask_toys import logits_of, pictures

RECORDS, TARGETS = pictures(9)
NOTHING = np.zeros_like(TARGETS[0])


def _judged():
    """All of the first five is right; then one is missed, and one is drawn on in vain."""
    drawn = [*TARGETS[:5], NOTHING, TARGETS[1], TARGETS[7], TARGETS[8]]
    return [judge_mask(place, logits_of(drawn[place], 0.0, 0), TARGETS[place]) for place in range(9)]


def test_the_worst_come_first_of_either_sort() -> None:
    found = worst_masks(_judged(), RECORDS, 4, {5: "masks/5.png"})
    assert [(item.id, item.kind) for item in found[:1]] == [("crack/5.png", "missed")]
    assert found[0].dice == 0
    assert found[0].drawn == 0
    assert found[0].shown == 7
    assert found[0].mask == "masks/5.png"
    assert [(item.id, item.dice) for item in found if item.kind == "false"] == [("good/6.png", None)]
    assert len(found) == 4


def test_terms_are_sums_of_the_pictures() -> None:
    terms = mask_terms(_judged(), ("good", "defect"))
    found = terms.read(terms.values.sum(0)[None])
    both, mass = terms.values.sum(0)
    assert found["dice"][0] == 2 * both / mass
    assert found["iou"][0] == both / (mass - both)


def test_volumes_are_files() -> None:
    rows = [Record("a", ImagePart("x.nii", 0)), Record("b", "b.png"), Record("c", ImagePart("x.nii", 3))]
    assert volumes_of(rows) == [0, 1, 0]
    assert volumes_of([Record("a", ImagePart("x.dcm"))]) is None


def test_notes_say_what_limits_the_numbers() -> None:
    drawn = metrics.resample(lambda w: {"x": w.sum(1)}, [record.group for record in RECORDS], n_resamples=5)
    loose = [Record(row.id, row.input, row.label) for row in RECORDS]
    notes = " ".join(evaluation_notes(_judged(), loose, drawn))
    assert "9 of 9 pictures have no group" in notes
    assert "3 groups: with fewer than" in notes
    assert "Of 1 pictures no pixel" in notes
    mixed = [*_judged()[:1], judge_mask(1, logits_of(TARGETS[1], 0.0, 0), TARGETS[1], (1.0, 1.0))]
    assert "mixes millimetres and pixels" in " ".join(evaluation_notes(mixed, RECORDS[:2], drawn))
