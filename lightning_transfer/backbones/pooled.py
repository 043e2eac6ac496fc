"""A transformers encoder whose tokens become one vector of features for each item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PooledTransformer", "WrappedTransformer"]


class WrappedTransformer(nn.Module):
    """Hold a network of transformers as ``model``, and take its inputs in any of the usual forms.

    Args:
        model: The network, as one of transformers' ``Auto`` classes builds it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def arguments(self, inputs: Tensor | Mapping[str, Any] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of the network: from a mapping, from its main tensor alone, or by keyword."""
        if isinstance(inputs, Mapping):
            return {**inputs, **kwargs}
        return dict(kwargs) if inputs is None else {str(self.model.main_input_name): inputs, **kwargs}


class PooledTransformer(WrappedTransformer):
    """Wrap a transformers encoder so that it returns one feature vector for each item.

    Args:
        model: The encoder, as ``AutoModel`` builds it.
        pooling: ``mean`` over the tokens that the attention mask shows; ``cls`` for the first token; empty for the
            encoder's own pooled output.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> backbone = PooledTransformer(BertModel(config, add_pooling_layer=False), pooling="mean")
        >>> backbone({"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}).shape
        torch.Size([1, 8])
    """

    def __init__(self, model: nn.Module, pooling: str) -> None:
        super().__init__(model)
        self.pooling = pooling

    def forward(self, inputs: Tensor | Mapping[str, Any] | None = None, **kwargs: Any) -> Tensor:  # noqa: ANN401
        """Encode and pool.

        Args:
            inputs: What the processor returns, or the main tensor alone (token ids, pixels, waveform). Without an
                attention mask every token counts, padding too. ``chunk_of`` ``(M,)`` says of which item each of M rows
                is a part: their features are averaged, by the number of their tokens.
            kwargs: The same by keyword.

        Returns:
            Features of shape ``(N, F)``.
        """
        given = self.arguments(inputs, kwargs)
        chunk_of = given.pop("chunk_of", None)
        features = self._pool(self.model(**given), given.get("attention_mask"))
        return features if chunk_of is None else _join_chunks(features, chunk_of, given["attention_mask"])

    def _pool(self, output: Any, mask: Tensor | None) -> Tensor:  # noqa: ANN401 - transformers' own output
        if self.pooling == "":
            pooled: Tensor = output.pooler_output
            return pooled.flatten(1)
        hidden: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        if mask is None:
            return hidden.mean(dim=1)
        if mask.shape[1] != hidden.shape[1]:
            mask = functional.interpolate(mask[:, None].float(), size=hidden.shape[1], mode="nearest")[:, 0]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def _join_chunks(features: Tensor, chunk_of: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the rows of each item, weighed by their tokens."""
    weights = mask.sum(dim=1, keepdim=True).to(features.dtype)
    count = int(chunk_of.max()) + 1
    total = features.new_zeros(count, features.shape[1]).index_add(0, chunk_of, features * weights)
    return total / features.new_zeros(count, 1).index_add(0, chunk_of, weights).clamp(min=1e-9)
