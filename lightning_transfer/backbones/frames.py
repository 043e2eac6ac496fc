"""Encoders of speech: features in time, the number of frames of each recording, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_transfer.backbones.pooled import WrappedTransformer
from lightning_transfer.errors import BackboneError
from lightning_transfer.types import BackboneCard

__all__ = [
    "Augment",
    "FrameTransformer",
    "Frames",
    "MeanFrameTransformer",
    "SpeechEncoder",
    "frame_lengths",
    "freeze_feature_encoder",
    "has_frames",
    "step_seconds",
    "without_random_masks",
]

Augment: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Changes features ``(N, T, F)``, given their lengths ``(N,)`` and what stands for a hidden frame, ``(F,)``."""

_TIME_LAST = ("whisper",)
"""Model types whose input features are ``(N, mels, T)``; all others have time second."""


class Frames(NamedTuple):
    """Features in time.

    Attributes:
        features: Of each frame, ``(N, T, F)``; behind a recording's last frame stands padding.
        lengths: Frames of each recording, ``(N,)`` int64; 0 where it is shorter than the first frame needs.
    """

    features: Tensor
    lengths: Tensor


def has_frames(model: nn.Module) -> bool:
    """Tell whether a network of transformers says how many frames it makes of how much sound."""
    return callable(getattr(model, "_get_feat_extract_output_lengths", None))


def frame_lengths(model: nn.Module, lengths: Tensor) -> Tensor:
    """Return how many frames the network makes of so many samples, or of so many input frames.

    The arithmetic is the network's own: only frames that see no padding count.

    Args:
        model: A speech encoder of transformers.
        lengths: Samples, or input frames, of each recording, ``(N,)``.

    Example:
        >>> from transformers import Wav2Vec2Config, Wav2Vec2Model
        >>> with torch.device("meta"):
        ...     model = Wav2Vec2Model(Wav2Vec2Config(num_hidden_layers=1))
        >>> frame_lengths(model, torch.tensor([399, 400, 16000])).tolist()
        [0, 1, 49]
    """
    counted: Tensor = model._get_feat_extract_output_lengths(lengths)  # type: ignore[operator]
    return counted.long().clamp(min=0)


