"""The script beside the model, without anything of this package, against the package."""

import ast
import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from lightning_transfer.data.images import ImagePreprocessing
from lightning_transfer.data.tiling import Tiling
from lightning_transfer.errors import DataError
from lightning_transfer.evaluation import load, predictions
from lightning_transfer.evaluation.tiles import join_logits
from lightning_transfer.export import exported_facts, predict_onnx
from lightning_transfer.export.predict_onnx import Model, Unreadable, join_tiles, judge, main, tensors
from lightning_transfer.types import BackboneCard, Calibration
from tests.unit.export.export_toys import CALIBRATION, CLASSES, pixels, schema, spec

SCRIPT = Path(predict_onnx.__file__)
CARD = BackboneCard("toy", "toy")
GREY = {"channels": 1, "mean": (0.4,), "std": (0.3,)}

# Runs a script as `python script words...`, in which no word of torch or of this package can be imported.
WITHOUT = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning_transfer", "lightning", "torchvision", "timm", "onnx"):
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(*words, code=0) -> str:
    """Run the script in a process of its own, in a folder of its own, without this package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", WITHOUT, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout


def rows(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text)))


# Preprocessing: bit for bit.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pad": "reflect"},
        {"pad": "none"},
        {"interpolation": "bicubic", "pad": "reflect", "size": (24, 40)},
        {"size": (70, 50), "interpolation": "bicubic"},
        {**GREY, "pad": "reflect"},
        {**GREY, "interpolation": "bicubic", "size": (9, 60)},
    ],
    ids=str,
)
def test_every_kind_of_picture_is_prepared_bit_for_bit_as_by_the_package(exported, changes):
    preprocessing = spec(**changes)
    plain = json.loads(json.dumps(preprocessing.to_dict()))
    for path in exported.pictures:
        found = tensors(path, plain)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[0], preprocessing(path).numpy(), err_msg=path.name)


@pytest.mark.parametrize("tiling", [Tiling((16, 16), 4), Tiling((20, 25), 7), Tiling((3, 3), 0)], ids=str)
def test_tiles_are_those_of_the_package(exported, tiling):
    preprocessing = spec(tiling=tiling, pad="reflect")
    plain = json.loads(json.dumps(preprocessing.to_dict()))
    for path in exported.pictures:
        try:
            expected = preprocessing.tiles(path).numpy()
        except DataError:
            with pytest.raises(Unreadable, match="and a tile has"):
                tensors(path, plain)
            continue
        np.testing.assert_array_equal(tensors(path, plain), expected)


def test_bit_depth(tmp_path):
    preprocessing = spec(bit_depth=12)
    Image.fromarray(pixels(20, 20, dtype=np.uint16) >> 4).save(tmp_path / "twelve.png")
    np.testing.assert_array_equal(
        tensors(tmp_path / "twelve.png", preprocessing.to_dict())[0], preprocessing(tmp_path / "twelve.png").numpy()
    )
    Image.fromarray(pixels(20, 20, dtype=np.uint16)).save(tmp_path / "sixteen.png")
    with pytest.raises(Unreadable, match="more than 12 bits"):
        tensors(tmp_path / "sixteen.png", preprocessing.to_dict())


def write_unusable(folder: Path) -> dict[str, str]:
    """Files that the package refuses, and what the script says of each."""
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture")
    Image.fromarray(pixels(300, 300, 3)).save(folder / "whole.png")
    (folder / "truncated.png").write_bytes((folder / "whole.png").read_bytes()[:5000])
    (folder / "whole.png").unlink()
    frames = [Image.fromarray(pixels(8, 8, seed=seed)) for seed in (1, 2)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((8, 8), 2.0, np.float32)).save(folder / "bright.tif")
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(folder / "wide.tif")
    Image.new("L", (1100, 1000)).save(folder / "large.png")
    Image.new("L", (2100, 1000)).save(folder / "very_large.png")
    return {
        "empty.png": "empty", "text.png": "cannot identify", "truncated.png": "truncated", "moving.gif": "2 frames",
        "bright.tif": "from 2 to 2", "wide.tif": "70000", "large.png": "1100 x 1000 pixels",
        "very_large.png": "exceeds limit", "missing.png": "No such file",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_the_package_refuses_is_refused_with_a_reason(tmp_path):
    preprocessing = spec(max_megapixels=1.0)
    limit = Image.MAX_IMAGE_PIXELS
    for name, reason in write_unusable(tmp_path).items():
        with pytest.raises(DataError):
            preprocessing(tmp_path / name)
        with pytest.raises(Unreadable, match=reason):
            tensors(tmp_path / name, preprocessing.to_dict())
    assert limit == Image.MAX_IMAGE_PIXELS


# Decisions.

TASKS = [
    {},
    {"negative_class": None},
    {"task": "binary", "classes": ("good", "bad"), "negative_class": None},
    {"task": "binary", "classes": ("good", "bad"), "negative_class": "bad"},
    {"task": "multilabel", "negative_class": None},
]


@pytest.mark.parametrize("threshold", [None, 0.0, 0.3, 0.62, 1.0])
@pytest.mark.parametrize("changes", TASKS, ids=str)
def test_decisions_are_those_of_the_package(changes, threshold):
    of = schema(**changes)
    calibration = Calibration(temperature=1.7, threshold=threshold)
    facts = exported_facts(CARD, of, calibration)
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 3, (300, of.num_logits)).astype(np.float32))
    logits[0] = 200.0 * torch.arange(of.num_logits)  # probabilities of 0 and 1
    logits[1] = 0.0  # all alike
    expected = predictions(logits, [str(place) for place in range(300)], of, calibration)
    for row, wanted in zip(logits.numpy(), expected, strict=True):
        probabilities, score, decision = judge(row, facts)
        assert decision == (wanted.decision if isinstance(wanted.decision, str) else "|".join(wanted.decision))
        assert probabilities == pytest.approx(list(wanted.probabilities.values()), rel=1e-12, abs=0)
        assert score == (None if wanted.score is None else pytest.approx(wanted.score, rel=1e-12, abs=0))


def test_labels_are_called_at_their_own_thresholds_as_by_the_package():
    of = schema(task="multilabel", negative_class=None)
    cuts = (0.2, 0.5, 0.9)
    calibration = Calibration(temperature=1.7, label_thresholds=cuts)
    facts = exported_facts(CARD, of, calibration)
    assert facts["label_thresholds"] == list(cuts)
    logits = torch.from_numpy(np.random.default_rng(2).normal(0, 3, (200, 3)).astype(np.float32))
    expected = predictions(logits, [str(place) for place in range(200)], of, calibration)
    assert any(row.decision != row.predicted for row in expected)
    for row, wanted in zip(logits.numpy(), expected, strict=True):
        assert judge(row, facts)[2] == "|".join(wanted.decision)
    older = {key: value for key, value in facts.items() if key != "label_thresholds"}
    assert judge(logits.numpy()[0], older)[2] == "|".join(expected[0].predicted)


def test_a_score_at_the_threshold_is_rejected_as_by_the_package():
    logits = torch.tensor([[0.3, 1.1, -0.4]])
    [row] = predictions(logits, ["a"], schema(), CALIBRATION)
    at = replace(CALIBRATION, threshold=row.score)
    [row] = predictions(logits, ["a"], schema(), at)
    assert (row.predicted, row.decision) == ("free", "crack")
    assert judge(logits.numpy()[0], exported_facts(CARD, schema(), at))[2] == "crack"


def test_logits_that_are_not_finite_decide_nothing():
    facts = exported_facts(CARD, schema(), CALIBRATION)
    assert judge(np.array([np.nan, 0.0, 0.0]), facts) == ([None] * 3, None, "undefined")


@pytest.mark.parametrize("top_k", [1, 2, 5, 9, None])
@pytest.mark.parametrize("changes", [TASKS[0], *TASKS[2:]], ids=str)
def test_tiles_are_joined_as_by_the_package(changes, top_k):
    preprocessing = spec(tiling=Tiling((8, 8), 2, top_k)).to_dict()
    of = schema(**{**changes, "preprocessing": preprocessing})
    facts = exported_facts(CARD, of, CALIBRATION)
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(0, 3, (5, of.num_logits)).astype(np.float32)
        expected = join_logits(torch.from_numpy(logits), of).numpy()
        np.testing.assert_allclose(join_tiles(logits, facts), expected, rtol=1e-6, atol=1e-6)


# The whole script.


def test_the_script_imports_nothing_but_onnxruntime_numpy_pillow_and_python():
    tree = ast.walk(ast.parse(SCRIPT.read_text()))
    found = set()
    for node in tree:
        if isinstance(node, ast.Import):
            found |= {item.name.partition(".")[0] for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "relative").partition(".")[0])
    assert found - set(sys.stdlib_module_names) == {"numpy", "PIL", "onnxruntime"}


def test_in_a_process_without_torch_it_decides_as_the_checkpoint(exported, tmp_path):
    copy = tmp_path / "predict_onnx.py"
    copy.write_bytes(SCRIPT.read_bytes())
    (tmp_path / "model.onnx").write_bytes(exported.onnx.read_bytes())
    found = rows(alone(copy, exported.folder / "pictures"))
    expected = load(exported.folder).predict(sorted(exported.pictures))
    assert len(found) == len(expected) == 16
    assert len({row.decision for row in expected}) > 1
    for row, wanted in zip(found, expected, strict=True):
        assert (row["path"], row["decision"], row["reason"]) == (wanted.id, wanted.decision, "")
        assert float(row["score"]) == pytest.approx(wanted.score, abs=1e-5)
        assert float(row["threshold"]) == 0.62
        shares = [float(row[f"probability_{name}"]) for name in CLASSES]
        assert shares == pytest.approx(list(wanted.probabilities.values()), abs=1e-5)


def test_without_onnxruntime_the_process_fails(tmp_path):
    """What keeps torch out keeps out what it names: the check above can fail."""
    script = tmp_path / "needs_torch.py"
    script.write_text("import torch")
    with pytest.raises(AssertionError, match="torch must not be imported"):
        alone(script)


def test_a_bad_file_keeps_its_row_and_the_exit_code_says_so(exported, tmp_path, capsys):
    (tmp_path / "a.png").write_text("no picture")
    words = [str(tmp_path / "a.png"), str(exported.pictures[0]), "--model", str(exported.onnx)]
    assert main(words) == 1
    printed = capsys.readouterr()
    bad, good = rows(printed.out)
    assert (bad["decision"], bad["score"], bad["probability_crack"]) == ("unreadable", "", "")
    assert "cannot identify" in bad["reason"]
    assert good["decision"] in CLASSES
    assert "1 of 2 files" in printed.err


def test_no_cell_is_a_formula_and_no_name_breaks_a_row(exported, tmp_path, monkeypatch):
    model = onnx.load(exported.onnx)
    names = ["=cmd|' /C calc'!A0", "free", " @pit"]
    properties = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, properties | {"lightning_transfer.classes": json.dumps(names)})
    onnx.save(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1.png", "-2.png", 'a,b\r\n"c.png', "\ud800.png".encode("utf-8", "surrogatepass").decode("latin1")):
        Image.fromarray(pixels(20, 20, 3)).save(name)
    assert main([".", "=1+1.png", "--model", "model.onnx", "--output", "out.csv"]) == 0
    with open("out.csv", newline="") as stream:
        table = list(csv.reader(stream))
    assert len(table) == 6
    assert {len(row) for row in table} == {8}
    cells = [cell for row in table for cell in row]
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]
    assert "'=1+1.png" in cells
    assert "'-2.png" in cells
    assert "probability_=cmd|' /C calc'!A0" in cells
    assert any(cell.startswith(("'=cmd", "' @pit", "free")) for cell in cells)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["none.png", "--model", "none.onnx"], "cannot use the model `none.onnx`"),
        (["nothing"], "no images in nothing"),
        (["none.png", "--model", "{model}", "--max_false_reject_rate", "0.2"], "rate 0.2; fitted: 0.05, 0.01"),
        (["none.png", "--model", "{model}", "--output", "there.csv"], "`there.csv` exists"),
        (["none.png", "--model", "foreign.onnx"], "not written by the verb `export`"),
    ],
)
def test_what_cannot_be_done_is_said_with_code_2(exported, tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    model = onnx.load(exported.onnx)
    del model.metadata_props[:]
    onnx.save(model, "foreign.onnx")
    with pytest.raises(SystemExit, match="2"):
        main([word.format(model=exported.onnx) for word in words])
    assert reason in capsys.readouterr().err
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_another_fitted_rate_decides_by_its_threshold(exported):
    path = exported.pictures[0]
    for rate, threshold in ((0.05, 0.62), (0.01, 0.9)):
        row = Model(exported.onnx, max_false_reject_rate=rate).predict(path)
        [wanted] = load(exported.folder, max_false_reject_rate=rate).predict([path])
        assert (row["threshold"], row["decision"]) == (threshold, wanted.decision)


def test_folders_give_their_images_in_order_without_hidden_ones(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "a.tif", ".hidden/3.png", "b/.4.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = list(predict_onnx.find_files([str(tmp_path), "given.xyz"]))
    assert [path.name for path in found] == ["a.tif", "1.jpg", "2.PNG", "given.xyz"]


def test_the_package_reads_the_same_specification():
    """The script knows each field of the preprocessing: a new one must be dealt with there too."""
    text = SCRIPT.read_text()
    for name in set(ImagePreprocessing.from_dict(spec().to_dict()).to_dict()) - {"kind"}:
        assert f'["{name}"]' in text, name
