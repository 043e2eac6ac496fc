"""The options of the verb ``export``. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ExportOptions"]


@dataclass
class ExportOptions:
    """What is written, and on what it is compared with the checkpoint.

    Attributes:
        format: ``onnx`` (with a script that predicts), ``pt2`` (a ``torch.export`` program), or ``both``.
        int8: Write a quantised ``model_int8.onnx`` as well, and measure on the test split what it loses.
        n_samples: Samples to compare on, spread evenly over the test split, or over ``--samples``.
        samples: Folder of images, or table of texts, to compare on, where the data of the run are not at hand.

    Raises:
        ValueError: If options do not go together.
    """

    format: Literal["onnx", "pt2", "both"] = "onnx"
    int8: bool = False
    n_samples: int = 200
    samples: str | None = None

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"Expected `n_samples` of at least 1, got {self.n_samples}. 200 are usual.")
        if self.int8 and self.format == "pt2":
            raise ValueError("`int8` is a form of ONNX, and `format` is `pt2`. Use `--format both`, or leave it out.")
        if self.int8 and self.samples is not None:
            raise ValueError(
                f"`int8` needs the data of the run: training records set its ranges, and test records show what it "
                f"loses. Leave out `--samples {self.samples}`, and give the data, such as `--data.root FOLDER` "
                "or `--data.file TABLE`."
            )
