import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from lightning_transfer.cli.run_folder import create, environment, new_folder

NOW = datetime(2030, 1, 2, 3, 4, 5)


def test_a_run_is_named_after_its_config_and_time(tmp_path: Path) -> None:
    assert create(tmp_path, "toy", "my config/ö", NOW) == tmp_path / "toy" / "my_config_ö-20300102-030405"


def test_many_at_once_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: create(tmp_path, "toy", "a", NOW), range(64)))
    assert len(set(made)) == 64
    assert all(path.is_dir() for path in made)


def test_an_existing_folder_gets_a_number(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "metrics.json").write_text("{}")
    assert new_folder(tmp_path / "test").name == "test-2"
    assert new_folder(tmp_path / "test").name == "test-3"


def test_the_environment_holds_versions_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hidden1")
    command = ["fit", "--trainer.logger.init_args.api_key=hidden2", "--data.password", "hidden3", "--model.x", "3"]
    found = environment(command, "cpu")
    assert not [word for word in ("hidden1", "hidden2", "hidden3") if word in json.dumps(found)]
    assert found["command"].endswith("--model.x 3")
    assert {"lightning-transfer", "torch", "lightning"} <= set(found["versions"])


def test_the_git_revision_is_read_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert environment([])["git_revision"] is None
    (git / "packed-refs").write_text("# pack-refs\nabc123 refs/heads/main\n")
    assert environment([])["git_revision"] == "abc123"
    (git / "refs" / "heads" / "main").write_text("def456\n")
    assert environment([])["git_revision"] == "def456"
    (git / "HEAD").write_text("0ddba11\n")
    assert environment([])["git_revision"] == "0ddba11"
