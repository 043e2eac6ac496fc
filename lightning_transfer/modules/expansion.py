"""Give a finished model more classes, without changing what it says of the old ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_transfer.errors import CheckpointError, listing
from lightning_transfer.modules.expanded_head import ExpandedHead
from lightning_transfer.modules.transfer import CHECKPOINT_KEY, TransferModule, read_checkpoint
from lightning_transfer.types import Batch, Record, Schema

if TYPE_CHECKING:
    from lightning_transfer.modules.classification import ClassificationModule

__all__ = ["Expansion", "expand_head", "start_new_rows"]

_MODEL_FILE = "model.ckpt"

# Arguments of the old model that say how it was trained, not what it is; an expanded model may have its own.
_FREE = frozenset({"loss", "focal_gamma", "class_weights", "logit_adjustment", "label_smoothing"})

_HEAD = ("head_norm", "head_dropout")

_ROWS_FROM = 64
"""Training records of each new class that its row is started from; more hardly move a mean."""


@dataclass(frozen=True)
class Expansion:
    """A finished model that is to get more classes.

    Attributes:
        path: Its checkpoint.
        payload: What the checkpoint holds beside the weights.
        state: The weights.
        schema: Its classes and preprocessing.
    """

    path: Path
    payload: Mapping[str, Any]
    state: Mapping[str, Tensor]
    schema: Schema

    @classmethod
    def read(cls, run_or_ckpt: str | Path) -> Expansion:
        """Read a finished run's ``model.ckpt``, or a checkpoint.

        Raises:
            CheckpointError: If it is missing, unreadable, not one of ours, or has no head that can be expanded.
        """
        path = Path(run_or_ckpt)
        path = path / _MODEL_FILE if path.is_dir() else path
        checkpoint = read_checkpoint(path)
        payload = checkpoint[CHECKPOINT_KEY]
        if not _is_classifier(payload["module"]):
            raise CheckpointError(
                f"`{path}` holds a `{payload['module']}`, which has no row for each class. A `ClassificationModule`, "
                "such as a recipe's linear head, can get more classes."
            )
        schema = Schema.from_dict(payload["schema"])
        if schema.task == "binary":
            raise CheckpointError(
                f"`{path}` tells `{schema.classes[0]}` from `{schema.classes[-1]}` by one logit (`task: binary`), so "
                "there is no logit of each class to keep. Train it with `task: multiclass`, and expand that."
            )
        return cls(path, payload, checkpoint["state_dict"], schema)

    def arguments(self, backbone: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the constructor's arguments that make the old network, without reading pretrained weights.

        Args:
            backbone: As given by the user.
            given: Further arguments as given by the user; those that shape the network must be the old model's.

        Raises:
            ValueError: If one of them differs.
        """
        names = {"backbone", *_HEAD, *given} - _FREE
        old = {name: value for name, value in self.payload["arguments"].items() if name in names}
        for name, value in {"backbone": backbone, **given}.items():
            if name in old and value != old[name]:
                raise ValueError(
                    f"`expand_from: {self.path}` keeps the network of that model, whose `{name}` is {old[name]!r}; got "
                    f"{value!r}. Leave `{name}` out."
                )
        shape = {name: value for name, value in old.items() if name != "backbone"}
        return {**shape, "weights": "random", "card": self.payload["card"], "keep_source_head": False}

    def load_backbone(self, module: TransferModule, *, keep_source_head: bool) -> None:
        """Put the old model's backbone into a module made with `arguments`, and its source head if asked."""
        module.backbone.load_state_dict(_below("backbone", self.state))
        if not keep_source_head:
            return
        shape = self.payload["source_head"]
        if shape is None:
            raise ValueError(
                f"`keep_source_head: true`, and `{self.path}` has kept none. Set it to false; to watch the old "
                "classes, a ForgettingMonitor takes `head: head`."
            )
        module.source_head = nn.Linear(*shape).requires_grad_(False)
        module.source_head.load_state_dict(_below("source_head", self.state))

    def sizes(self, schema: Schema) -> tuple[int, ...]:
        """Return the logits of each part of the expanded head.

        Raises:
            CheckpointError: If the classes do not begin with the old ones in their order, or none is new.
        """
        old = self.schema
        if schema.task != old.task or schema.classes[: old.num_classes] != old.classes:
            raise CheckpointError(
                f"`{self.path}` was trained for {old.task} with {listing(old.classes, 20)}, and the classes now do not "
                f"begin with these: {schema.task} with {listing(schema.classes, 20)}. Old classes keep their order, "
                "new ones follow."
            )
        if schema.num_classes == old.num_classes:
            raise CheckpointError(f"There is no new class beside the {old.num_classes} of `{self.path}`.")
        before = tuple(self.payload.get("head_sizes") or (self.schema.num_logits,))
        return (*before, schema.num_logits - self.schema.num_logits)

    def load_head(self, module: TransferModule) -> nn.Module:
        """Return the old model's head with a layer for the new classes, whose rows are still zero."""
        sizes = module.head_sizes
        module.head_sizes = sizes[:-1]
        try:
            old = module.build_head(self.schema)
        finally:
            module.head_sizes = sizes
        old.load_state_dict(_below("head", self.state))
        new = nn.Linear(module.card.num_features, sizes[-1])
        head = ExpandedHead(old, new)
        nn.init.zeros_(new.weight)
        # Below the best old logit nearly everywhere, until `start_new_rows` knows better.
        nn.init.constant_(new.bias, torch.cat([part.bias for part in head.layers[:-1]]).mean().item())
        return head


