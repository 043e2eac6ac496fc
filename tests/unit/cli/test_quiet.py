import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lightning_transfer.cli.quiet import NOISE, drop_noise

ROOT = Path(__file__).parents[3]


def test_only_noise_is_dropped_however_often_it_is_called(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    filters = list(logger.filters)
    try:
        drop_noise()
        drop_noise()
        assert len(logger.filters) <= len(filters) + 1
        with caplog.at_level("INFO", logger=logger.name):
            for text in (*NOISE, "\n💡 Tip: try this", "GPU available: True", "`Trainer.fit` stopped"):
                logger.info(text)
        assert [record.message for record in caplog.records] == ["GPU available: True", "`Trainer.fit` stopped"]
    finally:
        logger.filters[:] = filters


def test_other_deprecations_are_still_warned_of() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drop_noise()
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use another", FutureWarning, stacklevel=1)
        warnings.warn("`something` is deprecated", FutureWarning, stacklevel=1)
    assert [str(item.message) for item in caught] == ["`something` is deprecated"]


def test_a_run_says_what_happened_and_no_more(small: str, tmp_path: Path) -> None:
    """In a process of its own: pytest holds the loggers of this one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(Path(__file__).parent)))}
    words = [sys.executable, "-m", "toy_recipe", "fit", "--config", small, "--trainer.max_epochs=3"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    printed = done.stdout + done.stderr
    for word in (*NOISE, "weights_only", "LeafSpec", "FLOPs"):
        assert word not in printed, printed
    for word in ("Checkpoint: ", "Run folder: ", "max_epochs=3"):
        assert word in printed
