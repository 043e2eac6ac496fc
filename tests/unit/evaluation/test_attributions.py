from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation.attributions import explain_classes, grad_cam
from lightning_transfer.types import Schema


class Pooled(nn.Module):
    """Convolution and ReLU, then global average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


@pytest.fixture
def network() -> tuple[Pooled, nn.Linear]:
    torch.manual_seed(0)
    return Pooled(), nn.Linear(5, 4)


def test_with_average_pooling_and_a_linear_head_it_is_the_class_activation_map(network: Any) -> None:
    backbone, head = network
    images = torch.randn(3, 3, 12, 16)
    maps = backbone.layers(images)
    for place in range(4):
        # Zhou et al. 2016: the head's weights of the class, over the channels of the map.
        cam = torch.einsum("c,nchw->nhw", head.weight[place], maps)
        found = grad_cam(backbone, head, images, [place] * 3)
        assert torch.allclose(found, torch.relu(cam) / (6 * 8), atol=1e-6)
        assert found.shape == (3, 6, 8)
        assert found.max() > 0


def test_each_image_has_its_own_class(network: Any) -> None:
    backbone, head = network
    images = torch.randn(2, 3, 8, 8)
    both = grad_cam(backbone, head, images, [1, 3])
    assert torch.allclose(both[0], grad_cam(backbone, head, images[:1], [1])[0], atol=1e-6)
    assert torch.allclose(both[1], grad_cam(backbone, head, images[1:], [3])[0], atol=1e-6)


def test_of_a_single_logit_class_0_is_what_speaks_against_it(network: Any) -> None:
    backbone, _ = network
    head = nn.Linear(5, 1)
    images = torch.randn(2, 3, 8, 8)
    cam = torch.einsum("c,nchw->nhw", head.weight[0], backbone.layers(images)) / 16
    assert torch.allclose(grad_cam(backbone, head, images, [1, 0])[0], torch.relu(cam[0]), atol=1e-6)
    assert torch.allclose(grad_cam(backbone, head, images, [1, 0])[1], torch.relu(-cam[1]), atol=1e-6)


def test_a_frozen_backbone_is_explained_and_nothing_of_the_model_changes(network: Any) -> None:
    backbone, head = network
    backbone.requires_grad_(False)
    before = {name: item.clone() for name, item in backbone.state_dict().items()}
    with torch.no_grad():
        assert grad_cam(backbone, head, torch.randn(1, 3, 8, 8), [0]).shape == (1, 4, 4)
    assert all(torch.equal(item, backbone.state_dict()[name]) for name, item in before.items())
    assert all(parameter.grad is None for parameter in (*backbone.parameters(), *head.parameters()))
    assert not any(part._forward_hooks for part in backbone.modules())


def test_where_a_class_token_is_read_the_last_layer_whose_patches_matter_is_taken() -> None:
    from lightning_transfer.backbones import load_backbone

    torch.manual_seed(0)
    backbone, card = load_backbone("timm/test_vit", weights="random")
    images = torch.randn(1, *card.input_size)
    found = grad_cam(backbone.eval(), nn.Linear(card.num_features, 2), images, [1])
    assert found.shape[1] == found.shape[2] > 1
    assert found.max() > 0


def test_the_evidence_lies_where_the_difference_is() -> None:
    backbone = Pooled()
    with torch.no_grad():
        backbone.layers[0].weight.fill_(0.1)
        backbone.layers[0].bias.zero_()
    head = nn.Linear(5, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[-1.0] * 5, [1.0] * 5]))
    images = torch.zeros(1, 3, 16, 16)
    images[:, :, 10:14, 2:6] = 1.0
    found = grad_cam(backbone, head, images, [1])[0]
    row, column = divmod(int(found.argmax()), found.shape[1])
    assert 5 <= row <= 6
    assert 1 <= column <= 2
    assert grad_cam(backbone, head, images, [0]).max() == 0


def test_wrong_classes_are_named(network: Any) -> None:
    backbone, head = network
    with pytest.raises(ValueError, match=r"0 to 3, got \[4\]"):
        grad_cam(backbone, head, torch.zeros(1, 3, 8, 8), [4])
    with pytest.raises(ValueError, match="each of 1 images, got 2"):
        grad_cam(backbone, head, torch.zeros(1, 3, 8, 8), [1, 1])


def predictor(**preprocessing: Any) -> Any:
    torch.manual_seed(0)
    module = nn.Module()
    module.backbone, module.head = Pooled(), nn.Linear(5, 2)
    schema = Schema(task="multiclass", classes=("good", "bad"), preprocessing=preprocessing)
    return SimpleNamespace(module=module, schema=schema, preprocess=lambda item: torch.ones(3, 8, 8))


def test_maps_have_the_size_of_the_pictures(tmp_path: Path) -> None:
    paths = []
    for place, size in enumerate([(30, 20), (7, 9)]):
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(np.zeros(size, dtype=np.uint8)).save(paths[-1])
    found = explain_classes(predictor(kind="image", size=[8, 8]), paths, [1, 0])
    assert [item.shape for item in found] == [(30, 20), (7, 9)]


@pytest.mark.parametrize("preprocessing", [{"kind": "text"}, {"kind": "image", "tiling": {"size": 4}}])
def test_what_is_no_whole_image_is_refused(preprocessing: dict[str, Any]) -> None:
    with pytest.raises(TransferError, match="whole images"):
        explain_classes(predictor(**preprocessing), ["a"], [0])


def test_a_memory_of_good_parts_has_heat_maps_instead() -> None:
    model = predictor(kind="image", size=[8, 8])
    model.module.learns_from = "negative"
    with pytest.raises(TransferError, match="classifier's head"):
        explain_classes(model, ["a"], [0])
