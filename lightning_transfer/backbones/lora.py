"""Low-rank adapters (LoRA) on backbones of transformers: put them on, and merge them into the weights again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lightning_transfer.backbones.libraries import explain_torchaudio, import_library
from lightning_transfer.backbones.pooled import WrappedTransformer
from lightning_transfer.errors import BackboneError, closest, listing

__all__ = ["LoraOptions", "add_lora", "linear_layers", "merged"]


@dataclass(frozen=True)
class LoraOptions:
    """How a backbone is adapted by low-rank matrices, while its own weights stay frozen (Hu et al. 2021).

    arXiv 2106.09685, equation 3: a layer ``W`` becomes ``W + alpha / rank * B A``, with ``A`` random and ``B`` zero,
    so that training begins at the pretrained network exactly.

    Attributes:
        rank: Rows of ``A``. 8 is the middle of the paper's table 6, in which 4 to 64 are equally good.
        alpha: Scale of what is added, over the rank; twice the rank is the common choice.
        dropout: Share of the adapters' inputs dropped while training.
        target_modules: Ends of the dotted names of the layers to adapt, such as ``query`` or ``layer.5.output.dense``;
            None takes every linear layer of attention and feed-forward, which in later work (Dettmers et al. 2023,
            arXiv 2305.14314, figure 2) was what matters most.

    Raises:
        ValueError: If a number is out of range, or the list of layers is empty.

    Example:
        >>> LoraOptions(rank=4, alpha=8).scale
        2.0
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"Expected `lora.rank` of at least 1, got {self.rank}. 8 is a good start.")
        if self.alpha <= 0:
            raise ValueError(f"Expected `lora.alpha` above 0, got {self.alpha}. Twice the rank is a good start.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"Expected `lora.dropout` in [0, 1), got {self.dropout}. Use 0.0 for none.")
        if self.target_modules is not None and not self.target_modules:
            raise ValueError(
                "Expected names in `lora.target_modules`, got an empty list. Leave it out for all linear layers of "
                "attention and feed-forward."
            )

    @property
    def scale(self) -> float:
        """Factor of what the adapters add."""
        return self.alpha / self.rank

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, options: LoraOptions | Mapping[str, Any] | None) -> LoraOptions | None:
        """Return options given as such, as the plain values of a checkpoint, or not at all.

        Example:
            >>> LoraOptions.of({"rank": 4}).rank
            4
        """
        return cls(**options) if isinstance(options, Mapping) else options


def add_lora(backbone: nn.Module, options: LoraOptions) -> None:
    """Freeze a backbone of transformers and put adapters on its linear layers, in place.

    The features stay bitwise what they were, until the first step.

    Args:
        backbone: As `load_backbone` returns it for a transformers model.
        options: Where the adapters sit, and how large they are.

    Raises:
        BackboneError: If the backbone is none of transformers, has adapters already, or a name matches no layer.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> from lightning_transfer.backbones.pooled import PooledTransformer
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> backbone = PooledTransformer(BertModel(config, add_pooling_layer=False), pooling="mean")
        >>> add_lora(backbone, LoraOptions(rank=2, target_modules=["query"]))
        >>> [name.split("self.")[1] for name, value in backbone.named_parameters() if value.requires_grad]
        ['query.lora_A.default.weight', 'query.lora_B.default.weight']
    """
    if not isinstance(backbone, WrappedTransformer):
        raise BackboneError(
            f"`lora` adapts the linear layers of transformers, and this backbone is a `{type(backbone).__name__}`. "
            "Use a backbone `hf/ORGANISATION/MODEL` or a folder that transformers saved, or leave `lora` out and "
            "choose what trains by the schedule of BackboneFreezeUnfreeze."
        )
    if hasattr(backbone.model, "peft_config"):
        raise BackboneError("This backbone has adapters already. Merge them first: `merged(backbone)`.")
    found = linear_layers(backbone.model)
    names = list(found) if options.target_modules is None else _chosen(found, options.target_modules)
    with explain_torchaudio():
        peft = import_library("peft")
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=names,
        bias="none",
        # GPT-2's layers hold their weights transposed.
        fan_in_fan_out=not isinstance(found[names[0]], nn.Linear),
    )
    # Wrapped, not injected: depth, schedules and the plan know adapters by PEFT's wrapper.
    backbone.model = peft.get_peft_model(backbone.model, config)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of attention and feed-forward by their dotted names.

    These are the linear layers within the repeated blocks. What lies outside the blocks (embeddings and their
    projections, poolers) is left out, and so are subclasses, whose weights may be used without a call of the layer.

    Raises:
        BackboneError: If there is none.

    Example:
        >>> net = nn.Module()
        >>> net.inputs, net.blocks = nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2), nn.LayerNorm(2)])
        >>> list(linear_layers(net))
        ['blocks.0']
    """
    found: dict[str, nn.Module] = {}
    lists = tuple(f"{name}." for name, part in model.named_modules() if name and isinstance(part, nn.ModuleList))
    for name, part in model.named_modules():
        if name.startswith(lists) and (type(part) is nn.Linear or _is_transposed_linear(part)):
            found[name] = part
    if not found:
        raise BackboneError(
            f"`lora` found no linear layer within repeated blocks of `{type(model).__name__}`. Leave `lora` out, and "
            "choose what trains by the schedule of BackboneFreezeUnfreeze."
        )
    return found


def merged(backbone: nn.Module) -> nn.Module:
    """Return a backbone in which the adapters are added to the weights; without adapters, the backbone itself.

    What it returns is a network as transformers builds it, for export and for use without PEFT. The backbone that is
    passed stays as it is. Features agree up to rounding.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from lightning_transfer.backbones.pooled import PooledTransformer
        >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
        >>> backbone = PooledTransformer(BertModel(config, add_pooling_layer=False), pooling="mean")
        >>> names = [name for name, _ in backbone.named_parameters()]
        >>> add_lora(backbone, LoraOptions(rank=2))
        >>> [name for name, _ in merged(backbone).named_parameters()] == names
        True
    """
    if not isinstance(backbone, WrappedTransformer) or not hasattr(backbone.model, "merge_and_unload"):
        return backbone
    whole = deepcopy(backbone)
    whole.model = whole.model.merge_and_unload()  # type: ignore[operator]
    return whole


def _is_transposed_linear(part: nn.Module) -> bool:
    """Tell GPT-2's linear layer, which transformers calls a convolution; asked by name, to import nothing."""
    return type(part).__name__ == "Conv1D" and type(part).__module__ == "transformers.pytorch_utils"


def _chosen(found: Mapping[str, nn.Module], ends: Sequence[str]) -> list[str]:
    """Return the layers that the ends of names choose; each end must choose some."""
    chosen: set[str] = set()
    for end in ends:
        hits = [name for name in found if name == end or name.endswith(f".{end}")]
        if not hits:
            known = list(dict.fromkeys(_without_numbers(name) for name in found))
            short = list(dict.fromkeys(name.rpartition(".")[2] for name in found))
            raise BackboneError(
                f"`lora.target_modules`: no linear layer is named `{end}`.{closest(end, short)} Layers of each block: "
                f"{listing((f'`{name}`' for name in known), 20)}. Give the ends of such names, or leave it out for all."
            )
        chosen.update(hits)
    return [name for name in found if name in chosen]


def _without_numbers(name: str) -> str:
    """Return what is the same in all blocks: the name behind its last number."""
    parts = name.split(".")
    last = max((place for place, part in enumerate(parts) if part.isdigit()), default=-1)
    return ".".join(parts[last + 1 :]) or name
