"""Options of findings: defaults, and what is refused before a fit."""

from typing import Any

import pytest

from lightning_transfer.cli.clinical_options import ClinicalOptions


def test_defaults_are_those_of_every_evaluation_and_the_usual_aims() -> None:
    options = ClinicalOptions()
    assert (options.specificities, options.sensitivities) == ([0.9, 0.95], [0.9, 0.95])
    assert options.prevalence is None
    assert options.not_for_clinical_use
    assert options.max_false_reject_rate == 0.05
    assert options.specificities is not ClinicalOptions().specificities


@pytest.mark.parametrize(("option", "value", "message"), [
    ("specificities", [0.9, 95], r"`specificities` in \(0, 1\), got 95"),
    ("sensitivities", [0.0], r"`sensitivities` in \(0, 1\), got 0.0"),
    ("prevalence", 3, "got 3"),
    ("prevalence", {"Edema": 0.1, "Mass": 1.0}, "got 1.0"),
    ("max_false_reject_rate", 2.0, "got 2.0"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClinicalOptions(**{option: value})
