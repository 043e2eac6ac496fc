"""The benchmark of masks: what is stored comes back, folds are joined rightly, and nothing is run twice."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import segmentation
from benchmarks.segmentation import LAYERS, SCHEDULES, Drawn, pool, read_all, read_drawn, write_drawn
from lightning_transfer.evaluation import judge_mask
from lightning_transfer.types import Record

CONFIGS = Path(__file__).parents[2] / "recipes" / "vision" / "configs"


def drawn(fold: int, noise: float, images: int = 6) -> Drawn:
    """Squares on a dark ground, drawn the worse the more noise there is; every second image shows nothing."""
    draw = np.random.default_rng(fold)
    records, judged = [], []
    for place in range(images):
        target = np.zeros((12, 12), dtype=np.int64)
        if place % 2:
            target[3:6, 3:6] = 1
        odds = np.where(target > 0, 4.0, -4.0) + noise * draw.normal(size=target.shape)
        judged.append(judge_mask(place, np.stack([-odds / 2, odds / 2]).astype(np.float32), target))
        records.append(Record(f"{fold}-{place}", None, label="crack" if place % 2 else "free", group=f"{fold}-{place}"))
    return Drawn(tuple(records), tuple(judged), f"noise {noise}", 2.0, 1.5, 0.25)


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    before = drawn(0, 3.0)
    write_drawn(tmp_path / "embedded-0.pt", before)
    after = read_drawn(tmp_path / "embedded-0.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["embedded-0.pt"]
    assert (after.about, after.seconds, after.cpu_seconds, after.val_dice) == ("noise 3.0", 2.0, 1.5, 0.25)
    assert [(item.id, item.label, item.group) for item in after.records] == [
        (item.id, item.label, item.group) for item in before.records
    ]
    for old, new in zip(before.judged, after.judged, strict=True):
        assert (old.place, old.unit, old.score) == (new.place, new.unit, new.score)
        for one, other in ((old.overlap, new.overlap), (old.pixels, new.pixels), ([old.distance], [new.distance])):
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


def test_places_point_into_the_records_of_all_folds() -> None:
    records, judged = pool([drawn(0, 1.0), drawn(3, 1.0)])
    assert [item.place for item in judged] == list(range(12))
    assert records[judged[7].place].id == "3-1"
    assert all(item.shows == (records[item.place].label == "crack") for item in judged)


def test_each_part_runs_once_and_the_unet_stands_beside_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, int]] = []

    def pretrained(name: str, fold: int, args: object) -> Drawn:
        ran.append((name, fold))
        return drawn(fold, 0.0)

    def unet(fold: int, args: object) -> Drawn:
        ran.append(("unet", fold))
        return drawn(fold, 30.0)

    monkeypatch.setattr(segmentation, "run_pretrained", pretrained)
    monkeypatch.setattr(segmentation, "run_unet", unet)
    command = ["segmentation", "--out", str(tmp_path), "--size", "64", "--folds", "0", "2"]
    monkeypatch.setattr(sys, "argv", command)
    segmentation.main()
    assert ran == [(name, fold) for fold in (0, 2) for name in ("embedded", "mobilenetv2", "unet")]
    capsys.readouterr()
    segmentation.main()
    assert len(ran) == 6, "what is stored was run again"
    printed = capsys.readouterr().out
    for name in SCHEDULES:
        assert f"{name}: 2 folds, 12 images of 12 tiles" in printed
    [line, _] = [line for line in printed.splitlines() if line.startswith("| dice |")]
    _, _, n, own, other, minus, _ = (cell.strip() for cell in line.split("|"))
    assert (n, own) == ("12", "1.000 [1.000, 1.000]")
    assert float(minus.split()[0]) == pytest.approx(1.0 - float(other.split()[0]), abs=2e-3)
    assert "| dice_on_crack | 6 | 1.000" in printed
    assert "unet, fold 2: noise 30.0; 2 CPU s" in printed


def test_without_the_unet_of_a_fold_the_others_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fold in (0, 1):
        write_drawn(tmp_path / f"embedded-{fold}.pt", drawn(fold, 0.0))
    write_drawn(tmp_path / "unet-1.pt", drawn(1, 30.0))
    segmentation.print_tables(read_all(tmp_path), n_resamples=50)
    assert "embedded: 1 folds, 6 images" in capsys.readouterr().out


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_networks_are_those_of_the_configs(name: str) -> None:
    values = yaml.safe_load((CONFIGS / f"magnetic_tile_{name}_unet.yaml").read_text())
    freeze, decay = values["trainer"]["callbacks"]
    assert freeze["init_args"]["schedule"] == SCHEDULES[name]
    assert values["model"].get("layers") == (LAYERS if name == "mobilenetv2" else None)
    assert values["model"]["optimizer"]["init_args"] == {"lr": 1e-3, "weight_decay": 0.05}
    assert decay["init_args"] == {"total_ratio": 0.1}
    assert (values["data"]["batch_size"], values["data"]["pad"]) == (16, "none")
