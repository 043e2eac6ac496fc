from dataclasses import replace

import pytest

from lightning_transfer.data.audit_preprocessing import preprocessing_findings
from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.types import BackboneCard, Finding

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CARD = BackboneCard("timm/x", "timm/x", input_size=(3, 224, 224), mean=MEAN, std=STD, interpolation="bicubic")
SPEC = ImagePreprocessing.from_card(CARD)


def _check(spec: ImagePreprocessing, card: BackboneCard = CARD) -> list[Finding]:
    return preprocessing_findings(spec.to_dict(), card)


def test_the_cards_own_preprocessing_is_clean() -> None:
    assert _check(SPEC) == []
    half = replace(CARD, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert _check(ImagePreprocessing.from_card(half), half) == []


def test_swapped_normalisation_of_the_preprocessing() -> None:
    [finding] = _check(replace(SPEC, mean=STD, std=MEAN))
    assert finding.severity == "error"
    assert "`mean` (0.229, 0.224, 0.225) and `std` (0.485, 0.456, 0.406)" in finding.message
    assert "those of the card of `timm/x`, swapped" in finding.message


def test_swapped_normalisation_of_the_card_itself() -> None:
    card = replace(CARD, mean=STD, std=MEAN)
    [finding] = _check(ImagePreprocessing.from_card(card), card)
    assert finding.severity == "error"
    assert "ImageNet's (the card's values), swapped" in finding.message


def test_a_card_of_pixels_up_to_255() -> None:
    card = replace(CARD, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    [finding] = _check(ImagePreprocessing.from_card(card), card)
    assert finding.severity == "error"
    assert "not of pixels from 0 to 1" in finding.message


@pytest.mark.parametrize(
    ("change", "severity", "text"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, "warning", "The preprocessing has `mean` (0.5, 0.5, 0.5)"),
        ({"size": (96, 96)}, "note", "the size [96, 96], the card of `timm/x` [224, 224]"),
        ({"interpolation": "bilinear"}, "note", "the interpolation bilinear, the card of `timm/x` bicubic"),
        ({"channels": 1, "mean": (0.45,), "std": (0.22,)}, "error", "the channels 1"),
    ],
)
def test_other_differences(change: dict[str, object], severity: str, text: str) -> None:
    found = _check(replace(SPEC, **change))
    assert any(finding.severity == severity and text in finding.message for finding in found), found
    assert {finding.code for finding in found} == {"preprocessing-mismatch"}


def test_what_is_no_image_is_not_compared() -> None:
    assert preprocessing_findings({"kind": "text", "mean": [0.1]}, CARD) == []
