"""The option of a recipe, and what the plan says of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from lightning_transfer.callbacks import FeatureCache
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.feature_cache import add_cache, cache_notes


def test_a_cache_of_the_config_stays_alone() -> None:
    own = FeatureCache(views=2)
    callbacks: list[object] = [own]
    add_cache(callbacks, "auto")
    assert callbacks == [own]
    with pytest.raises(UsageError, match=r"`cache_features: never`, and `trainer\.callbacks` holds a `FeatureCache`"):
        add_cache(callbacks, "never")


def test_it_is_added_behind_the_others() -> None:
    callbacks: list[object] = ["first"]
    add_cache(callbacks, "always")
    assert isinstance(callbacks[1], FeatureCache)
    assert callbacks[1].when == "always"


def test_a_plan_without_cache_says_so() -> None:
    trainer = SimpleNamespace(callbacks=[FeatureCache("never")], val_dataloaders=[])
    assert cache_notes(trainer, None) == ["Feature cache: off"]  # type: ignore[arg-type]
