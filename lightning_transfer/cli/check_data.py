"""The verb ``check-data``, and the part of it that each fit runs by itself."""

from __future__ import annotations

import inspect
import shutil
import textwrap
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningModule, Trainer

from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.cli.trainer_verbs import start
from lightning_transfer.data import BaseDataModule, audit_data, count_records
from lightning_transfer.errors import DataError
from lightning_transfer.files import write_json
from lightning_transfer.findings import Finding
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.label_suspects import SuspectReport
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["NEAR_LIMIT", "check_data", "check_fit", "format_findings", "summary"]

NEAR_LIMIT = 20_000
"""Records up to which a fit looks for nearly equal ones: seconds for images, a quarter of a minute for texts."""

_TITLES = {"error": "Errors", "warning": "Warnings", "note": "Notes"}
_EXAMPLES = 5  # on the terminal; the file has up to 20


def check_data(recipe: Recipe, arguments: Arguments) -> int:
    """Check the data of a config without training, print what was found, and write ``check-data/check.json``.

    Returns:
        0 where nothing is wrong; 1 for warnings with ``--strict``; 2 for errors.
    """
    with start(recipe, arguments) as cli:
        begin = time.perf_counter()
        findings = _check(cli)
        report = _suspects(cli, findings)
        findings = [*findings, *report.findings]
        seconds = time.perf_counter() - begin
        records = cli.datamodule.records
        write_check(cli.output / "check.json", findings, records, seconds, report.rows, report.more)
        print(format_findings(findings))
        if report.text:
            print(f"{_lines(report.text)}\n")
        print(f"{summary(findings)} in {_counts(records)}, {seconds:.1f} s.")
        return exit_code(findings, strict=bool(cli.config["strict"]))


def check_fit(trainer: Trainer, module: LightningModule, folder: Path) -> str:
    """Run the cheap part before a fit, write ``check.json``, and print warnings in short.

    Args:
        trainer: With its datamodule set up; another than ours is not checked.
        module: With its card.
        folder: Of the run.

    Returns:
        What stops the fit, as a message; empty if nothing does.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, BaseDataModule):
        return ""
    begin = time.perf_counter()
    findings = audit_data(data, getattr(module, "card", None), near_limit=NEAR_LIMIT, progress=_bar(data.show_progress))
    write_check(folder / "check.json", findings, data.records, time.perf_counter() - begin)
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        print(f"Data check: {summary(findings)} ({folder / 'check.json'})")
        for finding in findings:
            if finding.severity == "warning":
                print(f"  {finding.code}: {_plain(finding.message)}")
        return ""
    lines = [f"{finding.code}: {_plain(finding.message)} {_plain(finding.advice)}" for finding in errors]
    return "\n".join(
        [
            f"The data check found {summary(findings)} ({folder / 'check.json'}).",
            *(f"  {line}" for line in lines),
            "`check-data` shows examples of each; `--check_data=false` trains all the same.",
        ]
    )


def exit_code(findings: Sequence[Finding], *, strict: bool = False) -> int:
    """Return 2 for errors, 1 for warnings if ``strict``, else 0.

    Example:
        >>> exit_code([Finding("label-case", "warning", "...", 1)], strict=True)
        1
    """
    severities = {finding.severity for finding in findings}
    return 2 if "error" in severities else int(strict and "warning" in severities)


def write_check(
    path: Path,
    findings: Sequence[Finding],
    records: Sequence[Record],
    seconds: float,
    suspects: Sequence[Mapping[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the findings as JSON.

    Args:
        path: The file.
        findings: In order.
        records: That were checked.
        seconds: That it took.
        suspects: Records whose labels a model doubts; None if none was asked.
        more: Further keys.
    """
    values: dict[str, Any] = {
        "errors": sum(finding.severity == "error" for finding in findings),
        "warnings": sum(finding.severity == "warning" for finding in findings),
        "findings": [finding.to_dict() for finding in findings],
        "num_records": count_records(records),
        "seconds": seconds,
    }
    if suspects is not None:
        values["suspects"] = list(suspects)
    write_json(path, {**values, **(more or {})})


