"""The rows beside a model that draws; one that fails keeps its reason."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_transfer.cli import segmentation_baselines
from lightning_transfer.cli.segmentation_baselines import other_drawers, plain_unet
from lightning_transfer.errors import TransferError
from lightning_transfer.evaluation import Scratch
from lightning_transfer.modules import SegmentationModule
from lightning_transfer.types import Batch
from tests.unit.evaluation.mask_toys import SCHEMA, SIZE, pictures

RECORDS, TARGETS = pictures(6)


def _module() -> SegmentationModule:
    module = SegmentationModule("timm/test_resnet", weights="random", class_weights=[0.5, 2.0], dice_share=0.25)
    module.use_schema(SCHEMA)
    module.configure_model()
    return module


def _cli(names: list[str], module: Any = None) -> Any:
    data = SimpleNamespace(
        records_for=lambda split: RECORDS,
        input_size=lambda record: SIZE,
        load_labels=lambda record: TARGETS[RECORDS.index(record)],
        pixel_spacing=lambda record: None,
        load_input=lambda record: torch.zeros(3, 16, 16),
        ordered_dataloader=lambda split, only: [
            Batch(torch.randn(len(only), 3, 16, 16), None, torch.tensor(sorted(only)))
        ],
    )
    trainer = SimpleNamespace(progress_bar_callback=None, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    options = {"evaluation": SimpleNamespace(baselines=names)}
    return SimpleNamespace(
        datamodule=data, model=module or SimpleNamespace(schema=SCHEMA), trainer=trainer, config_init=options
    )


def test_nothing_is_drawn_by_the_majority() -> None:
    rows, interrupted = other_drawers(_cli(["majority"]), [1, 2])
    assert not interrupted
    assert [item.place for item in rows["majority"].judged] == [1, 2]
    assert not any(item.draws for item in rows["majority"].judged)
    assert rows["majority"].description == "`good` everywhere"


def test_the_plain_unet_has_the_loss_the_classes_and_the_size() -> None:
    module = _module()
    twin = plain_unet(module)
    twin.configure_model()
    size, wanted = (sum(item.numel() for item in net.parameters()) for net in (twin, module))
    assert abs(size - wanted) < 0.15 * wanted
    assert twin.schema == SCHEMA
    assert twin.dice_share == 0.25
    assert twin.class_weights == [0.5, 2.0]
    assert twin.eval()(torch.randn(1, 3, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize("name", ["unet", "scratch"])
def test_networks_from_scratch_are_trained_and_judged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def train(cli: Any, *, show_progress: bool, module: Any) -> Scratch:
        asked.append(type(module).__name__)
        module.configure_model()
        return Scratch(module.eval(), 1e-3, {}, 1, 1, True, 2.0, "learning rate 0.001")

    monkeypatch.setattr(segmentation_baselines, "train_scratch", train)
    rows, _ = other_drawers(_cli([name], _module()), [0, 4])
    assert asked == ["PlainUNetModule" if name == "unet" else "SegmentationModule"]
    assert [item.place for item in rows[name].judged] == [0, 4]
    assert "parameters: learning rate 0.001" in rows[name].description
    assert rows[name].seconds == 2.0


def test_a_row_that_fails_keeps_its_reason_and_an_interrupt_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise TransferError("diverged")

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(segmentation_baselines, "train_scratch", fail)
    with pytest.warns(UserWarning, match="row `scratch` has no numbers.*diverged"):
        rows, interrupted = other_drawers(_cli(["scratch", "majority"], _module()), [0])
    assert rows["scratch"].judged is None
    assert rows["scratch"].description == "diverged"
    assert rows["majority"].judged
    assert not interrupted
    monkeypatch.setattr(segmentation_baselines, "train_scratch", stop)
    rows, interrupted = other_drawers(_cli(["scratch", "majority"], _module()), [0])
    assert interrupted
    assert list(rows) == ["scratch"]
