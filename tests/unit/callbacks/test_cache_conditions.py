"""Each condition says what is wrong, by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_transfer.backbones.find_cut import find_cut
from lightning_transfer.callbacks.cache_conditions import (
    CacheRefusedError,
    check_cut,
    check_module,
    check_trainer,
    check_transforms,
    loaders_of,
)
from lightning_transfer.modules import NormalOnlyModule, PlainUNetModule, TransferModule
from tests.unit.callbacks.cache_toys import Pictures, make_module


class Prepared(TransferModule):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def backbone_of(cls: Any) -> Any:
    return cls("timm/test_resnet", weights="random")


def test_modules_that_go_other_ways_are_refused() -> None:
    check_module(make_module())
    with pytest.raises(CacheRefusedError, match="`LightningModule` is no `TransferModule`"):
        check_module(pl.LightningModule())
    with pytest.raises(CacheRefusedError, match=r"`Prepared\.on_after_batch_transfer` may change the inputs"):
        check_module(backbone_of(Prepared))
    with pytest.raises(CacheRefusedError, match="a bank of normal patches is filled in one pass"):
        check_module(backbone_of(NormalOnlyModule))
    with pytest.raises(CacheRefusedError, match="a plain U-Net has no frozen layers"):
        check_module(backbone_of(PlainUNetModule))


def test_recognisers_with_masks_and_decoders_are_refused() -> None:
    pytest.importorskip("transformers")
    from lightning_transfer.modules import SpecAugment
    from tests.unit.callbacks.cache_domains import make_recogniser

    check_module(make_recogniser())
    with pytest.raises(CacheRefusedError, match="`spec_augment` hides other parts of a recording in each step"):
        check_module(make_recogniser(spec_augment=SpecAugment()))


def test_compiled_networks_are_refused() -> None:
    module = make_module()
    module.backbone.layer1.compile()
    with pytest.raises(CacheRefusedError, match="the network is compiled"):
        check_module(module)


def test_strategies_that_divide_parameters_are_refused() -> None:
    class FSDPStrategy:
        pass

    with pytest.raises(CacheRefusedError, match="`FSDPStrategy` divides parameters"):
        check_trainer(SimpleNamespace(strategy=FSDPStrategy(), reload_dataloaders_every_n_epochs=0))  # type: ignore[arg-type]


def test_a_part_in_train_mode_is_named() -> None:
    module = make_module()
    cut = find_cut(module.backbone, torch.randn(2, 3, 32, 32), {id(module.backbone.layer4[0].conv1.weight)}, rows=2)
    module.backbone.eval()
    check_cut(module.backbone, cut)
    module.backbone.layer4.train()  # behind the cut
    check_cut(module.backbone, cut)
    module.backbone.layer2[0].bn1.train()
    with pytest.raises(CacheRefusedError, match=r"`backbone\.layer2\.0\.bn1` \(BatchNorm2d\) is in train mode"):
        check_cut(module.backbone, cut)
    module.backbone.eval()
    module.backbone.training = True  # a dropout that is a function would look here
    with pytest.raises(CacheRefusedError, match=r"`backbone` \(ResNet\) is in train mode"):
        check_cut(module.backbone, cut)


def loaders(data: Pictures) -> dict[str, DataLoader[Any]]:
    module = make_module()
    data.trainer = SimpleNamespace(lightning_module=module, world_size=1)  # type: ignore[assignment]
    data.setup("fit")
    return loaders_of(SimpleNamespace(train_dataloader=data.train_dataloader(), val_dataloaders=data.val_dataloader()))  # type: ignore[arg-type]


def test_random_transforms_are_refused_unless_views_are_stored() -> None:
    check_transforms(loaders(Pictures()), None)
    random = loaders(Pictures(flips=True))
    with pytest.raises(CacheRefusedError, match=r"changed at random in each epoch.*`FeatureCache\(views=4\)`"):
        check_transforms(random, None)
    check_transforms(random, 2)


def test_a_reader_that_is_random_itself_is_seen() -> None:
    class Random(Pictures):
        def load_input(self, record: Any) -> Any:
            return record.input + torch.rand(())

    with pytest.raises(CacheRefusedError, match="the train data give another input each time"):
        check_transforms(loaders(Random()), None)


def test_loaders_of_other_kinds_are_named() -> None:
    foreign = DataLoader([1, 2])  # type: ignore[arg-type]
    with pytest.raises(CacheRefusedError, match="the train data come from a `DataLoader` of another kind"):
        loaders_of(SimpleNamespace(train_dataloader=foreign, val_dataloaders=None))  # type: ignore[arg-type]
    own = loaders(Pictures())
    with pytest.raises(CacheRefusedError, match="the val 1 data come"):
        loaders_of(SimpleNamespace(train_dataloader=own["train"], val_dataloaders=[own["val"], foreign]))  # type: ignore[arg-type]


def test_a_module_without_a_backbone_is_refused() -> None:
    module = nn.Module()
    module.encode = lambda _: None
    with pytest.raises(CacheRefusedError, match="`Module` is no `TransferModule`"):
        check_module(module)  # type: ignore[arg-type]