def expand_head(run_or_ckpt: str | Path, new_classes: Sequence[str], **arguments: Any) -> ClassificationModule:  # noqa: ANN401
    """Return a finished model with more classes, to train on with any Trainer.

    Backbone, old head and preprocessing are those of the run; logits of the old classes are bit for bit the same until
    a step is made. With a datamodule of lightning_transfer, the rows of the new classes start from its training
    records when the fit starts; else they start at zero. The command line does the same with ``--model.expand_from``.

    Args:
        run_or_ckpt: A finished run's folder, or a checkpoint.
        new_classes: Names; they follow the old classes in this order.
        **arguments: Of `ClassificationModule`: loss, optimizer, scheduler.

    Raises:
        CheckpointError: If the checkpoint cannot be expanded.
        ValueError: If there is no new class, one is named twice, or one is an old class.
    """
    from lightning_transfer.modules.classification import ClassificationModule

    old = Expansion.read(run_or_ckpt)
    names = tuple(new_classes)
    if isinstance(new_classes, str) or not names:
        raise ValueError(f"Expected names of new classes, got {new_classes!r}.")
    twice = [name for place, name in enumerate(names) if name in (*old.schema.classes, *names[:place])]
    if twice:
        raise ValueError(
            f"Not new: {listing(f'`{name}`' for name in twice)}. `{old.path}` has {listing(old.schema.classes, 20)}."
        )
    module = ClassificationModule(old.payload["arguments"]["backbone"], expand_from=str(old.path), **arguments)
    classes = (*old.schema.classes, *names)
    module.use_schema(replace(old.schema, classes=classes, counts={}, piece_counts={}, num_groups={}, fingerprint=""))
    module.configure_model()
    return module


def start_new_rows(module: TransferModule) -> None:
    """Set the new rows of an expanded head from features of the datamodule's training records.

    Called when the fit starts and the weights are on their device. All processes end with the rows of the first one.
    Without a datamodule of lightning_transfer, and for multi-label data, the rows stay as they are.

    Raises:
        MisconfigurationException: If the strategy divides the weights over processes.
    """
    head, schema, trainer = module.head, module.schema, module.trainer
    data: Any = getattr(trainer, "datamodule", None)
    if not isinstance(head, ExpandedHead) or schema is None or schema.task != "multiclass":
        return
    if not hasattr(data, "ordered_dataloader"):
        return
    rows = list(head.parts[-1].parameters())
    if any(type(row) is not nn.Parameter for row in rows):
        raise MisconfigurationException(
            f"`expand_from` starts the new rows from data, and the strategy `{type(trainer.strategy).__name__}` "
            "divides the weights over processes. Use `Trainer(strategy='ddp')` or one device."
        )
    first = schema.num_logits - head.sizes[-1]
    chosen = _first_of_each(data.records_for("train"), schema.classes[first:])
    if not chosen:
        return
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        with torch.no_grad():
            found = [_features(module, batch) for batch in data.ordered_dataloader("train", only=chosen)]
            features, target = (torch.cat(column) for column in zip(*found, strict=True))
            head.start_new_rows(features, target - first)
            for row in rows:
                row.copy_(trainer.strategy.broadcast(row.detach().cpu()))
    finally:
        for part, training in modes:
            part.training = training
    counts = (target - first).bincount(minlength=head.sizes[-1]).tolist()
    named = (f"{name} ({count})" for name, count in zip(schema.classes[first:], counts, strict=True))
    rank_zero_info(
        f"{len(counts)} new classes beside {first}; rows started from training records: {listing(named, 10)}."
    )


def _is_classifier(name: str) -> bool:
    """Tell whether a checkpoint's class is a `ClassificationModule`, or one of ours that extends it."""
    from lightning_transfer import modules

    found = getattr(modules, name, None)
    return isinstance(found, type) and issubclass(found, modules.ClassificationModule)


def _features(module: TransferModule, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return features ``(N, F)`` and classes ``(N,)`` of a batch, on the module's device, in the rows' precision."""
    trainer = module.trainer
    moved: Batch = trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
    with trainer.precision_plugin.forward_context():
        features = module.features(moved.input)
    if moved.target is None:
        raise MisconfigurationException("A training batch has no labels, so nothing tells which class is new.")
    weight: Tensor = next(module.head.parameters())  # type: ignore[union-attr]
    return features.to(weight.dtype), moved.target.long()


def _first_of_each(records: Sequence[Record], classes: Sequence[str]) -> set[int]:
    """Return the positions of a few records of each class."""
    left = dict.fromkeys(classes, _ROWS_FROM)
    chosen = set()
    for place, record in enumerate(records):
        if isinstance(record.label, str) and left.get(record.label, 0):
            left[record.label] -= 1
            chosen.add(place)
    return chosen


def _below(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one submodule, by their names in it."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
