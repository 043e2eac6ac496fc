"""Any backbone draws, the checkpoint is enough alone, schedules and rates take the decoder for the head."""

from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR
from lightning_transfer.backbones.feature_maps import read_maps
from lightning_transfer.modules import PlainUNetModule, SegmentationModule, TransferModule
from lightning_transfer.types import Batch, Schema

SCHEMA = Schema(task="segmentation", classes=("good", "pit", "crack"))


def _module(backbone: str = "timm/test_resnet", **options: object) -> SegmentationModule:
    module = SegmentationModule(backbone, weights="random", **options)
    module.use_schema(SCHEMA)
    module.configure_model()
    return module


def _loader() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    items = [
        (torch.randn(3, 32, 32, generator=generator), torch.randint(0, 3, (32, 32), generator=generator), place)
        for place in range(4)
    ]
    return DataLoader(items, batch_size=2, collate_fn=lambda rows: Batch(*map(_stack, zip(*rows, strict=True))))


def _stack(column: tuple) -> torch.Tensor:
    return torch.stack(column) if isinstance(column[0], torch.Tensor) else torch.tensor(column)


def _trainer(tmp_path: Path, **options: object) -> Trainer:
    return Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("timm/test_resnet", (33, 64)), ("timm/test_vit", (160, 160)), ("torchvision/squeezenet1_1", (64, 64))],
)
def test_any_backbone_draws_at_the_size_of_the_image(backbone: str, size: tuple[int, int]) -> None:
    module = _module(backbone).eval()
    assert module(torch.randn(2, 3, *size)).shape == (2, 3, *size)


def test_all_that_trains_has_a_gradient() -> None:
    """Else DDP would refuse: what no map depends on is frozen."""
    module = _module("timm/test_vit")
    module.loss(module(torch.randn(2, 3, 160, 160)), torch.zeros(2, 160, 160, dtype=torch.long)).backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert {name for name, item in module.backbone.named_parameters() if not item.requires_grad} == {
        "norm.weight",
        "norm.bias",
    }


def test_a_checkpoint_is_enough_alone(tmp_path: Path) -> None:
    module = _module(decoder_widths=[32, 24, 16, 16, 16], class_weights=[0.5, 1.0, 2.0], head_dropout=0.1)
    trainer = _trainer(tmp_path)
    trainer.fit(module, _loader(), _loader())
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert checkpoint["lightning_transfer"]["module"] == "SegmentationModule"
    again = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    assert isinstance(again, SegmentationModule)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(images), module.eval()(images))
    assert again.rebuild_arguments() == module.rebuild_arguments()
    assert again.layers == module.layers


def test_a_recipes_plain_unet_is_restored_too(tmp_path: Path) -> None:
    module = PlainUNetModule("timm/test_resnet", num_parameters=20_000)
    module.use_schema(SCHEMA)
    trainer = _trainer(tmp_path)
    trainer.fit(module, _loader(), _loader())
    trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    again = TransferModule.from_checkpoint(tmp_path / "model.ckpt")
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(images), module.eval()(images))


def test_the_decoder_is_the_head_of_schedules_and_rates(tmp_path: Path) -> None:
    module = SegmentationModule(
        "timm/test_resnet", weights="random", optimizer=lambda params: torch.optim.SGD(params, lr=0.1)
    )
    module.use_schema(SCHEMA)
    seen: dict[str, set[str]] = {"frozen": set(), "rates": set()}

    before: dict[str, torch.Tensor] = {}

    def look(batch: Batch, batch_idx: int) -> torch.Tensor:
        if not before:
            before.update({name: value.detach().clone() for name, value in module.named_parameters()})
            seen["frozen"] = {name.split(".")[0] for name, item in module.named_parameters() if not item.requires_grad}
            assert not module.backbone.layer1.training
            for group in module.trainer.optimizers[0].param_groups:
                if any(item is parameter for item in group["params"] for parameter in module.head.parameters()):
                    seen["rates"].add(f"{group['lr']:g}")
        return SegmentationModule.training_step(module, batch, batch_idx)

    module.training_step = look  # type: ignore[method-assign]
    callbacks = [BackboneFreezeUnfreeze("feature_extraction"), DiscriminativeLR(total_ratio=0.01)]
    _trainer(tmp_path, callbacks=callbacks).fit(module, _loader(), _loader())
    assert seen == {"frozen": {"backbone"}, "rates": {"0.1"}}
    changed = {name.split(".")[0] for name, value in module.named_parameters() if not torch.equal(before[name], value)}
    assert changed == {"head"}


def test_the_maps_are_those_of_the_layers_whatever_follows_in_place() -> None:
    module = _module()
    kept: dict[str, torch.Tensor] = {}
    for name in module.layers:
        part = module.backbone.get_submodule(name)
        part.register_forward_hook(lambda _, __, output, name=name: kept.update({name: output.clone()}))
    _, maps = read_maps(module.backbone.eval(), module.layers, torch.randn(1, 3, 64, 64))
    assert all(torch.equal(kept[name], item) for name, item in zip(module.layers, maps, strict=True))


def test_a_sink_takes_the_outputs_and_nothing_is_kept(tmp_path: Path) -> None:
    module, seen = _module(), []
    module.sink = seen.append
    trainer = _trainer(tmp_path)
    trainer.test(module, _loader(), verbose=False)
    assert [tuple(item.logits.shape) for item in seen] == [(2, 3, 32, 32)] * 2
    assert [item.logits.numel() for item in module.test_outputs] == [0, 0]
    module.sink = None
    (first, _) = trainer.predict(module, _loader())
    assert torch.equal(first.logits, seen[0].logits)
    assert first.index.tolist() == [0, 1]


def test_wrong_options_are_refused() -> None:
    for options, text in (
        ({"dice_share": 1.5}, r"`dice_share` in \[0, 1\], got 1.5"),
        ({"class_weights": [-1.0]}, r"`class_weights` of at least 0.*-1.0"),
        ({"layers": []}, "`layers`, got an empty list"),
        ({"decoder_widths": [0]}, r"`decoder_widths` of at least 1, got \[0\]"),
    ):
        with pytest.raises(ValueError, match=text):
            SegmentationModule("timm/test_resnet", weights="random", **options)
    with pytest.raises(MisconfigurationException, match="has 2 numbers, and there are 3 classes"):
        _module(class_weights=[1.0, 2.0])
    module = SegmentationModule("timm/test_resnet", weights="random")
    module.use_schema(Schema(task="multiclass", classes=("a", "b")))
    with pytest.raises(MisconfigurationException, match="draws masks, and the data are multiclass"):
        module.configure_model()
    with pytest.raises(MisconfigurationException, match="has no masks"):
        _module().training_step(Batch(torch.zeros(1, 3, 64, 64), None, torch.arange(1)), 0)
