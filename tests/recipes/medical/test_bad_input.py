"""What users get wrong: each ends in a message that says what to do, before training, and names nobody."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.recipes.medical.conftest import NAME, draw, small_fit, write_dicom
from tests.recipes.verbs import Run


def refused(run: Run, words: Sequence[str], *expected: str) -> str:
    code, printed = run(*words)
    assert code != 0, printed
    for text in expected:
        assert text in printed, printed
    assert "Traceback" not in printed
    assert NAME not in printed
    assert not list(Path.cwd().rglob("*.ckpt"))
    return printed


def first(root: Path) -> Path:
    return sorted(root.rglob("0.png"))[0]


@pytest.mark.parametrize("damage", ["corrupt", "truncated", "empty", "missing"])
def test_unusable_images_are_named_by_the_file_alone(damage: str, chests: Path, run: Run) -> None:
    victim = first(chests)
    if damage == "truncated":
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    elif damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(b"" if damage == "empty" else b"\0no image" * 20)
    refused(run, small_fit(chests), "`0.png`", "1 of 96", "on_bad_file")


def test_unusable_images_can_be_skipped(chests: Path, run: Run) -> None:
    first(chests).write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 96 records are left out"):
        code, printed = run(*small_fit(chests), "--data.on_bad_file=skip", "--trainer.max_epochs=1")
    assert code == 0, printed
    assert NAME not in printed


def test_a_finding_without_positives(chests: Path, edit, run: Run) -> None:
    edit(lambda rows: [row.update(mass="0") for row in rows])
    refused(run, small_fit(chests, "edema", "mass"), "`mass`", "only 0")


def test_a_value_that_is_no_finding(chests: Path, edit, run: Run) -> None:
    edit(lambda rows: rows[4].update(mass="perhaps"))
    refused(run, small_fit(chests, "edema", "mass"), "row 6", "`mass` is `perhaps`", "-1 (uncertain)")


def test_a_patient_on_both_sides(chests: Path, edit, run: Run) -> None:
    edit(lambda rows: [row.update(split=("train", "val", "calibration", "test")[i % 4]) for i, row in enumerate(rows)])
    refused(run, small_fit(chests), "in more than one split")


def test_no_patient(chests: Path, edit, run: Run) -> None:
    edit(lambda rows: [row.pop("patient") for row in rows])
    refused(run, small_fit(chests), "No patient is known", "patient_column", "each_image")


def test_an_unknown_finding_and_a_wrong_root(chests: Path, tmp_path: Path, run: Run) -> None:
    refused(run, small_fit(chests, "oedema"), "No column `oedema`", "Did you mean `edema`")
    refused(run, small_fit(tmp_path / "nowhere"), "nowhere")


def test_four_channels(chests: Path, run: Run) -> None:
    """Behind what is transparent nobody knows what there is; an opaque picture in colours is read, and said."""
    victim = first(chests)
    Image.fromarray(np.full((32, 32, 4), 200, dtype=np.uint8)).save(victim)
    refused(run, small_fit(chests), "`0.png`", "transparent")
    opaque = np.full((32, 32, 4), 255, dtype=np.uint8)
    opaque[8:, :, 1] = 90
    Image.fromarray(opaque).save(victim)
    code, printed = run("check-data", *small_fit(chests)[1:])
    assert code == 0, printed
    assert "mixed-modes" in printed


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Modality": "CT"}, "modality"),
        ({"PixelData": None}, "pixel data"),
        ({"NumberOfFrames": "3"}, "3 frames"),
        ({"Rows": None}, "Rows"),
    ],
)
def test_dicom_that_cannot_be_used(chests: Path, edit, run: Run, tags, expected: str) -> None:
    write_dicom(chests / f"{NAME} 8" / "x.dcm", draw(0, mass=False, edema=True), **tags)
    edit(lambda rows: rows[0].update(path=f"{NAME} 8/x.dcm"))
    refused(run, [*small_fit(chests), "--data.modalities=[DX]"], "`x.dcm`", expected)


def test_a_wrong_option_of_the_recipe(chests: Path, run: Run) -> None:
    refused(run, [*small_fit(chests), "--data.windows=[lungs]"], "lungs", "Did you mean `lung`")
    refused(run, [*small_fit(chests), "--data.uncertian=ones"], "uncertian", "uncertain")
    refused(run, [*small_fit(chests), "--data.uncertain=one"], "`one`", "Did you mean `ones`")
    refused(run, [*small_fit(chests), "--data.pseudonym_key_file=none.key"], "none.key", "secrets.token_hex")
    refused(run, [*small_fit(chests), "--data.external_sites=[west]"], "`west`", "north 72")
