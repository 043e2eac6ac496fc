"""Which verbs there are, what each does, and where its code is; nothing is imported before a verb runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_transfer.cli.arguments import Arguments
    from lightning_transfer.cli.recipe import Recipe

__all__ = ["VERBS", "Verb"]


@dataclass(frozen=True)
class Verb:
    """One word of the command line.

    Attributes:
        name: What the user types.
        usage: What may stand behind it.
        help: One line for the list of verbs.
        target: ``module:function``; called with the recipe and the arguments, returns the exit code.
        takes_run: Whether a run folder or a checkpoint may stand behind the verb.
        needs_torch: False for verbs that sort their own words; but for ``compare`` they answer at once.
    """

    name: str
    usage: str
    help: str
    target: str
    takes_run: bool = False
    needs_torch: bool = True

    def load(self) -> Callable[[Recipe, Arguments], int]:
        """Import the function behind the verb."""
        place, _, name = self.target.partition(":")
        function: Callable[[Recipe, Arguments], int] = getattr(import_module(place), name)
        return function


_TRAINER = "lightning_transfer.cli.trainer_verbs"
_RUN = "RUN|CHECKPOINT [options]"

VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("fit", "--config FILE [options]", "train, calibrate, and write RUN/model.ckpt", f"{_TRAINER}:fit"),
        Verb("validate", _RUN, "score a trained model on the validation split", f"{_TRAINER}:validate", True),
        Verb("test", _RUN, "score a trained model on the test split, with intervals", f"{_TRAINER}:test", True),
        Verb("predict", _RUN, "write predictions.csv for new data", f"{_TRAINER}:predict", True),
        Verb(
            "plan",
            "--config FILE [options]",
            "show what would train, when, how fast, and its memory, without training",
            "lightning_transfer.cli.plan:plan",
            True,
        ),
        Verb(
            "check-data",
            "--config FILE [--strict] [--suspects] [options]",
            "say what is wrong with the data, without training",
            "lightning_transfer.cli.check_data:check_data",
            True,
        ),
        Verb(
            "report",
            "RUN [RUN ...] [--output FILE] [--data_root DIR] [--grad_cam false] [--audio true]",
            "write RUN/report.html: the verdict and what it rests on; of several runs, a comparison",
            "lightning_transfer.cli.report:report",
            True,
            False,
        ),
        Verb(
            "compare",
            "RUN RUN ... [--json FILE]",
            "compare tested runs, on the same records where they have them",
            "lightning_transfer.cli.compare:compare",
            True,
            False,
        ),
        Verb(
            "export",
            _RUN,
            "write ONNX that decides as the checkpoint does",
            "lightning_transfer.cli.export:export",
            True,
        ),
        Verb("configs", "", "list the configs of this recipe", "lightning_transfer.cli.configs:configs", False, False),
        Verb("copy", "NAME DEST", "copy a config, to change it", "lightning_transfer.cli.configs:copy", False, False),
    )
}
