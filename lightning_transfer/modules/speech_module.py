"""What modules that write down speech share: texts compared, transcripts of records and of their pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_transfer.backbones.frames import step_seconds
from lightning_transfer.data.transcripts import normaliser
from lightning_transfer.metrics.error_rate import ErrorRate
from lightning_transfer.modules.transfer import TransferModule
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Activations, Batch, Schema

__all__ = ["Place", "SpeechModule", "places"]

Place = tuple[int, int, int]
"""Position of a record, number of its piece, number of its pieces."""


def places(batch: Batch) -> list[Place]:
    """Say which record, and which piece of it, each row of a batch is.

    Example:
        >>> places(Batch(None, None, torch.tensor([[4, 1, 3]]))), places(Batch(None, None, torch.tensor([7])))
        ([(4, 1, 3)], [(7, 0, 1)])
    """
    rows = batch.index.tolist()
    return [(row, 0, 1) if isinstance(row, int) else (row[0], row[1], row[2]) for row in rows]


class SpeechModule(TransferModule):
    """Base of the modules that write down speech; subclasses say how, in `transcribe` and `reference_texts`.

    Logged at each validation: ``val_wer`` and ``val_cer``, all errors over all words (characters) of the references,
    after the scoring normaliser of the schema on both sides. The references are the targets read back, so what the
    vocabulary has no token for is missing in them; the numbers with intervals come from
    `lightning_transfer.evaluation`.
    """

    monitor: str | None = "val_wer"
    monitor_mode = "min"

    def __init__(self, backbone: str, **kwargs: Any) -> None:  # noqa: ANN401 - those of `TransferModule`
        super().__init__(backbone, **kwargs)
        if self.card.modality != "audio":
            raise MisconfigurationException(
                f"`{type(self).__name__}` recognises speech, and `{self.card.name}` takes {self.card.modality}. Use a "
                "speech backbone: wav2vec 2.0, HuBERT, WavLM, wav2vec2-bert or Whisper."
            )
        self.val_wer = ErrorRate("words")
        self.val_cer = ErrorRate("characters")
        self.test_outputs: list[Transcript] = []

    def configure_model(self) -> None:
        """Build the head from the schema, once."""
        if self.head is None and self.schema is not None:
            self._check_task(self.schema)
        super().configure_model()
        if self.schema is not None:
            self._check_task(self.schema)

    def _check_task(self, schema: Schema) -> None:
        if schema.task != "transcription":
            raise MisconfigurationException(
                f"`{type(self).__name__}` writes down speech, and the data are of the task `{schema.task}`. Use data "
                "with transcripts, or `ClassificationModule`."
            )

    def transcribe(self, batch: Batch) -> list[Transcript]:
        """Return what is heard in each row of a batch."""
        raise NotImplementedError

    def reference_texts(self, target: Tensor) -> list[str]:
        """Read targets ``(N, L)`` back as texts."""
        raise NotImplementedError

    def update_errors(self, batch: Batch, transcripts: Sequence[Transcript]) -> None:
        """Compare what was heard with what was said, and log ``val_wer`` and ``val_cer``."""
        score = self._scored()
        said = [score(text) for text in self.reference_texts(labelled(batch))]
        heard = [score(transcript.text) for transcript in transcripts]
        for name, metric in (("val_wer", self.val_wer), ("val_cer", self.val_cer)):
            metric.update(said, heard)
            self.log(name, metric, prog_bar=name == "val_wer", batch_size=len(batch.index))

    def _scored(self) -> Any:  # noqa: ANN401 - a function of texts
        preprocessing = {} if self.schema is None else self.schema.preprocessing
        return normaliser(str(preprocessing.get("scoring_normaliser", "none")))

    def piece_start(self, piece: int) -> float:
        """Return where a piece begins in its record, in seconds, by the schema's rule for long recordings."""
        preprocessing = {} if self.schema is None else self.schema.preprocessing
        stride = float(preprocessing.get("chunk_seconds", 0.0)) - float(preprocessing.get("overlap_seconds", 0.0))
        return piece * stride

    def kept_input(self, input: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as the parent's
        """Return what says how long each recording is."""
        return {"attention_mask": input["attention_mask"]} if "attention_mask" in input else dict(input)

    def sound_seconds(self, batch: Batch) -> list[float]:
        """Return the length of the sound in each row, by its attention mask."""
        parts: Mapping[str, Tensor] = batch.input.given if isinstance(batch.input, Activations) else batch.input
        mask = parts.get("attention_mask")
        if mask is None:
            sound = next(value for key, value in parts.items() if key.startswith("input_"))
            steps = [sound.shape[getattr(self.backbone, "time_axis", sound.ndim - 1)]] * len(sound)
        else:
            steps = mask.sum(dim=1).tolist()
        second = step_seconds(self.card)
        return [int(count) * second for count in steps]

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Transcript]:  # type: ignore[override]
        """Return what is heard in each row: a record, or a piece of one."""
        with torch.no_grad():
            return self.transcribe(batch)

    def on_test_epoch_start(self) -> None:
        """Forget the transcripts of an earlier test."""
        self.test_outputs = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep what is heard; `lightning_transfer.evaluation` computes the numbers from all of it."""
        self.test_outputs += self.predict_step(batch, batch_idx)


def labelled(batch: Batch) -> Tensor:
    """Return the target of a batch.

    Raises:
        MisconfigurationException: If it has none.
    """
    if batch.target is None:
        raise MisconfigurationException(
            "This batch has no transcripts, so there is nothing to learn from or to compare with. Give the column of "
            "texts, or use `predict`."
        )
    return batch.target
