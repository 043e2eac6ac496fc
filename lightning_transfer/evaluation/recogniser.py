"""Use a finished run that transcribes from Python: sound in, transcripts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor

from lightning_transfer.data.audio_files import Waveform
from lightning_transfer.evaluation.predictor import Predictor
from lightning_transfer.evaluation.sounds import is_samples, open_sound, sound_features, sound_seconds
from lightning_transfer.evaluation.transcripts_join import join_transcripts
from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import Batch, Record

if TYPE_CHECKING:
    from lightning_transfer.data.audio_preprocessing import AudioPreprocessing

__all__ = ["Recogniser"]


@dataclass(frozen=True)
class _Piece:
    """A part of an item: a segment of a file, or samples at the network's rate."""

    item: int
    number: int
    count: int
    start: float
    seconds: float
    sound: AudioSegment | Waveform


@dataclass(frozen=True)
class Recogniser(Predictor):
    """A restored model of speech; ``load`` makes it of a run that transcribes.

    Attributes are those of `Predictor`; ``preprocess`` is an `AudioPreprocessing`.
    """

    def predict(self, items: Sequence[Any], batch_size: int = 8) -> list[Transcript]:  # type: ignore[override]
        """Return what is heard in each item, in order; ``index`` is the item's place.

        Long sound is cut into pieces with overlap, as in training and test, and read piece by piece.

        Args:
            items: Paths, `AudioSegment` of files, records of speech, or pairs of samples and their rate: ``(T,)``, or
                ``(T, channels)`` as soundfile reads them, whose mean is taken. Full scale is 1.
            batch_size: Pieces in one forward pass, of like length; memory grows with it.

        Raises:
            TypeError: If a single item is passed, or something that is no sound.
            ValueError: If ``batch_size`` is smaller than 1.
            DataError: If a file cannot be read, or samples are not finite or empty.
        """
        if isinstance(items, str | Path | Record | AudioSegment) or is_samples(items):
            raise TypeError(f"Expected a sequence of items, got one {type(items).__name__}. Write `predict([item])`.")
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` of at least 1, got {batch_size}.")
        pieces = [piece for place, item in enumerate(items) for piece in self._pieces(item, place)]
        pieces.sort(key=lambda piece: piece.seconds)
        heard: list[Transcript] = []
        modes = {part: part.training for part in self.module.modules()}
        self.module.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(pieces), batch_size):
                    heard += self._transcribe(pieces[start : start + batch_size])
        finally:
            for part, training in modes.items():
                part.training = training
        starts: dict[int, list[float]] = {}
        for piece in sorted(pieces, key=lambda item: item.number):
            starts.setdefault(piece.item, []).append(piece.start)
        return join_transcripts(heard, starts)

    def outputs(self, items: Sequence[Any], batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """Refuse: a transcript has no logits of its own.

        Raises:
            ValueError: Always.
        """
        raise ValueError("A recogniser has logits of each frame, not of each item. Use `predict`.")

    @property
    def _spec(self) -> AudioPreprocessing:
        spec: AudioPreprocessing = self.preprocess  # type: ignore[assignment] # `load` made it
        return spec

    def _transcribe(self, pieces: Sequence[_Piece]) -> list[Transcript]:
        spec, device = self._spec, next(self.module.parameters()).device
        features = [sound_features(piece.sound, spec) for piece in pieces]
        index = torch.tensor([(piece.item, piece.number, piece.count) for piece in pieces])
        batch = Batch(spec.collate(features), None, index)
        found: list[Transcript] = self.module.transcribe(move_data_to_device(batch, device))  # type: ignore[operator]
        return found

    def _pieces(self, item: Any, place: int) -> list[_Piece]:  # noqa: ANN401 - see `predict`
        rate = self._spec.sampling_rate
        sound = open_sound(item, place, rate)
        cuts = self._spec.cuts(sound_seconds(sound, rate))
        if len(cuts) == 1:
            parts: list[AudioSegment | Waveform] = [sound]
        elif isinstance(sound, AudioSegment):
            parts = [replace(sound, start=sound.start + start, duration=length) for start, length in cuts]
        else:
            parts = [sound[round(start * rate) : round((start + length) * rate)] for start, length in cuts]
        return [
            _Piece(place, number, len(cuts), start, length, part)
            for number, ((start, length), part) in enumerate(zip(cuts, parts, strict=True))
        ]
