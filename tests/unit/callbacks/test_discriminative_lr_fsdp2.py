"""DiscriminativeLR under FSDP2, on two processes without an accelerator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit.callbacks.callback_toys import trainer
from tests.unit.callbacks.fsdp2_run import Keep, Project, callback

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_two_shards_train_save_and_resume_as_one_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = ROOT / "tests" / "unit" / "callbacks" / "fsdp2_run.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]

    single = tmp_path / "single"
    single.mkdir()
    trainer([callback(), Keep(single)], num_sanity_val_steps=0, limit_val_batches=0).fit(Project())
    expected = torch.load(single / "rank0.pt", weights_only=True)
    for kind in ("one_file", "shards"):
        whole, other, resumed = (
            torch.load(tmp_path / kind / name, weights_only=True)
            for name in ("whole/rank0.pt", "whole/rank1.pt", "resumed/rank0.pt")
        )
        assert whole["rates"] == other["rates"] == expected["rates"]
        assert resumed["rates"] == whole["rates"][8:]
        for name, value in expected["weights"].items():
            torch.testing.assert_close(whole["weights"][name], value, rtol=0, atol=1e-5)
            assert torch.equal(whole["weights"][name], other["weights"][name])
            assert torch.equal(whole["weights"][name], resumed["weights"][name])

    # Written under FSDP2 as one file, the optimizer's state is that of the user's own group, each tensor at its place.
    ours, theirs = (
        torch.load(path / "two.ckpt", weights_only=True)["optimizer_states"][0]
        for path in (tmp_path / "one_file" / "whole", single)
    )
    assert [len(group["params"]) for group in ours["param_groups"]] == [14]
    assert ours["param_groups"][0]["lr"] == theirs["param_groups"][0]["lr"] == pytest.approx(0.02 * 0.7**2)
    assert ours["state"].keys() == theirs["state"].keys()
    for index, state in theirs["state"].items():
        torch.testing.assert_close(ours["state"][index]["exp_avg"], state["exp_avg"], rtol=0, atol=1e-5)
