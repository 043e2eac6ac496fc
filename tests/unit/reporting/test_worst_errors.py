import os
from pathlib import Path

import pytest
from make_run import make_fit, make_test

from lightning_transfer.reporting.run_files import RunFiles
from lightning_transfer.reporting.worst_errors import DataFiles, worst_errors


def row(key: str, label: str, decision: str, score: str = "", share: str = "") -> dict[str, str]:
    return {"id": key, "label": label, "decision": decision, "score": score, f"probability_{decision}": share}


def test_each_kind_is_ordered_by_how_sure_the_model_was() -> None:
    rows = [
        row("e1", "pit", "good", "0.3"),
        row("e2", "dent", "good", "0.01"),
        row("f1", "good", "pit", "0.7"),
        row("f2", "good", "dent", "0.99"),
        row("c1", "pit", "dent", "0.9", "0.5"),
        row("c2", "dent", "pit", "0.8", "0.6"),
        row("right", "good", "good", "0.0"),
    ]
    found = worst_errors(rows, "good")
    assert {kind: [error.id for error in errors] for kind, errors in found.items()} == {
        "escapes": ["e2", "e1"], "false_rejects": ["f2", "f1"], "confusions": ["c2", "c1"],
    }  # fmt: skip
    # Of a missed defect one wants to see what spoke for it, of the others what misled.
    assert [errors[0].explained for errors in found.values()] == ["dent", "dent", "pit"]


def test_what_was_not_decided_is_no_error_and_unknown_scores_come_last() -> None:
    rows = [row("u", "pit", "unreadable"), row("v", "pit", "undefined"), row("w", "", "pit"), row("x", "pit", "")]
    assert not any(worst_errors(rows, "good").values())
    rows = [row("none", "pit", "good", "nan"), row("known", "pit", "good", "0.4")]
    assert [error.id for error in worst_errors(rows, "good")["escapes"]] == ["known", "none"]


def test_without_a_negative_class_all_errors_are_confusions_and_there_are_so_many() -> None:
    rows = [row(str(place), "a", "b", "", f"0.{place}") for place in range(10, 60)]
    found = worst_errors(rows, None, limit=5)
    assert [error.id for error in found["confusions"]] == ["59", "58", "57", "56", "55"]
    assert not found["escapes"]
    assert not found["false_rejects"]


def test_files_below_the_root_are_found_and_no_others(tmp_path: Path) -> None:
    run = RunFiles.read(make_test(make_fit(tmp_path / "run")))
    files = DataFiles(run)
    root = tmp_path / "data"
    assert files.find(str(root / "a.png"), "a.png") == root / "a.png"
    secret = tmp_path / "secret.png"
    secret.write_bytes((root / "a.png").read_bytes())
    os.symlink(secret, root / "link.png")
    for path in (
        str(secret),
        "../secret.png",
        str(root / ".." / "secret.png"),
        "link.png",
        "none.png",
        "",
        "a\0b",
        ".",
    ):
        assert files.find(path, path) is None, path


def test_data_that_moved_are_found_by_the_ids(tmp_path: Path) -> None:
    run = RunFiles.read(make_test(make_fit(tmp_path / "run"), ids=["pit/a.png", "pit/b.png", "c.png"]))
    first = run.predictions[0]
    moved = tmp_path / "elsewhere"
    (tmp_path / "data").rename(moved)
    gone = DataFiles(run)
    assert gone.root is None
    assert "is not found from here; give `--data_root DIR`" in gone.reason
    files = DataFiles(run, moved)
    assert files.find(first["path"], first["id"]) == moved / "pit" / "a.png"
    near = first["nearest_path"]
    assert files.find(near) is None
    assert files.find(near, sibling=(first["path"], first["id"])) == moved / "train.png"


@pytest.mark.parametrize("root", [None, 3, ""])
def test_a_config_without_a_root_is_no_reason_to_fail(tmp_path: Path, root: object) -> None:
    run = RunFiles(tmp_path, config={"data": {"root": root}})
    assert DataFiles(run).reason == "the config names no `data.root`"
    assert DataFiles(run).find("a.png") is None
