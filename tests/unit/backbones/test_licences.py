"""What a run says about the licence of its weights."""

import pytest

from lightning_transfer.backbones.licences import licence_notice
from lightning_transfer.types import BackboneCard


def notice(licence: str, source: str = "timm") -> str | None:
    return licence_notice(BackboneCard(name="timm/net", architecture="timm/net", source=source, licence=licence))


@pytest.mark.parametrize("licence", ["apache-2.0", "Apache-2.0", "MIT", "BSD", "bsd-3-clause", "CC BY 4.0", "cc0-1.0"])
def test_permissive_licences_say_nothing(licence):
    assert notice(licence) is None


@pytest.mark.parametrize("licence", ["unknown", "", " ", "other", "Unknown"])
def test_an_unknown_licence_is_said(licence):
    assert "`timm/net` is unknown" in (notice(licence) or "")


@pytest.mark.parametrize(
    "licence", ["cc-by-nc-4.0", "CC BY-NC-SA 4.0", "Non-commercial", "noncommercial use", "cc-by-nc"]
)
def test_non_commercial_licences_are_said(licence):
    assert f"`{licence}`: non-commercial use only" in (notice(licence) or "")


@pytest.mark.parametrize("licence", ["apple-ascl", "dinov3-license", "gpl-3.0", "launch-licence"])
def test_licences_that_we_do_not_know_ask_to_be_read(licence):
    text = notice(licence) or ""
    assert f"`{licence}`" in text
    assert "non-commercial" not in text


def test_random_weights_have_no_licence():
    assert notice("unknown", source="random") is None
