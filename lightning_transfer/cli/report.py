"""The verb ``report``: a page on a run, or on several beside each other. Torch is imported for Grad-CAM alone."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lightning_transfer.cli.arguments import Arguments
from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.quiet import drop_noise
from lightning_transfer.cli.recipe import Recipe
from lightning_transfer.cli.sources import find_run
from lightning_transfer.scans import ImagePart

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["report", "report_of_fit", "report_of_test"]


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}. {self.format_usage().strip()}")


def report(recipe: Recipe, arguments: Arguments) -> int:
    """Write ``report.html``, ``report.json`` and ``model_card.md`` of a run; of several, one page to compare them."""
    parser = _Parser(prog=f"{recipe.command} report RUN [RUN ...]", add_help=False)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--data_root")
    parser.add_argument("--grad_cam", type=str.lower, choices=("true", "false"), default="true")
    parser.add_argument("--audio", type=str.lower, choices=("true", "false"), default="false")
    if arguments.configs:
        raise UsageError("`report` takes run folders, not configs: they hold the config of their fit.")
    options = parser.parse_args(arguments.rest)
    runs = [find_run(recipe, "report", word) for word in arguments.places or ("",)]
    drop_noise()
    from lightning_transfer.reporting import write_comparison, write_report

    if len(runs) > 1:
        path = write_comparison(runs, options.output or Path("comparison.html"))
        print(f"Comparison: {path}")
        return 0
    if options.output is not None:
        raise UsageError("`--output` is for the comparison of several runs; the report of one lies in its folder.")
    path = write_report(
        runs[0],
        sources=_sources(recipe, runs[0], options.data_root),
        data_root=options.data_root,
        grad_cam=options.grad_cam == "true",
        audio=options.audio == "true",
    )
    print(f"Report: {path}")
    if options.audio == "true":
        print("The page may hold voices of people: mind to whom it goes.")
    print(f"Model card: {path.with_name('model_card.md')}")
    print(f"Run folder: {runs[0]}")
    return 0


def report_of_fit(cli: TransferCLI) -> None:
    """Write the model card of a fit that ended; without it, the fit is as good."""
    from lightning_transfer.reporting import write_model_card

    _attempt(cli, "Model card", lambda: write_model_card(cli.output))


def report_of_test(cli: TransferCLI) -> None:
    """Write the report at the end of a test; without it, the test is as good."""
    from lightning_transfer.reporting import write_report

    records = getattr(cli.datamodule, "records", ())
    sources = {record.id: record.input for record in records if isinstance(record.input, ImagePart)}
    data_root = cli.resolved["data"].get("root")
    _attempt(cli, "Report", lambda: write_report(cli.folder, data_root=data_root, sources=sources))


def _sources(recipe: Recipe, run: Path, data_root: str | None) -> dict[str, ImagePart]:
    """Return where the pictures of records are that the run's tables know by pseudonyms; nothing for other runs."""
    from lightning_transfer.errors import TransferError
    from lightning_transfer.reporting.run_files import RunFiles

    options = dict(RunFiles.read(run).section("data"))
    if not options.get("deidentify"):
        return {}
    if data_root is not None:
        options["root"] = data_root
    try:
        found: dict[str, ImagePart] = recipe.data_class()(**options).find_sources()
    except (TransferError, TypeError, ValueError, OSError):
        # The page says that there are no pictures; all else of it is in the run's own files.
        return {}
    return found


def _attempt(cli: TransferCLI, what: str, write: Callable[[], Path]) -> None:
    """Print where a page is, or warn that it could not be written: it is derived, and the results are there."""
    try:
        print(f"{what}: {write()}")
    except Exception as error:  # whatever a page runs into, it must not cost the results
        from lightning.pytorch.utilities import rank_zero_warn

        rank_zero_warn(
            f"{what} was not written ({type(error).__name__}: {error}). All results are there; try "
            f"`{cli.recipe.command} report {cli.folder} --debug`."
        )