class SpeechEncoder(WrappedTransformer):
    """Run a speech encoder of transformers, and count the frames of each recording.

    The attention mask says how long each recording is. Networks whose feature encoder normalises over time
    (``feat_extract_norm="group"``) were trained without a mask, with zeros as padding, and do not get to see it;
    lengths count all the same. Recordings shorter than the first frame needs have no frames.

    Args:
        model: The encoder, as ``AutoModel`` builds it.

    Raises:
        BackboneError: If the network does not say how many frames it makes.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if not has_frames(model):
            raise BackboneError(
                f"`{type(model).__name__}` does not say how many frames it makes of how much sound, so it cannot give "
                "features in time. Use wav2vec 2.0, HuBERT, WavLM, wav2vec2-bert or Whisper."
            )
        config: Any = model.config
        self.sees_mask = getattr(config, "feat_extract_norm", "") != "group"
        self.time_axis = 2 if config.model_type in _TIME_LAST else 1
        self.shortest = _smallest_input(model, 1)
        self.steps_per_frame = _smallest_input(model, 101) - _smallest_input(model, 100)
        self._augment: Augment | None = None
        self._lengths: Tensor | None = None
        projection = getattr(model, "feature_projection", None)
        self._projects = isinstance(projection, nn.Module)
        if isinstance(projection, nn.Module):
            projection.register_forward_hook(self._after_projection)

    def encode(self, given: dict[str, Any], augment: Augment | None = None) -> Frames:
        """Return the frames of what the network takes by keyword."""
        name = str(self.model.main_input_name)
        sound: Tensor = given.pop(name)
        mask: Tensor | None = given.pop("attention_mask", None)
        steps = sound.shape[self.time_axis]
        lengths = sound.new_full((len(sound),), steps, dtype=torch.long) if mask is None else mask.long().sum(dim=1)
        if sound.ndim == 2 and steps < self.shortest:
            sound = functional.pad(sound, (0, self.shortest - steps))
        if mask is not None and self.sees_mask:
            # A recording too short for one frame would leave nothing to attend to.
            places = torch.arange(sound.shape[self.time_axis], device=sound.device)
            given["attention_mask"] = (places < lengths.clamp(min=self.shortest)[:, None]).long()
        if augment is not None and not self._projects:
            if sound.ndim != 3:
                raise BackboneError(f"`{type(self.model).__name__}` has no projection, where masks could be laid.")
            sound = _masked_input(sound, lengths, augment, self.time_axis)
            augment = None
        if augment is not None:
            self._augment, self._lengths = augment, lengths
        try:
            output = self.model(**{name: sound}, **given)
        finally:
            self._augment = self._lengths = None
        hidden: Tensor = output.last_hidden_state
        return Frames(hidden, frame_lengths(self.model, lengths).clamp(max=hidden.shape[1]))

    def _after_projection(self, module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ANN401 - as hooks go
        """Lay masks over the projected features, as wav2vec 2.0 does; some projections return their input too."""
        if self._augment is None or self._lengths is None:
            return None
        hidden: Tensor = output[0] if isinstance(output, tuple) else output
        # Before an adapter shortens them, the network counts as many frames as come out here.
        lengths = self._lengths
        if self.model.main_input_name == "input_values":
            lengths = _lengths_before_adapter(self.model, lengths)
        mark = getattr(self.model, "masked_spec_embed", None)
        mark = hidden.new_zeros(hidden.shape[-1]) if mark is None else mark.to(hidden.dtype)
        changed = self._augment(hidden, lengths.clamp(max=hidden.shape[1]), mark)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


class FrameTransformer(SpeechEncoder):
    """Wrap a speech encoder of transformers so that it returns features in time, and how many of them are sound.

    Args:
        model: See `SpeechEncoder`.

    Example:
        >>> from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        >>> config = Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=4)
        >>> backbone = FrameTransformer(Wav2Vec2BertModel(without_random_masks(config)))
        >>> mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
        >>> frames = backbone({"input_features": torch.zeros(2, 5, 4), "attention_mask": mask})
        >>> tuple(frames.features.shape), frames.lengths.tolist()
        ((2, 5, 8), [5, 3])
    """

    def forward(
        self,
        inputs: Tensor | Mapping[str, Any] | None = None,
        *,
        augment: Augment | None = None,
        **kwargs: Any,  # noqa: ANN401 - what the network takes
    ) -> Frames:
        """Encode.

        Args:
            inputs: What the feature extractor returns, or the main tensor alone. Without an attention mask all of it
                is sound.
            augment: Changes the features that go into the encoder's blocks: masks over time and features.
            kwargs: The same as ``inputs`` by keyword.

        Returns:
            Features ``(N, T, F)`` and their lengths ``(N,)``.
        """
        return self.encode(self.arguments(inputs, kwargs), augment)


class MeanFrameTransformer(SpeechEncoder):
    """Wrap a speech encoder so that it returns one vector a recording: the mean of its frames, padding left out.

    A recording without frames gives zeros.

    Example:
        >>> from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        >>> config = Wav2Vec2BertConfig(**sizes, feature_projection_input_dim=4)
        >>> MeanFrameTransformer(Wav2Vec2BertModel(without_random_masks(config)))(torch.zeros(2, 5, 4)).shape
        torch.Size([2, 8])
    """

    def forward(
        self,
        inputs: Tensor | Mapping[str, Any] | None = None,
        *,
        augment: Augment | None = None,
        **kwargs: Any,  # noqa: ANN401 - what the network takes
    ) -> Tensor:
        """Encode as `FrameTransformer` does, and return features ``(N, F)``."""
        hidden, lengths = self.encode(self.arguments(inputs, kwargs), augment)
        real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        total = hidden.masked_fill(~real[:, :, None], 0.0).sum(dim=1)
        return total / lengths.clamp(min=1)[:, None].to(total.dtype)


def freeze_feature_encoder(backbone: SpeechEncoder) -> bool:
    """Freeze the convolutions over the waveform for good, as wav2vec 2.0's authors do when they fine-tune.

    Returns:
        Whether there are any; networks that take mel features have none.

    Example:
        >>> from transformers import HubertConfig, HubertModel
        >>> with torch.device("meta"):
        ...     backbone = FrameTransformer(HubertModel(HubertConfig(num_hidden_layers=1)))
        >>> freeze_feature_encoder(backbone)
        True
        >>> any(value.requires_grad for value in backbone.model.feature_extractor.parameters())
        False
    """
    encoder = getattr(backbone.model, "feature_extractor", None)
    if not isinstance(encoder, nn.Module):
        return False
    encoder.requires_grad_(False)
    # transformers asks this before it makes the waveform itself require a gradient, for checkpointing.
    if hasattr(encoder, "_requires_grad"):
        setattr(encoder, "_requires_grad", False)  # noqa: B010 - a flag, which types take for a parameter
    return True


def without_random_masks(config: Any) -> Any:  # noqa: ANN401 - transformers' PreTrainedConfig
    """Switch off, in place, what a speech network of transformers does by itself while it trains.

    Its masks over time and features come from NumPy's global state, and fail on recordings shorter than a mask; ours
    are those of `SpecAugment`. Layers that are dropped at random leave parameters without gradient, which DDP refuses.

    Example:
        >>> from transformers import Wav2Vec2Config
        >>> without_random_masks(Wav2Vec2Config()).layerdrop
        0.0
    """
    config.apply_spec_augment = False
    for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    return config


def step_seconds(card: BackboneCard) -> float:
    """Return the seconds between two steps of what the backbone takes: samples, or frames of mel features.

    Raises:
        BackboneError: If the card does not say how sound becomes the backbone's input.

    Example:
        >>> settings = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": 16000, "stride": 2}
        >>> step_seconds(BackboneCard("a", "hf/wav2vec2-bert", processor={"feature_extractor": settings}))
        0.02
    """
    settings = card.processor.get("feature_extractor") or {}
    if "sampling_rate" not in settings:
        raise BackboneError(
            f"The card of `{card.name}` does not say its `sampling_rate`: `processor` has no `feature_extractor`. Put "
            "`preprocessor_config.json` beside the weights, or give a card with these settings."
        )
    rate = float(settings["sampling_rate"])
    kind = settings.get("feature_extractor_type", "")
    if kind == "SeamlessM4TFeatureExtractor":
        return 160 * int(settings.get("stride", 2)) / rate  # the hop is a constant of that class
    return float(settings.get("hop_length", 1)) / rate


def _smallest_input(model: nn.Module, frames: int) -> int:
    """Return the smallest number of input steps that gives so many frames, by bisection of the network's own rule."""

    def enough(steps: int) -> bool:
        # On the CPU whatever the default device is: a network may be built on the meta device.
        return int(frame_lengths(model, torch.tensor([steps], device="cpu"))) >= frames

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _lengths_before_adapter(model: nn.Module, lengths: Tensor) -> Tensor:
    if not getattr(model.config, "add_adapter", False):
        return frame_lengths(model, lengths)
    counted: Tensor = model._get_feat_extract_output_lengths(lengths, add_adapter=False)  # type: ignore[operator]
    return counted.long().clamp(min=0)


def _masked_input(sound: Tensor, lengths: Tensor, augment: Augment, time_axis: int) -> Tensor:
    """Lay masks over mel features, in which zero is what hides."""
    features = sound.transpose(1, 2) if time_axis == 2 else sound
    changed = augment(features, lengths, features.new_zeros(features.shape[-1]))
    return changed.transpose(1, 2) if time_axis == 2 else changed
