"""Length, not direction, is taken away."""

import torch

from lightning_transfer.modules.transfer import TransferModule
from lightning_transfer.modules.unit_norm import UnitNorm
from lightning_transfer.types import Schema


def test_every_vector_has_the_length_of_the_root_of_its_width() -> None:
    features = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 5)[:, None]
    found = UnitNorm()(features)
    torch.testing.assert_close(found.norm(dim=1), torch.full((5,), 4.0))
    torch.testing.assert_close(torch.cosine_similarity(found, features), torch.ones(5))


def test_zeros_stay_zeros() -> None:
    assert torch.equal(UnitNorm()(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_a_head_of_unit_features_does_not_see_their_length() -> None:
    module = TransferModule("timm/test_resnet", weights="random", head_norm="unit")
    module.use_schema(Schema(task="multiclass", classes=("a", "b")))
    module.configure_model()
    features = torch.randn(3, module.card.num_features)
    torch.testing.assert_close(module.head(features), module.head(features * 100))
    assert module.rebuild_arguments()["head_norm"] == "unit"
