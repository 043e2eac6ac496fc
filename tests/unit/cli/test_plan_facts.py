import pytest
import torch
from torch import nn

from lightning_transfer.cli.plan_facts import backbone_facts, optimizer_states
from lightning_transfer.types import BackboneCard


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [("Adam", {}), ("AdamW", {}), ("SGD", {"momentum": 0.9}), ("SGD", {}), ("NAdam", {}), ("Adagrad", {})],
)
def test_states_agree_with_what_the_optimizer_holds_after_a_step(optimizer: str, options: dict[str, float]) -> None:
    weight = nn.Parameter(torch.randn(10, 10))
    made = getattr(torch.optim, optimizer)([weight], lr=0.1, **options)
    weight.sum().backward()
    made.step()
    held = sum(value.numel() for value in made.state[weight].values() if isinstance(value, torch.Tensor))
    assert optimizer_states(made) == held // weight.numel()


def test_a_module_without_card_has_no_backbone_facts() -> None:
    assert backbone_facts(nn.Linear(1, 1)) == {}


def test_the_licence_is_among_the_facts() -> None:
    module = nn.Linear(1, 1)
    module.card = BackboneCard(name="a/b", architecture="a/b", licence="CC-BY-NC-4.0")  # type: ignore[assignment]
    assert backbone_facts(module)["licence"] == "CC-BY-NC-4.0"
