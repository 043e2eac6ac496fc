from __future__ import annotations

import pytest
import torch

from lightning_transfer.callbacks.optimizer_parts import Part, changed, copied, same, write


def _options() -> dict[str, object]:
    return {"params": [torch.ones(2)], "lr": 0.1, "betas": (0.9, 0.99), "fused": None, "capturable": torch.tensor(2.0)}


def test_what_did_not_change_is_not_listed() -> None:
    options = _options()
    assert changed(copied(options), options) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("lr", 0.2), ("betas", (0.8, 0.99)), ("fused", True), ("new", 1), ("capturable", torch.tensor(3.0))],
)
def test_what_changed_is_listed(key: str, value: object) -> None:
    options = _options()
    before = copied(options)
    options[key] = value
    assert changed(before, options) == [key]


def test_a_tensor_that_is_changed_in_place_is_listed() -> None:
    options = _options()
    before = copied(options)
    options["capturable"].fill_(5.0)  # type: ignore[attr-defined]
    assert changed(before, options) == ["capturable"]


def test_parameters_and_names_are_the_parts_own() -> None:
    options = _options()
    before = copied(options)
    options.update(params=[], name="other", param_names=["other"])
    assert changed(before, options) == []
    assert "params" not in before


def test_a_number_equals_a_tensor_that_holds_it() -> None:
    assert same(0.5, torch.tensor(0.5))
    assert not same(0.5, torch.tensor(0.25))
    assert not same(None, torch.tensor(0.0))


def test_rates_are_scaled_and_the_ramp_is_of_the_rate_alone() -> None:
    part = Part(owner=0, name="stem", factor=0.25, decays=False, places=(0,), ramp=0.5)
    assert part.option("lr", 0.8) == pytest.approx(0.1)
    assert part.option("initial_lr", 0.8) == pytest.approx(0.2)
    assert part.option("weight_decay", 0.3) == 0.0
    assert part.option("betas", (0.9, 0.99)) == (0.9, 0.99)
    assert part.option("lr", "auto") == "auto"


def test_a_tensor_is_filled_and_stays_the_same_object() -> None:
    rate = torch.tensor(0.5)
    group = {"lr": rate, "eps": 1e-8}
    write(group, "lr", 0.25)
    write(group, "eps", 1e-6)
    assert group["lr"] is rate
    assert (float(rate), group["eps"]) == (0.25, 1e-6)
