"""The plain data that travels between layers: backbone cards, records, batches, schemas.

Nothing here imports torch, so that the command line can answer before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_transfer.scans import ImagePart

__all__ = [
    "SPLITS",
    "Activations",
    "BackboneCard",
    "Batch",
    "Calibration",
    "ModelOutput",
    "Neighbour",
    "OperatingPoint",
    "Prediction",
    "Record",
    "Schema",
    "Split",
    "Task",
]

Split = Literal["train", "val", "calibration", "test", "predict"]
Task = Literal["multiclass", "binary", "multilabel", "transcription", "segmentation"]

SPLITS: tuple[Split, ...] = ("train", "val", "calibration", "test", "predict")


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the fields of ``cls``, so that a file written by a later version still loads."""
    names = {item.name for item in fields(cls)}
    return {key: value for key, value in values.items() if key in names}


@dataclass(frozen=True)
class BackboneCard:
    """What one must know to use a pretrained backbone correctly; travels in every checkpoint.

    Attributes:
        name: What the user asked for, such as ``timm/resnet18.a1_in1k``.
        architecture: ``library/model`` that rebuilds the network without weights.
        source: Where the weights came from: ``timm``, ``torchvision``, ``hf``, ``embedded``, ``local`` or ``random``.
        licence: Of the weights; ``unknown`` is printed at the start of a run.
        num_features: Width of the pooled features that the backbone returns.
        num_parameters: Count of the backbone's parameters, without any head.
        modality: ``image``, ``text`` or ``audio``.
        input_size: ``(channels, height, width)`` in pixels for images, else None.
        mean: Per channel, of inputs scaled to ``[0, 1]``.
        std: Per channel, of inputs scaled to ``[0, 1]``.
        interpolation: Resampling filter of the pretraining: ``bilinear`` or ``bicubic``.
        padding: ``tf_same`` pads stride-2 convolutions at the right and bottom only.
        batchnorm: ``folded`` statistics are identity and must stay in eval mode while fine-tuning.
        pretraining: The data and task the weights were trained on.
        pooling: ``mean`` or ``cls`` for token models, else empty.
        architecture_config: The library's own configuration, enough to build the network with no hub at hand.
        processor: Tokenizer or feature extractor settings, as plain values.
    """

    name: str
    architecture: str
    source: str = "random"
    licence: str = "unknown"
    num_features: int = 0
    num_parameters: int = 0
    modality: Literal["image", "text", "audio"] = "image"
    input_size: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"
    padding: Literal["torch", "tf_same"] = "torch"
    batchnorm: Literal["live", "folded"] = "live"
    pretraining: str = "none"
    pooling: str = ""
    architecture_config: Mapping[str, Any] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict, repr=False)  # a tokenizer has megabytes

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts, numbers and strings, fit for YAML and ``torch.load(weights_only=True)``."""
        return _plain_fields(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BackboneCard:
        """Rebuild a card from `to_dict`; unknown keys are ignored.

        Example:
            >>> card = BackboneCard(name="timm/resnet18", architecture="timm/resnet18", mean=(0.5, 0.5, 0.5))
            >>> BackboneCard.from_dict(card.to_dict()) == card
            True
        """
        known = _known(cls, values)
        for key in ("input_size", "mean", "std"):
            if known.get(key) is not None:
                known[key] = tuple(known[key])
        return cls(**known)


@dataclass(frozen=True)
class Record:
    """One row of data, the same in every recipe.

    Attributes:
        id: Unique within the data set; appears in predictions and reports.
        input: What the reader turns into a tensor: a path, a text, or an array.
        label: Class name; for multi-label a tuple of ``1.0``, ``0.0`` or None (missing), one for each class; for
            transcription the text as it was read.
        split: ``train``, ``val``, ``calibration``, ``test``, ``predict``, or None before splitting.
        group: What must stay on one side of a split: tile, patient, speaker, customer. None if unknown.
        meta: Further columns, as read; slices are made from them.
        mask: Image file in which nonzero pixels show where the defect is, or whose values are the numbers of classes;
            or a part of a file of many. None: unknown, or none. A record of the negative class without mask has a mask
            of zeros.
    """

    id: str
    input: Any
    label: str | tuple[float | None, ...] | None = None
    split: Split | None = None
    group: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    mask: str | Path | ImagePart | None = None


class Batch(NamedTuple):
    """What every dataloader of ours yields; Lightning moves it between devices as it is.

    Attributes:
        input: Tensor, or dict of tensors, that the backbone takes; first axis is the batch.
        target: Labels: ``(N,)`` int64 for multi-class, else ``(N,)`` or ``(N, C)`` float, NaN where missing; for
            transcription ``(N, L)`` int64 token ids, -100 behind each text's end; for segmentation ``(N, H, W)`` int64
            classes of pixels, -100 where unknown; or None.
        index: Position of each record in its split, ``(N,)`` int64. Where records are fed in pieces (tiles),
            ``(N, 3)``: position of the record, number of the piece, number of the record's pieces.
    """

    input: Any
    target: Tensor | None
    index: Tensor  # type: ignore[assignment]  # a tuple's own `index` is of no use here


class Activations(NamedTuple):
    """What a cache gives in place of a batch's input: what the frozen layers of the backbone made of it.

    Attributes:
        layers: Outputs of the layers that are kept; the first axis of each is the batch.
        given: What of the input is still read, by name; a tensor alone has the name ``""``.
        sizes: Shapes of the parts of the input that are gone, ``(N, axes)`` each.
    """

    layers: tuple[Tensor, ...]
    given: dict[str, Tensor]
    sizes: dict[str, Tensor]


class ModelOutput(NamedTuple):
    """What ``predict_step`` returns for a batch, and what the evaluation concatenates.

    Attributes:
        logits: Class scores ``(N, C)``, unnormalised, before temperature.
        features: Pooled backbone features ``(N, F)``.
        target: As in `Batch`.
        index: As in `Batch`.
    """

    logits: Tensor
    features: Tensor
    target: Tensor | None
    index: Tensor  # type: ignore[assignment]  # a tuple's own `index` is of no use here


@dataclass(frozen=True)
class Neighbour:
    """The training record that looks most like an item to the adapted model.

    Attributes:
        path: Its file; the record's id where the input was no file.
        label: Its class, several joined by ``|``; empty if unknown.
        distance: One minus the cosine of the two feature vectors: 0 is the same direction, 2 the opposite.
    """

    path: str
    label: str
    distance: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one item.

    Attributes:
        id: The record's id, the path, or the position as text.
        predicted: The most probable class; for multi-label the classes of one half or more; None if undefined.
        probabilities: Class -> probability after temperature; empty if undefined.
        score: Probability of anything but the negative class; None if there is no such class.
        decision: The class after the stored threshold: the negative class below it, the most probable other class
            from it on; for multi-label the classes that reach their own thresholds. The same as ``predicted`` where no
            threshold is stored; ``undefined`` without finite logits; ``unreadable`` for a text of which nothing is
            left.
        reason: Why it is undefined.
        nearest: The nearest training example; None where the model keeps none, or the features are not finite.
    """

    id: str
    predicted: str | tuple[str, ...] | None
    probabilities: Mapping[str, float]
    score: float | None
    decision: str | tuple[str, ...]
    reason: str = ""
    nearest: Neighbour | None = None


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold fitted for a stated false-reject rate, and how sure the two are.

    Attributes:
        max_false_reject_rate: Share of negatives that may be rejected, as asked for.
        threshold: Fitted on the calibration split; a score of at least this is rejected.
        threshold_interval: 95% interval of the threshold, by bootstrap over groups; None with one group only.
        false_reject_rate: Share of the calibration split's negatives that it rejects.
        false_reject_interval: 95% interval of the share of new negatives that it will reject.
        num_negative: Negatives that it was fitted on.
        num_groups: Groups among them.
        rule: In words, how it was chosen and what it reaches on the calibration split.
        note: What the data were too few for; empty if for nothing.
    """

    max_false_reject_rate: float
    threshold: float
    threshold_interval: tuple[float, float] | None
    false_reject_rate: float
    false_reject_interval: tuple[float, float]
    num_negative: int
    num_groups: int
    rule: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return _plain_fields(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingPoint:
        """Rebuild from `to_dict`."""
        known = _known(cls, values)
        for key in ("threshold_interval", "false_reject_interval"):
            if known[key] is not None:
                known[key] = tuple(known[key])
        return cls(**known)


@dataclass(frozen=True)
class Calibration:
    """What was fitted on the calibration split after training; the identity before.

    Attributes:
        temperature: Divides the logits.
        threshold: On ``1 - p(negative class)`` after temperature, or on ``p(positive class)``; None: arg max.
        rule: In words, how the threshold was chosen.
        n: Records of the calibration split.
        points: Thresholds for several false-reject rates, that of ``threshold`` first; empty without a threshold.
        label_thresholds: Multi-label: the probability after temperature from which each class is called, in the order
            of the classes; empty: 0.5 for all.
        label_rules: In words, how each of them was chosen, or why it is 0.5.
    """

    temperature: float = 1.0
    threshold: float | None = None
    rule: str = "not fitted"
    n: int = 0
    points: tuple[OperatingPoint, ...] = ()
    label_thresholds: tuple[float, ...] = ()
    label_rules: tuple[str, ...] = ()

    def at(self, max_false_reject_rate: float) -> Calibration:
        """Return the calibration that decides by the threshold of another fitted rate.

        Raises:
            ValueError: If no threshold was fitted for that rate.
        """
        chosen = [point for point in self.points if abs(point.max_false_reject_rate - max_false_reject_rate) < 1e-9]
        if not chosen:
            fitted = ", ".join(f"{point.max_false_reject_rate:g}" for point in self.points) or f"none ({self.rule})"
            raise ValueError(
                f"The model has no threshold for the false-reject rate {max_false_reject_rate:g}. Fitted: {fitted}. "
                "Take one of these, or fit again with `--evaluation.max_false_reject_rate`."
            )
        others = tuple(point for point in self.points if point is not chosen[0])
        return replace(self, threshold=chosen[0].threshold, rule=chosen[0].rule, points=(chosen[0], *others))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**_plain_fields(self), "points": [point.to_dict() for point in self.points]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Rebuild from `to_dict`; a checkpoint without ``points`` or ``label_thresholds`` has none."""
        known = _known(cls, values)
        for key in ("label_thresholds", "label_rules"):
            known[key] = tuple(known.get(key, ()))
        return cls(**{**known, "points": tuple(OperatingPoint.from_dict(item) for item in known.get("points", ()))})


