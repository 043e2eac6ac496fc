"""The rules of the tree that no linter knows."""

import re
import subprocess
from pathlib import Path

import pytest

import lightning_transfer

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path.relative_to(ROOT / "lightning_transfer")
    for path in (ROOT / "lightning_transfer").rglob("*.py")
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_every_source_file_has_its_test(source: Path) -> None:
    mirror = ROOT / "tests" / "unit" / source.parent / f"test_{source.name}"
    assert mirror.is_file(), f"`lightning_transfer/{source}` has no `{mirror.relative_to(ROOT)}`"


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_files_stay_small(source: Path) -> None:
    assert len((ROOT / "lightning_transfer" / source).read_text().splitlines()) <= 400


def test_every_public_name_loads() -> None:
    for name in lightning_transfer.__all__:
        assert getattr(lightning_transfer, name) is not None


def test_an_unknown_public_name_lists_what_exists() -> None:
    with pytest.raises(AttributeError, match=r"BackboneFreeze.*BackboneFreezeUnfreeze"):
        lightning_transfer.BackboneFreeze  # noqa: B018 - the access is the test


def test_every_package_declares_its_names() -> None:
    for package in (ROOT / "lightning_transfer").rglob("__init__.py"):
        assert "__all__" in package.read_text(), package


def test_constraints_hold_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line


def test_no_large_files_are_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        # What travels in the wheel so that a first run needs no network may have twice as much.
        limit = 10_000_000 if path.parent.name == "embedded" else 5_000_000
        assert not path.is_file() or path.stat().st_size <= limit, name
