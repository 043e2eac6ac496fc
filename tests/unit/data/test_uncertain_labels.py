"""Uncertain findings: each policy, in training alone."""

import pytest

from lightning_transfer.data.uncertain_labels import UncertainLabels
from lightning_transfer.errors import DataError
from lightning_transfer.types import Record

NAMES = ["edema", "mass", "cyst", "nodule", "effusion"]
OPTION = {"default": "ignore", "edema": "ones", "mass": "zeros", "cyst": "soft", "nodule": 0.7}
ALL = (0, 1, 2, 3, 4)


@pytest.mark.parametrize(("split", "label"), [
    ("train", (1.0, 0.0, None, None, None)),
    ("val", (None,) * 5), ("calibration", (None,) * 5), ("test", (None,) * 5), (None, (None,) * 5),
])  # fmt: skip
def test_the_policies_hold_in_training_alone(split, label) -> None:
    policy = UncertainLabels.make(OPTION, NAMES)
    [found] = policy.learn([Record("a", None, (None,) * 5, split)], {"a": ALL})
    assert found.label == label


def test_what_is_known_is_not_touched() -> None:
    policy = UncertainLabels.make("ones", ["edema", "mass"])
    rows = [Record("a", None, (0.0, None), "train"), Record("b", None, (None, 1.0), "train")]
    assert [row.label for row in policy.learn(rows, {"a": (1,)})] == [(0.0, 1.0), (None, 1.0)]


def test_soft_ones_are_probabilities() -> None:
    policy = UncertainLabels.make(OPTION, NAMES)
    assert policy.soft(ALL) == {2: 0.5, 3: 0.7}
    assert policy.soft(()) == {}
    assert UncertainLabels.make(0.0, ["edema"]).soft((0,)) == {0: 0.0}


def test_a_single_finding_is_a_class() -> None:
    rows = [Record("a", None, None, "train"), Record("b", None, "edema", "train"), Record("c", None, None, "test")]
    uncertain = {"a": (0,), "c": (0,)}
    by_policy = {
        policy: [row.label for row in UncertainLabels.make(policy, ["edema"]).learn(rows, uncertain)]
        for policy in ("ones", "zeros", "ignore")
    }
    assert by_policy == {
        "ones": ["edema", "edema", None],
        "zeros": ["no edema", "edema", None],
        "ignore": [None, "edema", None],
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("one", r"`uncertain` of `default` is `one`\. Did you mean `ones`\?"),
        ({"edem": "ones"}, r"`uncertain` names `edem`\. Did you mean `edema`\?"),
        ({"edema": 1.5}, "is `1.5`"),
        ({"edema": "nan"}, "is `nan`"),
    ],
)
def test_wrong_options(option, message: str) -> None:
    with pytest.raises(DataError, match=message):
        UncertainLabels.make(option, NAMES)


def test_the_note_counts_each_finding() -> None:
    policy = UncertainLabels.make({"default": "ignore", "mass": "ones"}, ["edema", "mass"])
    rows = [Record("a", None, (None, None)), Record("b", None, (1.0, None)), Record("c", None, (1.0, 0.0))]
    [found] = policy.describe(rows, {"a": (0, 1), "b": (1,)})
    assert "2 of 3 images have uncertain findings: edema 1 (ignore), mass 2 (ones)." in found.message
    assert policy.describe(rows, {}) == []
