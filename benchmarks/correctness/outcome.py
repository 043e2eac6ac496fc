"""What one experiment says about one contestant, and how a row of the table is made of them."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from lightning.fabric.utilities.exceptions import MisconfigurationException

from benchmarks.correctness.contestants import BARE, CONTESTANTS, Contestant, Settings
from benchmarks.correctness.toys import Toy, trainer

__all__ = ["Case", "Outcome", "Row", "cell", "judge"]

Verdict = Literal["right", "wrong", "refused", "crashed", "-"]
# From the worst to the best: a crash or a refusal is at least not silent.
ORDER: tuple[Verdict, ...] = ("wrong", "crashed", "refused", "right", "-")
OWN_FILES = ("callbacks/finetuning.py", "finetuning_scheduler", "lightning_transfer")


@dataclass(frozen=True)
class Outcome:
    """A verdict and the measured values behind it.

    Attributes:
        verdict: By the case's rule; ``refused`` for Lightning's MisconfigurationException, ``crashed`` for others.
        text: Measured values, or the exception.
        warning: First warning that came from the contestant's own code, of those that it does not give in any run;
            empty if there was none.
    """

    verdict: Verdict
    text: str
    warning: str = ""


Measure = Callable[[Contestant, Path], tuple[bool, str] | None]


@dataclass(frozen=True)
class Case:
    """One experiment.

    Attributes:
        name: Within its row; empty if the row has one case only.
        measure: Runs the experiment in a folder; returns whether the rule holds and the values, or None where the
            contestant has nothing to do with the question.
    """

    name: str
    measure: Measure


@dataclass(frozen=True)
class Row:
    """One condition: its key for ``--rows``, its title, the rule that decides, and its experiments."""

    key: str
    title: str
    rule: str
    cases: tuple[Case, ...]


def judge(case: Case, contestant: Contestant) -> Outcome:
    """Run one case; a refusal that the contestant offers a way around is tried again with it."""
    outcome = _attempt(case, contestant)
    if outcome.verdict == "refused" and contestant.override:
        again = _attempt(case, contestant.overridden())
        if again.verdict == "right":
            return replace(again, text=f"{again.text}, with {contestant.override}")
    return outcome


def cell(outcomes: dict[str, Outcome]) -> str:
    """Put the outcomes of a row's cases into one cell: equal verdicts together, the worst first."""
    parts = []
    for verdict in ORDER:
        cases = [(name, outcome) for name, outcome in outcomes.items() if outcome.verdict == verdict]
        if not cases:
            continue
        if verdict == "-":
            parts.append("-")
            continue
        names: dict[str, list[str]] = {}
        for name, outcome in cases:
            names.setdefault(_short(outcome), []).append(name)
        listed = "; ".join(": ".join(filter(None, (", ".join(same), text))) for text, same in names.items())
        parts.append(f"**{verdict}** {listed}")
    return "<br>".join(parts).replace("|", "\\|")


def _short(outcome: Outcome) -> str:
    warned = " (it warned)" if outcome.warning and outcome.verdict == "wrong" else ""
    return f"{outcome.text}{warned}"


def _attempt(case: Case, contestant: Contestant) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, _quiet() as caught:
        try:
            result = case.measure(contestant, Path(folder))
        except MisconfigurationException as error:
            outcome = Outcome("refused", _first_line(error))
        except Exception as error:  # a crash is a finding, whatever its class
            outcome = Outcome("crashed", _first_line(error))
        else:
            outcome = Outcome("-", "") if result is None else Outcome("right" if result[0] else "wrong", result[1])
    own = [text for text in _own(caught) if _without_numbers(text) not in _routine(contestant.name)]
    return replace(outcome, warning=own[0].splitlines()[0] if own else "")


@cache
def _routine(name: str) -> frozenset[str]:
    """Return what a contestant warns of where nothing is unusual."""
    contestant = next((item for item in CONTESTANTS if item.name == name), BARE)
    with tempfile.TemporaryDirectory() as folder, _quiet() as caught:
        for open_at in (None, 1):
            trainer(contestant.callbacks(Settings(Path(folder), 2, open_at)), 2).fit(Toy())
    return frozenset(_without_numbers(text) for text in _own(caught))


def _own(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(item.message) for item in caught if any(part in item.filename for part in OWN_FILES)]


def _without_numbers(text: str) -> str:
    return re.sub(r"[\d.]+", "0", text)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    # The names of classes and files in it differ from case to case, and what it says does not.
    text = re.sub(r" \(?[<{\[].*?[>}\]]\)?", "", lines[0])
    return f"{type(error).__name__}: {text if len(text) <= 70 else f'{text[:67]}...'}"


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logging.disable(logging.NOTSET)
