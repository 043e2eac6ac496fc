"""The wheel, installed outside the checkout, gives the callbacks and `load_backbone`, and nothing of the recipes."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CODE = """
import sys
from pathlib import Path
import torch
import lightning_transfer
from lightning_transfer import BackboneFreezeUnfreeze, DiscriminativeLR, ForgettingMonitor, load_backbone
from lightning_transfer.backbones import list_embedded
assert Path(lightning_transfer.__file__).is_relative_to(sys.argv[1]), lightning_transfer.__file__
BackboneFreezeUnfreeze("gradual"), DiscriminativeLR()
for name in list_embedded():
    backbone, card = load_backbone(name)
    assert backbone.eval()(torch.zeros(1, *card.input_size)).shape == (1, card.num_features)
    print("loaded", name, card.licence)
run = Path("run")
run.mkdir()
(run / "config.yaml").write_text("")
from lightning_transfer.reporting import write_report
assert "Verdict" in write_report(run).read_text()
"""


@pytest.mark.slow
def test_the_wheel_works_alone(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("recipes", "tests", "benchmarks"))]
    assert wheel.stat().st_size < 10_000_000
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel)], check=True
    )
    ran = subprocess.run(
        [sys.executable, "-c", CODE, str(site)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "loaded" in ran.stdout
