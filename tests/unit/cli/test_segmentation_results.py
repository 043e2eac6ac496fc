"""The sink begins with the first batch; the verbs as a user runs them are tests of the vision recipe."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from lightning_transfer.cli.segmentation_results import MaskSink
from lightning_transfer.modules.segmentation import PixelOutput
from tests.unit.evaluation.mask_toys import SCHEMA, SIZE, logits_of, pictures

RECORDS, TARGETS = pictures(3)


def _cli(folder: Path, read: list[str], save: bool = True) -> SimpleNamespace:
    data = SimpleNamespace(
        records_for=lambda split: RECORDS,
        input_size=lambda record: SIZE,
        load_labels=lambda record: read.append(record.id) or TARGETS[RECORDS.index(record)],
        pixel_spacing=lambda record: None,
    )
    options = {"evaluation": SimpleNamespace(save_masks=save)}
    return SimpleNamespace(datamodule=data, model=SimpleNamespace(schema=SCHEMA), output=folder, config_init=options)


def _output() -> PixelOutput:
    frame = torch.from_numpy(logits_of(np.ones((16, 16), dtype=np.int64), 0.0, 0))
    return PixelOutput(torch.stack([frame, frame]), torch.tensor([2, 0]))


def test_test_compares_and_predict_does_not(tmp_path: Path) -> None:
    read: list[str] = []
    sink = MaskSink(_cli(tmp_path, read), "test")
    assert sink.judge is None
    sink(_output())
    assert sorted(sink.judge.judged) == [0, 2]
    assert len(read) == 2
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["00000_good_0.png", "00002_crack_2.png"]
    sink = MaskSink(_cli(tmp_path / "other", read, save=False), "predict")
    sink(_output())
    assert len(read) == 2
    assert sorted(sink.writer.rows) == [0, 2]
    assert not (tmp_path / "other").exists()
