import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_transfer.cli.arguments import split_arguments
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.sources import Source, find_run, find_source
from lightning_transfer.errors import CheckpointError

Toy = Callable[..., Any]


def _find(*words: object) -> Source:
    from toy_recipe.cli import RECIPE

    return find_source(RECIPE, split_arguments([str(word) for word in words]))


def test_a_run_folder_brings_its_config_and_model(finished: Path) -> None:
    found = _find("test", finished)
    assert (found.run, found.checkpoint) == (finished, finished / "model.ckpt")
    assert found.configs[-1] == str(finished / "config.yaml")
    assert found.payload["card"]["name"] == "toy/linear"


@pytest.mark.parametrize("name", ["model.ckpt", "checkpoints/last.ckpt"])
def test_a_checkpoint_within_a_run_belongs_to_it(finished: Path, name: str) -> None:
    assert _find("test", finished / name).run == finished
    assert _find("predict", "--ckpt_path", finished / name).run == finished


def test_a_moved_checkpoint_brings_its_own_config(finished: Path, tmp_path: Path) -> None:
    moved = (finished / "model.ckpt").rename(tmp_path / "moved.ckpt")
    found = _find("test", moved, "--config", "later.yaml")
    assert found.run is None
    assert found.name == "later"
    first, second = found.configs
    assert json.loads(first)["model"]["width"] == 5
    assert set(json.loads(first)) == {"model", "data", "evaluation"}
    assert second == "later.yaml"


def test_the_command_line_may_choose_another_checkpoint_of_the_run(finished: Path) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    found = _find("test", finished, "--ckpt_path", last)
    assert (found.run, found.checkpoint) == (finished, last)


def test_a_config_may_name_the_checkpoint(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "go.yaml"
    path.write_text(f"ckpt_path: {finished}/checkpoints/last.ckpt\n")
    assert _find("fit", "--config", path).checkpoint == finished / "checkpoints" / "last.ckpt"


def test_a_fit_goes_on_from_a_run_with_its_config_and_a_new_folder(finished: Path) -> None:
    found = _find("fit", "--ckpt_path", finished)
    assert found.run is None
    assert found.checkpoint == finished / "checkpoints" / "last.ckpt"
    assert found.configs[-1] == str(finished / "config.yaml")
    assert found.name == "small"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["test"], r"`test` needs a trained model: `python -m toy_recipe test RUN`"),
        (["predict", "nowhere"], "No run folder or checkpoint `nowhere`"),
        (["test", "."], r"`\.` is no run folder"),
        (["fit", "--ckpt_path", "best"], "got the keyword `best`"),
        (["fit", "--ckpt_path", "no.ckpt"], r"No checkpoint `no\.ckpt`"),
        (["fit", "--ckpt_path", "."], "nothing to start from"),
    ],
)
def test_what_is_not_there_is_named(
    words: list[str], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=match):
        _find(*words)


def test_the_newest_runs_are_offered(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"Newest runs: runs/toy/{finished.name}"):
        _find("test")
    with pytest.raises(UsageError, match=f"Newest runs: runs/toy/{finished.name}"):
        _find("test", "runs/toy")
    with pytest.raises(UsageError, match=f"keyword `last`.*Newest runs: runs/toy/{finished.name}"):
        _find("fit", "--ckpt_path", "last")
    with pytest.raises(UsageError, match=r"`.*config\.yaml` is a config"):
        _find("test", finished / "config.yaml")


def test_an_unfinished_run_says_what_it_has(finished: Path) -> None:
    (finished / "model.ckpt").unlink()
    with pytest.raises(UsageError, match=r"its fit did not finish\. `.* test .*last\.ckpt`"):
        _find("test", finished)
    assert _find("plan", finished).checkpoint is None


def test_a_finished_model_is_no_start_for_a_fit(finished: Path) -> None:
    with pytest.raises(UsageError, match=r"without the optimizer's state.*checkpoints/last\.ckpt"):
        _find("fit", "--ckpt_path", finished / "model.ckpt")


def test_a_foreign_or_broken_checkpoint_is_refused(finished: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt"):
        _find("test", tmp_path / "other.ckpt")
    model = finished / "model.ckpt"
    model.write_bytes(model.read_bytes()[:300])
    with pytest.raises(CheckpointError, match=r"model\.ckpt` \(300 bytes\)"):
        _find("test", finished)


def test_a_word_means_the_run_that_it_lies_in(finished: Path, tmp_path: Path) -> None:
    from toy_recipe.cli import RECIPE

    [best] = (finished / "checkpoints").glob("best-*")
    for word in (finished, finished / "model.ckpt", best):
        assert find_run(RECIPE, "report", str(word)) == finished
    alone = tmp_path / "alone.ckpt"
    alone.touch()
    with pytest.raises(UsageError, match=r"`.*alone.ckpt` lies in no run folder"):
        find_run(RECIPE, "report", str(alone))
    with pytest.raises(UsageError, match="`report` needs a run folder"):
        find_run(RECIPE, "report", "")
