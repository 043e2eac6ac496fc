"""From a piece of sound to what a speech model reads, as its own feature extractor makes it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_transfer.data.audio_files import Waveform, read_audio
from lightning_transfer.data.audio_frames import FrameLayer, count_frames, frame_layers
from lightning_transfer.data.texts_ids import open_tokenizer
from lightning_transfer.data.transcripts import CTCVocabulary, frames_needed, normaliser
from lightning_transfer.errors import DataError
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import BackboneCard

__all__ = ["FEATURE_EXTRACTORS", "AudioPreprocessing"]

FEATURE_EXTRACTORS = ("Wav2Vec2FeatureExtractor", "SeamlessM4TFeatureExtractor", "WhisperFeatureExtractor")
"""Those of transformers that can be built: raw samples, stacked mel bands, and the 30 s windows of Whisper."""

_LEAST_SECONDS = 0.1
"""Shorter sound gets silence behind it: convolutions need 25 ms, and the variance of mel bands two frames."""

_WHISPER_PREFIX = 4
"""Tokens before a text: start, language, task, no timestamps; one more ends it."""


@dataclass(frozen=True)
class AudioPreprocessing:
    """The full specification of how a recording, and its text, become tensors; it travels in the checkpoint.

    The features are those of transformers' extractor, built from its settings without any hub. Each recording is
    prepared by itself, without padding: so normalising does not depend on what else is in the batch. Shorter ones are
    then padded as the extractor says.

    Attributes:
        feature_extractor: Settings as ``to_dict`` of transformers gives them, with ``feature_extractor_type``.
        normaliser: Of the texts that are learnt from, see `NORMALISERS`.
        scoring_normaliser: Of the texts that are compared.
        vocabulary: What the logits of a CTC model stand for; None where the card's tokenizer makes the targets, or
            until the training texts are known.
        chunk_seconds: Longer sound is cut into pieces of this length.
        overlap_seconds: What two neighbouring pieces share.
        layers: Kernel, stride and padding of what shortens the extractor's output, see `count_frames`; None: the model
            has no frames of its own to count.
        max_label_tokens: Most tokens of a text that the model can write; None: no limit but its frames.
        tokenizer_json: Of Whisper, as its library writes it.

    Example:
        >>> spec = AudioPreprocessing({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 8000})
        >>> batch = spec.collate([spec.features(np.ones(1000)), spec.features(np.arange(1200) % 2)])
        >>> batch["input_values"].shape, batch["attention_mask"].sum(dim=1).tolist(), batch["input_values"][1, :2]
        (torch.Size([2, 1200]), [1000, 1200], tensor([-1.0000,  1.0000]))
    """

    feature_extractor: Mapping[str, Any]
    normaliser: str = "basic"
    scoring_normaliser: str = "basic"
    vocabulary: CTCVocabulary | None = None
    chunk_seconds: float = 30.0
    overlap_seconds: float = 4.0
    layers: tuple[FrameLayer, ...] | None = ()
    max_label_tokens: int | None = None
    tokenizer_json: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        normaliser(self.normaliser)
        normaliser(self.scoring_normaliser)
        kind = self.feature_extractor.get("feature_extractor_type")
        if kind not in FEATURE_EXTRACTORS:
            raise DataError(
                f"The feature extractor `{kind}` cannot be built. Known: {', '.join(FEATURE_EXTRACTORS)}."
                " Choose a backbone with one of these."
            )
        if not 0 <= self.overlap_seconds < self.chunk_seconds / 2:
            raise ValueError(
                f"Expected `overlap_seconds` from 0 to below half of `chunk_seconds` {self.chunk_seconds:g}, got"
                f" {self.overlap_seconds:g}."
            )
        if self.is_windowed and self.chunk_seconds > self.window_seconds:
            raise ValueError(
                f"Expected `chunk_seconds` of at most {self.window_seconds:g}, which is all that this model hears at"
                f" once, got {self.chunk_seconds:g}."
            )

    @classmethod
    def from_card(
        cls,
        card: BackboneCard,
        *,
        normaliser: str | None = None,
        scoring_normaliser: str = "basic",
        chunk_seconds: float | None = None,
        overlap_seconds: float | None = None,
    ) -> AudioPreprocessing:
        """Take the feature extractor and the vocabulary from the card.

        Args:
            card: Of a speech backbone.
            normaliser: None takes ``basic``, and for a model with a tokenizer of its own (Whisper) ``none``: it was
                trained with capitals and punctuation.
            scoring_normaliser: Of the texts that are compared.
            chunk_seconds: None takes 30 seconds, or the window of the model.
            overlap_seconds: What two neighbouring pieces share; None takes 4 seconds, or a sixth of a shorter piece.

        Raises:
            DataError: If the backbone is none for audio, or its card lacks a feature extractor.
        """
        if card.modality != "audio":
            raise DataError(
                f"The backbone `{card.name}` reads {card.modality}, and these data are sound. Choose a speech encoder,"
                " such as `hf/facebook/wav2vec2-base` or its folder, or `embedded/speech_ctc_tiny`."
            )
        values = card.processor.get("feature_extractor")
        if not values:
            raise DataError(
                f"The backbone `{card.name}` comes without a feature extractor, so its sampling rate is unknown. Its"
                " folder needs a `preprocessor_config.json`; with transformers:"
                " `AutoFeatureExtractor.from_pretrained(NAME).save_pretrained(FOLDER)`."
            )
        tokenizer = str(card.processor.get("tokenizer_json") or "")
        positions = card.architecture_config.get("max_target_positions") if tokenizer else None
        windowed = values.get("feature_extractor_type") == "WhisperFeatureExtractor"
        window = float(values.get("chunk_length", 30)) if windowed else 30.0
        chunk = min(30.0, window) if chunk_seconds is None else chunk_seconds
        return cls(
            dict(values),
            normaliser or ("none" if tokenizer else "basic"),
            scoring_normaliser,
            None if tokenizer else CTCVocabulary.from_card(card),
            chunk,
            min(4.0, chunk / 6) if overlap_seconds is None else overlap_seconds,
            None if tokenizer else frame_layers(card.architecture_config),
            None if positions is None else int(positions) - _WHISPER_PREFIX - 1,
            tokenizer,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], card: BackboneCard) -> AudioPreprocessing:
        """Rebuild from `to_dict`; a tokenizer comes from the checkpoint's card.

        Raises:
            ValueError: If the values describe something else than sound.
            DataError: If the card's tokenizer is not the one that was used.
        """
        if values.get("kind") != "audio":
            raise ValueError(f"Expected preprocessing of kind `audio`, got `{values.get('kind')}`.")
        known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
        if known.get("vocabulary") is not None:
            known["vocabulary"] = CTCVocabulary.from_dict(known["vocabulary"])
        if known.get("layers") is not None:
            known["layers"] = tuple(FrameLayer(*layer) for layer in known["layers"])
        made = cls(**known, tokenizer_json=str(card.processor.get("tokenizer_json") or ""))
        if made.to_dict()["tokenizer"] != values.get("tokenizer"):
            raise DataError(
                f"The tokenizer of `{card.name}` is {made.to_dict()['tokenizer']}, and the model was trained with"
                f" {values.get('tokenizer')}. Use the checkpoint's card."
            )
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return the full specification as plain values; a tokenizer, which may have megabytes, by its hash."""
        text = self.tokenizer_json
        return {
            "kind": "audio",
            "sampling_rate": self.sampling_rate,
            "feature_extractor": dict(self.feature_extractor),
            "normaliser": self.normaliser,
            "scoring_normaliser": self.scoring_normaliser,
            "vocabulary": None if self.vocabulary is None else self.vocabulary.to_dict(),
            "chunk_seconds": self.chunk_seconds,
            "overlap_seconds": self.overlap_seconds,
            "layers": None if self.layers is None else [list(layer) for layer in self.layers],
            "max_label_tokens": self.max_label_tokens,
            "tokenizer": hashlib.sha256(text.encode()).hexdigest()[:16] if text else None,
        }

    @property
    def sampling_rate(self) -> int:
        """Samples a second that the network was trained with."""
        return int(self.feature_extractor.get("sampling_rate", 16_000))

    @property
    def is_windowed(self) -> bool:
        """Whether the model hears windows of one length, filled up with silence (Whisper)."""
        return bool(self.feature_extractor["feature_extractor_type"] == "WhisperFeatureExtractor")

    @property
    def window_seconds(self) -> float:
        """Length of the window; without one no length is the longest."""
        return float(self.feature_extractor.get("chunk_length", 30)) if self.is_windowed else math.inf

    def __call__(self, segment: AudioSegment) -> dict[str, Tensor]:
        """Return what the network reads of a piece of sound: ``input_values`` or ``input_features``, and its mask.

        Raises:
            DataError: If it cannot be read; names the file and the reason.
        """
        return self.features(self.read(segment))

    def read(self, segment: AudioSegment) -> Waveform:
        """Return the samples of a piece of sound at the network's rate, to be changed or made features of."""
        return read_audio(segment, self.sampling_rate)

    def features(self, wave: Waveform | Tensor) -> dict[str, Tensor]:
        """Return what the network reads of samples at its rate, without padding (Whisper: in its whole window)."""
        samples = np.asarray(wave, dtype=np.float32).reshape(-1)
        least = math.ceil(_LEAST_SECONDS * self.sampling_rate)
        if len(samples) < least:
            samples = np.pad(samples, (0, least - len(samples)))
        extra = {"return_attention_mask": True} if self.is_windowed else {}
        found = self._extractor(samples, sampling_rate=self.sampling_rate, return_tensors="np", **extra)
        key = "input_values" if "input_values" in found else "input_features"
        values = torch.from_numpy(np.asarray(found[key][0], dtype=np.float32))
        mask = found.get("attention_mask")
        ones = torch.ones(len(values), dtype=torch.int64)
        return {key: values, "attention_mask": ones if mask is None else torch.from_numpy(np.asarray(mask[0])).long()}

    def collate(self, inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return a batch, padded to its longest recording: features ``(N, T, ...)``, ``attention_mask`` ``(N, T)``."""
        (key,) = [name for name in inputs[0] if name != "attention_mask"]
        fill = {key: float(self.feature_extractor.get("padding_value", 0.0)), "attention_mask": 0}
        return {
            name: pad_sequence([item[name] for item in inputs], batch_first=True, padding_value=value)
            for name, value in fill.items()
        }

    def cuts(self, seconds: float) -> list[tuple[float, float]]:
        """Return begin and length of the pieces of a recording; one, where it is no longer than a piece.

        Piece ``k`` begins at ``k * (chunk_seconds - overlap_seconds)``, so what a module hears can be put together by
        the numbers of the pieces alone. The last is shorter, and longer than the overlap.

        Example:
            >>> spec = AudioPreprocessing({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, chunk_seconds=10.0)
            >>> spec.cuts(10.0), spec.cuts(17.0)
            ([(0.0, 10.0)], [(0.0, 10.0), (6.0, 10.0), (12.0, 5.0)])
        """
        step = self.chunk_seconds - self.overlap_seconds
        starts = [0.0]
        while starts[-1] + self.chunk_seconds < seconds:
            starts.append(len(starts) * step)
        return [(start, min(self.chunk_seconds, seconds - start)) for start in starts]

    def frames(self, seconds: float) -> int | None:
        """Return how many frames the network makes of sound of some length; None where that is not known."""
        if self.layers is None:
            return None
        return count_frames(
            round(max(seconds, _LEAST_SECONDS) * self.sampling_rate), self.feature_extractor, self.layers
        )

    def text(self, text: str) -> str:
        """Return a text as it is learnt from."""
        return normaliser(self.normaliser)(text)

    def encode(self, text: str) -> list[int]:
        """Return the target of a text as it was read: its numbers in the vocabulary, or the tokenizer's.

        Special tokens are no part of it: blanks are CTC's, start, language and end of the text are the module's.

        Raises:
            DataError: If there is neither vocabulary nor tokenizer.
        """
        if self.vocabulary is not None:
            return self.vocabulary.encode(self.text(text))
        if not self.tokenizer_json:
            raise DataError("There is no vocabulary yet: it is made of the training texts, in `setup('fit')`.")
        return list(_tokenizer(self.tokenizer_json).encode(self.text(text), add_special_tokens=False).ids)

    def lacks_frames(self, text: str, seconds: float) -> bool:
        """Return whether a text is too long for its sound: no path of CTC leads through it, or it cannot be written."""
        if self.vocabulary is None and not self.tokenizer_json:
            return False  # not known yet
        label = self.encode(text)
        frames = self.frames(seconds) if self.vocabulary is not None else None
        too_many = self.max_label_tokens is not None and len(label) > self.max_label_tokens
        return too_many or (frames is not None and frames_needed(label) > frames)

    @cached_property
    def _extractor(self) -> Any:  # noqa: ANN401 - transformers' class
        return _build(str(self.feature_extractor["feature_extractor_type"]), self.feature_extractor)


def _build(name: str, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as above
    """Return transformers' extractor of some settings."""
    try:
        import transformers

        kind = getattr(transformers, name)
    except (ImportError, OSError, RuntimeError) as error:
        raise DataError(
            f"`{name}` is a part of transformers, which cannot be loaded ({str(error).splitlines()[0]}). Run `pip"
            " install lightning-transfer[speech]`. transformers loads torchaudio wherever that is installed: a"
            " torchaudio of another version or CUDA build than torch breaks it; install the one of constraints.txt."
        ) from error
    return kind(**{key: value for key, value in values.items() if key not in ("feature_extractor_type", "mel_filters")})


@lru_cache(maxsize=2)
def _tokenizer(text: str) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer
    return open_tokenizer(text)
