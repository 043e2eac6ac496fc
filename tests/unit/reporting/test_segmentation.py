"""The page on masks: sections of what was measured, pictures of what is still there, and a verdict."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_transfer.evaluation.segmentation_maps import write_mask
from lightning_transfer.metrics import Interval
from lightning_transfer.reporting import write_report
from lightning_transfer.reporting.forgetting import Forgetting
from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.scores import Scores
from lightning_transfer.reporting.segmentation import mask_pictures, segmentation_verdict
from tests.unit.evaluation.test_segmentation_result import RESULT


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder, data = tmp_path / "run", tmp_path / "data"
    (folder / "test").mkdir(parents=True)
    data.mkdir()
    (folder / "config.yaml").write_text(f"# python -m recipes.vision fit\ndata:\n  root: {data}\n")
    schema = {"task": "segmentation", "classes": ["good", "pit"], "negative_class": "good", "columns": ["site"],
              "preprocessing": {"kind": "image"}, "counts": {"train": {"good": 5, "crater": 3}}}  # fmt: skip
    (folder / "data.json").write_text(json.dumps(schema))
    found = RESULT.to_dict()
    found["metrics"]["missed_rate"] = Interval(0.25, 0.1, 0.5, 4).to_dict()
    found["metrics"]["false_alarm_rate"] = Interval(0.0, 0.0, 0.3, 6).to_dict()
    found["worst_masks"] = [{**found["worst_masks"][0], "path": str(data / "a.png")}]
    (folder / "test" / "metrics.json").write_text(json.dumps(RESULT.flat()))
    (folder / "test" / "evaluation.json").write_text(json.dumps(found))
    Image.fromarray(np.full((8, 9), 99, dtype=np.uint8)).save(data / "a.png")
    write_mask(folder / "test" / "masks" / "a.png", np.eye(8, 9, dtype=np.int64), 2)
    return folder


def test_every_section_is_there(run: Path) -> None:
    write_report(run)
    report = json.loads((run / "report.json").read_text())
    assert not report["problems"]
    assert not any(section["problem"] for section in report["sections"].values())
    assert list(report["sections"]) == ["data", "plan", "curves", "scores", "kinds", "slices", "masks", "forgetting",
                                        "cost", "environment", "card"]  # fmt: skip
    assert report["sections"]["data"]["classes"] == ["good", "crater"]
    page = (run / "report.html").read_text()
    for text in ("plain U-Net from scratch", "millimetres", "Missed", "12 in the truth", "data:image/jpeg"):
        assert text in page, text
    assert "Draw where pit is" in (run / "model_card.md").read_text()


def test_before_a_test_sections_say_what_to_run(run: Path) -> None:
    (run / "test" / "metrics.json").unlink()
    write_report(run)
    report = json.loads((run / "report.json").read_text())
    for name in ("scores", "kinds", "masks"):
        assert "python -m recipes.vision test RUN" in report["sections"][name]["missing"]


def test_pictures_are_left_out_where_they_are_gone_or_lie_elsewhere(run: Path) -> None:
    assert list(mask_pictures(RunFiles.read(run))) == ["a"]
    path = run / "test" / "evaluation.json"
    found = json.loads(path.read_text())
    found["worst_masks"][0]["mask"] = "../../data/a.png"
    path.write_text(json.dumps(found))
    assert mask_pictures(RunFiles.read(run)) == {}


def test_the_verdict_says_where_to_look(run: Path) -> None:
    files = RunFiles.read(run)
    found = segmentation_verdict(files, Scores.read(files), Forgetting())
    assert len(found.sentences) == 3
    assert "Dice 0.500" in found.sentences[0]
    assert found.sentences[2] == "Look first at: 25.0% of the 4 pictures that show something, missed."
    assert "not known before the test" in segmentation_verdict(files, None, Forgetting()).sentences[2]


def test_a_file_of_another_form_is_named(run: Path) -> None:
    path = run / "test" / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kinds": "pit"}))
    assert "`kinds` of evaluation.json has another form than expected" in RunFiles.read(run).problems