@dataclass(frozen=True)
class Schema:
    """All that a module may know about its data, and all that a checkpoint must remember of it.

    Attributes:
        task: ``multiclass``, ``binary``, ``multilabel``, ``transcription`` or ``segmentation``.
        classes: Names, in the order of the logits. Binary: ``(negative, positive)`` with one logit. Transcription: the
            tokens of the vocabulary; empty where the model's own tokenizer has them.
        counts: Split -> class -> number of records; for transcription ``{"utterances": n}``, for segmentation of
            records without a label ``{"images": n}``.
        negative_class: The class that means "nothing found" (``good``); the score is one minus its probability.
        num_groups: Split -> number of groups; empty when groups are unknown.
        columns: Names of the further columns that slices can be made from.
        piece_counts: Class -> number of training pieces, where records are fed in pieces (tiles); else empty.
        sampling: ``weighted`` when training batches are already balanced by a sampler, else None.
        preprocessing: Full specification that turns a file into the backbone's input.
        fingerprint: Hash of ids, labels, groups and splits.
        negatives: Multi-label: label -> training records known not to have it; else empty.
    """

    task: Task
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    negative_class: str | None = None
    num_groups: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    piece_counts: Mapping[str, int] = field(default_factory=dict)
    sampling: str | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    negatives: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of class names."""
        return len(self.classes)

    @property
    def train_counts(self) -> Mapping[str, int]:
        """Class -> how often training shows it: its pieces, or its records."""
        return self.piece_counts or self.counts.get("train", {})

    @property
    def num_logits(self) -> int:
        """Width of the head: one for binary, else one for each class.

        Example:
            >>> Schema(task="binary", classes=("good", "bad")).num_logits
            1
        """
        return 1 if self.task == "binary" else len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts, numbers and strings."""
        return _plain_fields(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """Rebuild a schema from `to_dict`.

        Example:
            >>> schema = Schema(task="multiclass", classes=("a", "b"), negative_class="a")
            >>> Schema.from_dict(schema.to_dict()) == schema
            True
        """
        known = _known(cls, values)
        for key in ("classes", "columns"):
            if key in known:
                known[key] = tuple(known[key])
        return cls(**known)


def _plain_fields(instance: BackboneCard | Schema | Calibration | OperatingPoint) -> dict[str, Any]:
    return {item.name: _plain(getattr(instance, item.name)) for item in fields(instance)}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any tree of containers
    """Turn mappings into dicts and tuples into lists, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