def format_findings(findings: Sequence[Finding]) -> str:
    """Return the findings as text, by severity, each with examples and what to do.

    Example:
        >>> found = Finding("group-overlap", "error", "1 group is in two splits.", 1, ("a | b",), "Correct the splits.")
        >>> print(format_findings([found]))
        Errors
          group-overlap
            1 group is in two splits.
            - a | b
            To do: Correct the splits.
        <BLANKLINE>
    """
    lines: list[str] = []
    for severity, title in _TITLES.items():
        chosen = [finding for finding in findings if finding.severity == severity]
        if chosen:
            lines.append(title)
        for finding in chosen:
            lines.append(f"  {finding.code}")
            lines += _wrapped(finding.message)
            lines += [f"    - {_plain(text)}" for text in finding.examples[:_EXAMPLES]]
            if len(finding.examples) > _EXAMPLES:
                lines.append(f"    - {len(finding.examples) - _EXAMPLES} more in check.json")
            if finding.advice:
                lines += _wrapped(f"To do: {finding.advice}")
        if chosen:
            lines.append("")
    return "\n".join(lines)


def summary(findings: Sequence[Finding]) -> str:
    """Count the findings.

    Example:
        >>> summary([Finding("label-case", "warning", "...", 1)])
        '0 errors, 1 warning, 0 notes'
    """
    counts = {name: sum(finding.severity == name for finding in findings) for name in _TITLES}
    return ", ".join(f"{number} {name}{'s' * (number != 1)}" for name, number in counts.items())


def _check(cli: TransferCLI) -> list[Finding]:
    """Read the data to the end, whatever is wrong with them, and say all of it."""
    data: BaseDataModule = cli.datamodule
    strict_about_files = data.on_bad_file == "error"
    # Left out, bad files are all listed; as an error, the first would end the check.
    data.on_bad_file, data.check_data = "skip", True
    # What the Trainer does before it asks the data to set up: the card, and whether good parts alone are learnt from.
    cli.trainer.strategy.connect(cli.model)
    data.trainer = cli.trainer
    failure = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data.prepare_data()
            data.setup("fit")
        except DataError as error:
            failure = error
        findings = audit_data(
            data,
            getattr(cli.model, "card", None),
            failure=failure,
            bad_files_are_errors=strict_about_files,
            progress=_bar(data.show_progress),
        )
    said = [_warning(item, data) for item in caught]
    spoken = [Finding("data-warning", "warning", text, 1) for text in dict.fromkeys(said) if text]
    places = [place for place, finding in enumerate(findings) if finding.severity == "note"]
    cut = places[0] if places else len(findings)
    return [*findings[:cut], *spoken, *findings[cut:]]


def _suspects(cli: TransferCLI, findings: Sequence[Finding]) -> SuspectReport:
    """Run the model-based part where it is asked for; the rest needs neither weights nor scikit-learn."""
    from lightning_transfer.cli.label_suspects import SuspectReport, check_suspects

    # Texts of speech have no class that a neighbour could vote for, so there is no such option.
    asked = cli.config.get("suspects", False)
    return check_suspects(cli, findings) if asked else SuspectReport((), None, {}, "")


def _warning(caught: warnings.WarningMessage, data: BaseDataModule) -> str:
    """Return what reading the data warned of, but for files that are findings anyway, and what libraries say."""
    homes = {Path(inspect.getfile(kind)).parent for kind in (BaseDataModule, type(data))}
    text = str(caught.message)
    return text if Path(caught.filename).parent in homes and "records are left out:" not in text else ""


def _bar(show: bool) -> Any:  # noqa: ANN401 - a Progress; the bar's class is Lightning's
    from lightning_transfer.evaluation.progress import progress

    return partial(progress, show=show)


def _counts(records: Sequence[Record]) -> str:
    counts = count_records(records)
    return f"{len(records)} records ({', '.join(f'{split} {number}' for split, number in counts.items()) or 'none'})"


def _wrapped(text: str) -> list[str]:
    indent = "    "
    width = max(60, min(120, shutil.get_terminal_size((120, 24)).columns))
    return textwrap.wrap(_plain(text), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _lines(text: str) -> str:
    return "\n".join(_plain(line) for line in text.splitlines())


def _plain(text: str) -> str:
    """Return text of one line that no terminal takes for commands: names of files and labels are others' text."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
