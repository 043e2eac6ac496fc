"""The demo's chests: real DICOM that says what was drawn, the same from the same seed, whole or not at all."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.errors import DataError
from recipes.medical.cli import RECIPE
from recipes.medical.sample import make
from recipes.medical.sample.make import COLUMNS, SITES, main, write_phantoms
from recipes.medical.sample.phantoms import FINDINGS, Chest, draw_chest
from tests.recipes.verbs import Run

pydicom = pytest.importorskip("pydicom")
PLAIN = SITES[0].scanner._replace(noise=0.0)


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "set", num_patients=60, size=48)


def test_headers_say_what_the_table_says(drawn: Path) -> None:
    rows = rows_of(drawn)
    assert tuple(rows[0]) == COLUMNS
    studies = Counter(row["patient"] for row in rows)
    assert set(studies.values()) == {1, 2, 3}
    sites = {site.name: site for site in SITES}
    for row in rows[::5]:
        header = pydicom.dcmread(drawn / row["path"])  # not by force: a whole file, with its preamble
        scanner = sites[row["site"]].scanner
        assert (header.PatientID, header.PatientSex, header.ViewPosition) == (row["patient"], row["sex"], row["view"])
        assert int(header.PatientAge.removesuffix("Y")) == int(row["age"])
        assert f"{header.Manufacturer} {header.ManufacturerModelName}" == row["scanner"] == scanner.name
        assert (header.BitsAllocated, header.BitsStored, header.HighBit) == (16, scanner.bits, scanner.bits - 1)
        assert header.PhotometricInterpretation == scanner.photometric
        assert header.pixel_array.max() < 2**scanner.bits
    assert {site.scanner.photometric for site in SITES} == {"MONOCHROME1", "MONOCHROME2"}
    uids = [pydicom.dcmread(drawn / row["path"], stop_before_pixels=True).SOPInstanceUID for row in rows]
    assert len(set(uids)) == len(rows)


def test_patients_have_one_site_one_sex_and_one_age(drawn: Path) -> None:
    for column in ("site", "sex", "age", "scanner"):
        pairs = {(row["patient"], row[column]) for row in rows_of(drawn)}
        assert len(pairs) == 60


def test_more_than_256_grey_values_and_dense_is_bright_at_both_sites(drawn: Path) -> None:
    from lightning_transfer.data.scan_files import read_scan
    from lightning_transfer.data.scan_options import ScanOptions

    levels, contrast = {}, {}
    for row in rows_of(drawn)[::3]:
        pixels = read_scan(drawn / row["path"], ScanOptions()).pixels[..., 0]
        levels[row["site"]] = len(np.unique(pixels))
        spine, lung = pixels[8:30, 23:25], np.minimum(pixels[18:22, 12:18].mean(), pixels[18:22, 30:36].mean())
        contrast.setdefault(row["site"], []).append(spine.mean() - lung)
    assert min(levels.values()) > 256
    assert all(min(found) > 0.2 for found in contrast.values())


def test_the_window_of_a_site_is_the_one_that_the_pixels_were_made_for(drawn: Path) -> None:
    from lightning_transfer.data.scan_files import read_scan
    from lightning_transfer.data.scan_options import ScanOptions

    row = next(row for row in rows_of(drawn) if row["site"] == "clinic")
    stored = pydicom.dcmread(drawn / row["path"]).pixel_array / 4095
    shown = read_scan(drawn / row["path"], ScanOptions()).pixels[..., 0]
    np.testing.assert_allclose(shown, stored, atol=1e-3)


def test_one_site_has_most_of_one_finding_and_not_of_the_others(tmp_path: Path) -> None:
    rates = {site.name: dict(zip(FINDINGS, site.rates, strict=True)) for site in SITES}
    root = write_phantoms(tmp_path / "many", num_patients=150, size=32)
    for site, expected in rates.items():
        for name in FINDINGS:
            by_patient: dict[str, set[str]] = {}
            for row in rows_of(root):
                if row["site"] == site:
                    by_patient.setdefault(row["patient"], set()).add(row[name])
            share = np.mean(["1" in found for found in by_patient.values()])
            error = 3.5 * np.sqrt(0.25 / len(by_patient))
            assert share == pytest.approx(expected[name], abs=error + 0.05), (site, name)
    cells = Counter(row[name] for row in rows_of(root) for name in FINDINGS)
    assert set(cells) == {"1", "0", "-1", ""}


@pytest.mark.parametrize("name", FINDINGS)
def test_a_lesion_changes_its_lung_and_nothing_else(name: str) -> None:
    for seed in range(6):
        chest = Chest.draw(np.random.default_rng(seed))
        without, with_it = (draw_chest(np.random.default_rng(seed), chest, PLAIN, names, 96) for names in ((), (name,)))
        change = with_it - without
        assert change.max() > 0.12
        mirrored = change[:, :48] if chest.side > 0 else change[:, 48:]
        assert np.abs(mirrored).max() < 0.02


def test_the_same_seed_gives_the_same_files_and_another_gives_others(tmp_path: Path, drawn: Path) -> None:
    again = write_phantoms(tmp_path / "again", num_patients=60, size=48)
    other = write_phantoms(tmp_path / "other", num_patients=60, size=48, seed=1)
    name = rows_of(drawn)[0]["path"]
    assert (again / "manifest.csv").read_bytes() == (drawn / "manifest.csv").read_bytes()
    assert (again / name).read_bytes() == (drawn / name).read_bytes()
    assert (other / "manifest.csv").read_bytes() != (drawn / "manifest.csv").read_bytes()


def test_more_patients_leave_the_first_ones_as_they_are(tmp_path: Path, drawn: Path) -> None:
    fewer = write_phantoms(tmp_path / "fewer", num_patients=5, size=48)
    assert rows_of(fewer) == rows_of(drawn)[: len(rows_of(fewer))]


def test_what_is_there_stays_and_a_failed_write_leaves_nothing(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in drawn.rglob("*")}
    write_phantoms(drawn, num_patients=60, size=48)
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*")} == before

    real, calls = make._dataset, []

    def breaks(*args: object) -> object:
        calls.append(args)
        if len(calls) > 3:
            raise OSError("disk full")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(make, "_dataset", breaks)
    with pytest.raises(OSError, match="disk full"):
        write_phantoms(tmp_path / "home" / "set", num_patients=5, size=32)
    assert list((tmp_path / "home").iterdir()) == []


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    root = write_phantoms(tmp_path / "set", num_patients=3, size=32)
    with pytest.raises(DataError, match="phantoms of other arguments: seed 0, now 5"):
        write_phantoms(root, num_patients=3, size=32, seed=5)
    (root / rows_of(root)[0]["path"]).unlink()
    with pytest.raises(DataError, match=r"is damaged: \d+ of \d+ images"):
        write_phantoms(root, num_patients=3, size=32)
    (root / "phantoms.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="holds no phantoms"):
        write_phantoms(root, num_patients=3, size=32)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.dcm").touch()
    with pytest.raises(DataError, match="not empty and holds no phantoms"):
        write_phantoms(tmp_path / "mine")


@pytest.mark.parametrize(("name", "value"), [("seed", -1), ("num_patients", 1), ("size", 31)])
def test_arguments_out_of_range_are_named(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"`{name}` of at least .*got {value}"):
        write_phantoms(tmp_path / "set", **{name: value})
    with pytest.raises(ValueError, match="no finding `fracture`"):
        draw_chest(np.random.default_rng(0), Chest.draw(np.random.default_rng(0)), PLAIN, ["fracture"])


def test_the_command_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "set"), "--num_patients", "2", "--size", "32"])
    assert capsys.readouterr().out == f"Phantoms: {tmp_path / 'set'}\n"


def test_the_recipe_draws_them_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recipes.medical.data import MedicalDataModule

    monkeypatch.setattr(
        make, "write_phantoms", lambda root, seed: write_phantoms(root, seed=seed, num_patients=12, size=32)
    )
    data = MedicalDataModule(str(tmp_path / "set"), findings=list(FINDINGS), sample=True, sample_seed=3)
    data.prepare_data()
    records = data.read_records()
    assert len({record.group for record in records}) == 12
    assert {record.meta["site"] for record in records} <= {site.name for site in SITES}
    # Identifiers are pseudonyms here too.
    assert not any("phantom" in str((record.id, record.group, record.meta)) for record in records)


def test_the_demo_plans_from_its_config(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the time of a fit: every option of the config is known, and the phantoms are what it expects."""
    monkeypatch.setattr(
        make, "write_phantoms", lambda root, seed: write_phantoms(root, seed=seed, num_patients=30, size=32)
    )
    code, said = run("plan", "--config", str(RECIPE.configs / "demo.yaml"))
    assert code == 0, said
    assert len({row["patient"] for row in rows_of(Path("runs/data/phantoms"))}) == 30
    assert "layer4" in said
