"""The configs whose weights come from a hub: one step each, with random weights, on images in their layout."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.recipes.medical.conftest import draw, write_dicom, write_png
from tests.recipes.verbs import run_folder

CONFIGS = Path(__file__).parents[3] / "recipes" / "medical" / "configs"


def _arrays(root: Path) -> Path:
    root.mkdir()
    values = {}
    for split, count in (("train", 16), ("val", 6), ("test", 6)):
        images = [draw(i, mass=False, edema=bool(i % 2)) // 16 for i in range(count)]
        values[f"{split}_images"] = np.stack(images).astype(np.uint8)
        values[f"{split}_labels"] = (np.arange(count) % 2)[:, None]
    np.savez(root / "set.npz", **values)
    return root / "set.npz"


def _chexpert(root: Path) -> Path:
    findings = yaml.safe_load((CONFIGS / "chexpert_csv_densenet121_gradual.yaml").read_text())["data"]["findings"]
    for table, patients in (("train", range(24)), ("valid", range(24, 32))):
        lines = [["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *findings]]
        for patient in patients:
            for number, view in enumerate(("Frontal", "Lateral")):
                name = f"CheXpert-v1.0-small/{table}/patient{patient:05}/study1/view{number}.png"
                write_png(root / name, draw(patient, mass=False, edema=bool(patient % 2)))
                labels = [("1.0", "0.0", "-1.0", "")[(patient + i) % (4 if table == "train" else 2)] for i in range(14)]
                lines.append([name, "Male", str(30 + patient), view, "PA", *labels])
        with (root / "CheXpert-v1.0-small" / f"{table}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(lines)
    return root


def _dicom(root: Path) -> Path:
    for patient in range(24):
        kind = "ill" if patient % 2 else "normal"
        write_dicom(root / kind / f"{patient}.dcm", draw(patient, mass=False, edema=bool(patient % 2)),
                    PatientID=str(patient))  # fmt: skip
    return root


def _nnunet(root: Path) -> Path:
    nibabel = pytest.importorskip("nibabel")
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in range(10):
        values = np.random.default_rng(case).normal(0, 30, (24, 20, 4))
        labels = np.zeros(values.shape, dtype=np.uint8)
        labels[6:14, 5:12] = 1
        values[labels == 1] += 150
        for folder, data, name in (
            ("imagesTr", values.astype(np.float32), f"c{case}_0000"),
            ("labelsTr", labels, f"c{case}"),
        ):
            nibabel.save(nibabel.Nifti1Image(data, np.diag([0.8, 0.9, 3.0, 1.0])), root / folder / f"{name}.nii.gz")
    description = {"labels": {"background": 0, "spleen": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


CASES: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "chexpert_csv_densenet121_gradual": (_chexpert, ["--data.num_workers=0", "--check_data=false"]),
    "dicom_folder_convnext_gradual": (_dicom, []),
    "medmnist_npz_resnet18_lp_ft": (_arrays, ["--check_data=false"]),
    "nifti_slices_resnet34_unet": (_nnunet, []),
}


def test_every_config_that_was_not_measured_is_tried_here() -> None:
    unmeasured = {path.stem for path in CONFIGS.glob("*.yaml") if "Measured: not measured" in path.read_text()}
    texts = {path.stem: " ".join(path.read_text().split()) for path in CONFIGS.glob("*.yaml")}
    assert set(CASES) == {name for name in unmeasured if "a test runs one step" in texts[name]}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_step_runs_and_the_schedule_is_as_the_config_says(name: str, tmp_path: Path, run: Callable) -> None:
    write, words = CASES[name]
    root = write(tmp_path / "images")
    config = CONFIGS / f"{name}.yaml"
    code, printed = run(
        "fit", "--config", str(config), f"--data.root={root}", "--model.weights=random", "--data.batch_size=4",
        "--data.image_size=64", "--trainer.max_steps=1", "--trainer.limit_val_batches=2", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", *words,
    )  # fmt: skip
    assert code == 0, printed
    folder = run_folder(printed)
    assert (folder / "model.ckpt").is_file()
    stages = yaml.safe_load((folder / "plan.json").read_text())["stages"]
    values = yaml.safe_load(config.read_text())
    epochs = values["trainer"]["max_epochs"]
    assert stages[-1]["epoch"] < epochs, "the last stage never comes"
    assert values["model"]["scheduler"]["init_args"]["T_max"] == epochs
