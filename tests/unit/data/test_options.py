import inspect

import pytest

from lightning_transfer.data import BaseDataModule
from lightning_transfer.data.options import check_options

NAMES = inspect.signature(check_options).parameters
DEFAULTS = inspect.signature(BaseDataModule).parameters
RIGHT = {name: DEFAULTS[name].default for name in NAMES}


def test_the_defaults_pass() -> None:
    check_options(**RIGHT)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 0}, "got 0"),
        ({"num_workers": -1}, "-1"),
        ({"val_fraction": 1.0}, r"`val_fraction` in \[0, 1\), got 1.0"),
        ({"test_fraction": -0.1}, "got -0.1"),
        ({"val_fraction": 0.6, "calibration_fraction": 0.4}, "0.6 and `calibration_fraction` 0.4"),
        ({"num_folds": 1}, "got 1 and 0"),
        ({"num_folds": 5, "fold": 5}, "got 5 and 5"),
        ({"on_bad_file": "ignore"}, "`ignore`"),
        ({"given_splits": "drop"}, "`drop`"),
        ({"task": "regression"}, "`regression`"),
        ({"sampler": "balanced"}, "'balanced'"),
        (
            {"sampler": "weighted", "task": "multilabel", "classes": ["a", "b"]},
            "'weighted' does not fit .* `multilabel`",
        ),
        ({"task": "multilabel"}, "`classes` is None"),
        ({"sampler": "weighted", "task": "transcription"}, "'weighted' does not fit .* `transcription`"),
        ({"classes": ["a", "b"], "task": "transcription"}, r"\['a', 'b'\], and texts have none"),
        ({"classes": ["a"]}, r"\['a'\]"),
        ({"classes": ["a", "b", "a"]}, r"\['a', 'b', 'a'\]"),
    ],
)
def test_impossible_arguments(options, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_options(**{**RIGHT, **options})
