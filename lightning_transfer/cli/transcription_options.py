"""The section ``evaluation`` of a config of speech. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lightning_transfer.cli.errors import UsageError
from lightning_transfer.cli.evaluation_options import ScratchOptions

__all__ = ["TranscriptionOptions"]

Recognisers = list[Literal["pretrained", "scratch"]]


def _cheap() -> Recognisers:
    return ["pretrained"]


@dataclass
class TranscriptionOptions:
    """How a recogniser of speech is judged.

    Attributes:
        baselines: Other recognisers that ``test`` puts beside the model: ``pretrained`` is the backbone with its own
            head, as it was before adapting; ``scratch`` trains the same network from random weights, which takes as
            long as training does.
        scratch: How it does that.
        slices: Columns of the data by which ``test`` cuts the utterances into slices; ``all`` takes every column,
            ``[]`` none.
        keywords: Words or phrases whose recall ``test`` reports, or a text file with one a line. None takes those that
            the data name.
        scoring_normaliser: What both sides pass before words are compared, in place of the data's own: ``basic``,
            ``whisper`` or ``none``.
    """

    baselines: Recognisers = field(default_factory=_cheap)
    scratch: ScratchOptions = field(default_factory=ScratchOptions)
    slices: Literal["all"] | list[str] = "all"
    keywords: list[str] | str | None = None
    scoring_normaliser: Literal["basic", "whisper", "none"] | None = None

    def list_keywords(self) -> list[str]:
        """Return the keywords, those of the file if there is one; empty lines and lines that begin with ``#`` not.

        Raises:
            UsageError: If there is no such file.

        Example:
            >>> TranscriptionOptions(keywords=["acme"]).list_keywords()
            ['acme']
        """
        if not isinstance(self.keywords, str):
            return list(self.keywords or ())
        path = Path(self.keywords)
        if not path.is_file():
            raise UsageError(
                f"There is no file `{path}` (`evaluation.keywords`). Give a text file with one keyword a line, or a "
                "list: `--evaluation.keywords '[acme, order number]'`."
            )
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
