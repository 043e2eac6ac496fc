"""The comparison with other callbacks: ours is right in every case of it, and its rules notice what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_warn

from benchmarks.correctness import __main__ as program
from benchmarks.correctness.contestants import CONTESTANTS, Contestant
from benchmarks.correctness.outcome import Case, Outcome, cell, judge
from benchmarks.correctness.rows import ROWS
from benchmarks.correctness.rows.schedulers import deviation
from tests.benchmarks.clumsy import Clumsy

ROOT = Path(__file__).parents[2]
OURS = next(item for item in CONTESTANTS if item.name == "ours")
CASES = {f"{row.key}: {case.name}".rstrip(": "): case for row in ROWS for case in row.cases}
SLOW = ("ddp", "resume-cli: one opening", "resume-cli: gradual", "compile: module")


def marks(name: str) -> Any:
    return pytest.mark.slow if name in SLOW else ()


@pytest.mark.parametrize("case", [pytest.param(case, id=name, marks=marks(name)) for name, case in CASES.items()])
def test_ours_is_right(case: Case) -> None:
    outcome = judge(case, OURS)
    assert outcome.verdict == "right", outcome
    # A constant factor other than the one that was asked for would be written there.
    assert ", not " not in outcome.text


# What is wrong with it, and the cases that must notice.
NOTICED = {
    "": ["train-bn", "features: BN", "backward", "names", "manual: one", "compile: submodule"],
    "Opening": [
        "features: dropout",
        "train-bn",
        "resume: one opening",
        "resume-cli: one opening",
        "verbs: validate",
        "verbs: test",
        "verbs: predict",
        "verbs: second fit, without the callback",
        "compile: module",
        "compile: submodule",
        "names",
    ],
    "Sawtooth": [
        *(name for name in CASES if name.startswith("schedulers") and "Plateau" not in name),
        "schedulers-other: ReduceLROnPlateau",
        "all-parameters",
        "own-groups: of all parameters",
    ],
    "Decaying": ["own-groups: of all parameters", "own-groups: of what trains at the start"],
    "Meddling": ["own-callbacks: callbacks", "own-callbacks: max_epochs"],
    "Forgetful": ["verbs: second fit, same callback"],
}


@pytest.mark.parametrize(
    ("callback", "name"),
    [pytest.param(key, name, marks=marks(name)) for key, names in NOTICED.items() for name in names],
)
def test_a_wrong_callback_is_noticed(callback: str, name: str) -> None:
    outcome = judge(CASES[name], Clumsy(callback=callback))
    assert outcome.verdict == "wrong", outcome


@pytest.mark.slow
def test_ranks_that_differ_are_noticed() -> None:
    """Lightning's own callback opens what DDP does not reduce."""
    outcome = judge(CASES["ddp"], next(item for item in CONTESTANTS if item.name == "BF"))
    assert outcome.verdict == "wrong", outcome
    assert float(outcome.text.split()[0]) > 1e-6


def test_a_deviation_is_relative_to_the_highest_rate() -> None:
    assert deviation([0.2, 0.1], [2.0, 1.0], 0.1) == 0
    assert deviation([0.2, 0.2], [2.0, 1.0], 0.1) == pytest.approx(0.5)


