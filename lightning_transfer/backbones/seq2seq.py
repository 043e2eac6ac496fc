"""Whisper as a whole: its encoder hears, its decoder writes tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_transfer.backbones.libraries import explain_torchaudio, import_library
from lightning_transfer.backbones.pooled import WrappedTransformer

__all__ = ["Generated", "Seq2SeqTransformer"]

_KEPT = ("suppress_tokens", "begin_suppress_tokens", "eos_token_id", "pad_token_id", "decoder_start_token_id")
"""What of a model's `generation_config.json` decides which tokens it may write; the rest is stated by the caller."""


class Generated(NamedTuple):
    """What a decoder wrote.

    Attributes:
        tokens: Without the tokens that it was given, ``(N, L)``; behind each end stands padding.
        probabilities: Of each token, among those that were allowed, ``(N, L)``; 1 behind the end.
    """

    tokens: Tensor
    probabilities: Tensor


class Seq2SeqTransformer(WrappedTransformer):
    """Wrap Whisper so that it returns the logits of the next token at each place of a text.

    Args:
        model: As ``AutoModelForSpeechSeq2Seq`` builds it.

    Example:
        >>> from transformers import WhisperConfig, WhisperForConditionalGeneration
        >>> sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 12, "num_mel_bins": 4}
        >>> heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_source_positions": 6}
        >>> ids = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
        >>> backbone = Seq2SeqTransformer(WhisperForConditionalGeneration(WhisperConfig(**sizes, **heads, **ids)))
        >>> backbone(torch.zeros(2, 4, 12), decoder_input_ids=torch.tensor([[3, 5], [3, 6]])).shape
        torch.Size([2, 2, 12])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        with explain_torchaudio():
            made = import_library("transformers").GenerationConfig.from_model_config(model.config)
        # Loaded models bring settings, built ones do not, and transformers falls back on them: `generate` states all.
        made.suppress_tokens = made.begin_suppress_tokens = None
        model.generation_config = made

    @property
    def max_positions(self) -> int:
        """How many tokens a text may have, the given ones at its begin and its end included."""
        config: Any = self.model.config
        return int(config.max_target_positions)

    def forward(
        self,
        inputs: Tensor | Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401 - what the network takes
    ) -> Tensor:
        """Return the logits of the next tokens, with every token before them given.

        Args:
            inputs: ``input_features`` ``(N, mels, T)`` and ``decoder_input_ids`` ``(N, L)``, or the first alone. An
                attention mask is left out: Whisper hears its whole window.
            kwargs: The same by keyword.

        Returns:
            Logits ``(N, L, V)``.
        """
        given = self.arguments(inputs, kwargs)
        given.pop("attention_mask", None)
        logits: Tensor = self.model(**given, use_cache=False).logits
        return logits

    @torch.no_grad()
    def generate(
        self,
        input_features: Tensor,
        prompt: Tensor,
        *,
        settings: Mapping[str, Any],
        max_new_tokens: int,
        num_beams: int = 1,
    ) -> Generated:
        """Write the text of one window for each item: the most probable token at each place, or a beam search.

        Args:
            input_features: ``(N, mels, T)``.
            prompt: Tokens that each text begins with, ``(N, P)``: start, language, task.
            settings: Values of the model's ``generation_config.json``; those count that allow tokens or end a text.
            max_new_tokens: Tokens after the prompt at most, the end included.
            num_beams: 1 is greedy.
        """
        with explain_torchaudio():
            transformers = import_library("transformers")
        kept = {key: settings[key] for key in _KEPT if settings.get(key) is not None}
        config = transformers.GenerationConfig(
            **kept,
            max_new_tokens=max_new_tokens,
            num_beams=num_beams,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        outer: Any = self.model
        network: Any = outer.get_base_model() if hasattr(outer, "get_base_model") else outer
        # Past Whisper's own `generate`, which splits long sound and guesses languages: here are a window and a prompt.
        # The whole window is heard; without a mask transformers warns that it cannot tell padding from ends.
        written = transformers.GenerationMixin.generate(
            network,
            input_features,
            generation_config=config,
            decoder_input_ids=prompt,
            attention_mask=prompt.new_ones(len(input_features), input_features.shape[-1]),
        )
        chances = network.compute_transition_scores(
            written.sequences, written.scores, getattr(written, "beam_indices", None), normalize_logits=num_beams == 1
        )
        tokens: Tensor = written.sequences[:, prompt.shape[1] :]
        ended = _ended(tokens, _ends(kept.get("eos_token_id", network.generation_config.eos_token_id)))
        return Generated(tokens, chances.exp().masked_fill(ended, 1.0))


def _ends(tokens: int | Sequence[int]) -> list[int]:
    return [tokens] if isinstance(tokens, int) else list(tokens)


def _ended(tokens: Tensor, ends: list[int]) -> Tensor:
    """Say which tokens stand behind the first end of their row."""
    end = torch.isin(tokens, torch.tensor(ends, device=tokens.device)).long()
    return (end.cumsum(dim=1) - end) > 0
