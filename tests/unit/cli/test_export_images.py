"""How images are exported, step by step; the verb as a whole is tested in `tests/recipes/vision/test_export.py`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lightning_transfer.cli.export_images import ImageForm
from lightning_transfer.evaluation import load
from lightning_transfer.export import ParityError
from lightning_transfer.types import Record
from tests.unit.export.export_toys import classifier, save, write_pictures


@pytest.fixture(scope="module")
def form(tmp_path_factory) -> ImageForm:
    predictor = load(save(tmp_path_factory.mktemp("run"), classifier()))
    return ImageForm(SimpleNamespace(calibration=predictor.calibration), predictor)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    return [Record(path.name, path) for path in write_pictures(tmp_path_factory.mktemp("pictures"))]


def test_logits_are_the_checkpoints_and_the_prepared_pictures_too(form: ImageForm, records: list[Record]) -> None:
    runs = {"eager": form.torch_run(form.predictor.module)}
    rows = np.stack([row["eager"] for row in form.logits(runs, records)])
    np.testing.assert_allclose(rows, form.predictor.outputs(records)[0].numpy(), rtol=0, atol=1e-5)
    assert form.report({}, records) == {"max_input_difference": 0.0}
    assert form.latency_inputs(records).shape == (1, 3, 32, 32)
    assert form.ways == ("",)


def test_a_difference_of_the_prepared_pictures_is_reported(form: ImageForm, records: list[Record], monkeypatch) -> None:
    from lightning_transfer.export import predict_onnx

    exact = predict_onnx.tensors
    monkeypatch.setattr(predict_onnx, "tensors", lambda *given: exact(*given) + np.float32(0.25))
    list(form.logits({}, records[:1]))
    assert form.report({}, records)["max_input_difference"] == pytest.approx(0.25, abs=1e-6)


def test_what_the_script_cannot_read_is_named(form: ImageForm, tmp_path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(ParityError, match=r"`predict_onnx\.py` cannot read `x`"):
        list(form.logits({}, [Record("x", tmp_path / "x.png")]))


def test_the_script_is_one_file(form: ImageForm, tmp_path) -> None:
    form.write_script(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["predict_onnx.py"]
