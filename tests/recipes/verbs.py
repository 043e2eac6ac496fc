"""Run the verbs of a recipe as a user does, for the tests of all recipes."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_transfer.cli import Recipe, main

Run = Callable[..., tuple[int, str]]


def runner(recipe: Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs a verb in a folder, and returns its exit code and all that it printed."""
    monkeypatch.chdir(folder)
    # Lightning's handler writes to what was standard error when it was imported: an earlier test's, closed by now.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def call(*words: str) -> tuple[int, str]:
        code = main(recipe, list(words))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def run_folder(printed: str) -> Path:
    return Path(re.findall(r"^Run folder: (.+)$", printed, flags=re.MULTILINE)[-1].strip())