class TestJudge:
    def outcome(self, measure: Any, override: str = "") -> Outcome:
        return judge(Case("", measure), Contestant("bare", "lightning", override))

    def test_a_refusal_is_not_a_crash(self) -> None:
        def refusing(contestant: Contestant, folder: Path) -> tuple[bool, str]:
            raise MisconfigurationException("not with (<class 'torch.optim.SGD'>), please\nsecond line")

        assert self.outcome(refusing) == Outcome("refused", "MisconfigurationException: not with, please")

    def test_a_crash_is_caught_and_named(self) -> None:
        def crashing(contestant: Contestant, folder: Path) -> tuple[bool, str]:
            raise KeyError("max_lr")

        assert self.outcome(crashing) == Outcome("crashed", "KeyError: 'max_lr'")

    @pytest.mark.parametrize(("right", "verdict"), [(True, "right"), (False, "refused")])
    def test_a_refusal_with_a_way_around_is_tried_again(self, right: bool, verdict: str) -> None:
        def measure(contestant: Contestant, folder: Path) -> tuple[bool, str]:
            if contestant.options.get("brave") is not True:
                raise MisconfigurationException("no")
            return right, "tried"

        outcome = self.outcome(measure, override="brave=True")
        assert outcome.verdict == verdict
        assert ("with brave=True" in outcome.text) == right

    def test_nothing_to_measure(self) -> None:
        assert self.outcome(lambda contestant, folder: None) == Outcome("-", "")

    def test_only_the_contestants_own_warnings_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def warning(contestant: Contestant, folder: Path) -> tuple[bool, str]:
            rank_zero_warn("from the test")
            return True, ""

        assert self.outcome(warning).warning == ""
        monkeypatch.setattr("benchmarks.correctness.outcome.OWN_FILES", (Path(__file__).name,))
        assert self.outcome(warning).warning == "from the test"


def test_a_cell_puts_the_worst_first_and_equal_texts_together() -> None:
    outcomes = {
        "a": Outcome("right", "0 off"),
        "b": Outcome("wrong", "1 | off", "beware"),
        "c": Outcome("right", "0 off"),
        "d": Outcome("-", ""),
    }
    assert cell(outcomes) == "**wrong** b: 1 \\| off (it warned)<br>**right** a, c: 0 off<br>-"
    assert cell({"": Outcome("right", "0 off")}) == "**right** 0 off"


@pytest.mark.parametrize(("verdict", "code"), [("right", 0), ("wrong", 1), ("refused", 1)])
def test_the_exit_code_is_ours(
    verdict: Any, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fake(case: Case, contestant: Contestant) -> Outcome:
        return Outcome(verdict if contestant.name == "ours" else "wrong", f"{contestant.name} in {case.name}")

    monkeypatch.setattr("benchmarks.correctness.outcome.judge", fake)
    file = tmp_path / "all.json"
    words = ["--rows", "compile", "names", "--contestants", "BF", "ours", "--json", str(file)]
    assert program.main(words) == code
    printed = capsys.readouterr()
    assert "| condition | BF | ours |" in printed.out
    assert f"**{verdict}** module: ours in module; submodule: ours in submodule |" in printed.out
    assert printed.out.startswith("python 3")
    assert "1/2 compile" in printed.err
    data = json.loads(file.read_text())
    assert data["rows"]["compile"]["ours"]["module"] == {"verdict": verdict, "text": "ours in module", "warning": ""}
    assert data["versions"]["torch"]


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(program, "version", lambda package: None if package == "finetuning-scheduler" else "1")
    monkeypatch.setattr("benchmarks.correctness.outcome.judge", lambda case, contestant: Outcome("right", ""))
    assert program.main(["--rows", "names"]) == 0
    printed = capsys.readouterr()
    assert "FTS is left out: finetuning-scheduler is not installed" in printed.err
    assert "| condition | BF | ours |" in printed.out


def test_every_row_of_the_table_is_there() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS) == 17
    assert all(row.rule and row.cases for row in ROWS)


@pytest.mark.slow
def test_finetuning_scheduler_is_driven_as_it_wants_to_be() -> None:
    """Where the condition is an easy one it is right: no refusal or crash comes from how it is called here."""
    pytest.importorskip("finetuning_scheduler")
    fts = next(item for item in CONTESTANTS if item.name == "FTS")
    for name in ("schedulers-chained: ExponentialLR", "schedulers-closed: LambdaLR", "resume: one opening", "backward"):
        assert judge(CASES[name], fts).verdict == "right", name


@pytest.mark.slow
def test_it_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "benchmarks.correctness", "--rows", "names", "--contestants", "ours"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "**right** `lr-SGD/blocks.0-depth0`" in done.stdout
