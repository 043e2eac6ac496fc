"""What `test` and `predict` add, on a stand-in for the command; the verbs themselves are tested with the recipe."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_transfer.cli.normal_only import more_metrics, write_maps
from lightning_transfer.evaluation import Outputs
from lightning_transfer.modules import ClassificationModule, NormalOnlyModule
from lightning_transfer.types import Calibration, Record, Schema

SCHEMA = Schema(
    task="binary", classes=("good", "defect"), negative_class="good",
    preprocessing={"kind": "image", "size": [32, 32], "pad": "none"},
)  # fmt: skip


@pytest.fixture
def cli(tmp_path: Path) -> Any:
    """A module with a memory and the distances of two images."""
    module = NormalOnlyModule("timm/test_resnet", weights="random", smoothing=0.0)
    module.use_schema(SCHEMA)
    module.configure_model()
    module.bank.fill(torch.randn(4, 3))
    module.grids = {0: torch.zeros(4, 4), 1: torch.eye(4)}
    trainer = SimpleNamespace(progress_bar_callback=None)
    options = SimpleNamespace(save_maps=True)
    return SimpleNamespace(
        model=module,
        trainer=trainer,
        output=tmp_path / "out",
        config_init={"evaluation": options},
        calibration=Calibration(threshold=0.5),
    )


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    for name in "ab":
        Image.new("L", (12, 8), 100).save(tmp_path / f"{name}.png")
    return [
        Record("x/a.png", tmp_path / "a.png", "good"),
        Record("y/b.png", tmp_path / "b.png", "defect", meta={"original_label": "pit"}),
    ]


def test_heat_maps_lie_beside_the_results(cli: Any, records: list[Record], capsys: pytest.CaptureFixture[str]) -> None:
    write_maps(cli, records)
    found = sorted((cli.output / "maps").iterdir())
    assert [path.name for path in found] == ["00000_x_a.png", "00001_y_b.png"]
    assert str(cli.output / "maps") in capsys.readouterr().out
    with Image.open(found[0]) as dark, Image.open(found[1]) as bright:
        assert dark.size == (12, 8)
        assert bright.getpixel((0, 0)) > dark.getpixel((0, 0))


def test_maps_are_written_if_asked_and_if_there_are_any(cli: Any, records: list[Record]) -> None:
    cli.config_init["evaluation"].save_maps = False
    write_maps(cli, records)
    cli.config_init["evaluation"].save_maps = True
    cli.model = ClassificationModule("timm/test_resnet", weights="random")
    with pytest.warns(UserWarning, match="`evaluation.save_maps` has no effect"):
        write_maps(cli, records)
    assert not cli.output.exists()


def test_more_metrics_are_of_normal_only_models_alone(cli: Any, records: list[Record]) -> None:
    outputs = Outputs(torch.tensor([[-1.0], [2.0]]), torch.zeros(2, 1), torch.tensor([0.0, 1.0]), torch.arange(2))
    found = more_metrics(cli, outputs, records)
    assert list(found) == ["recall_at_threshold_pit", "pixel_auroc", "pro"]
    assert found["recall_at_threshold_pit"].value == 1.0
    cli.model = ClassificationModule("timm/test_resnet", weights="random")
    assert more_metrics(cli, outputs, records) == {}
