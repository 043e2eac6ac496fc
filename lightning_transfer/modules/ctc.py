"""Recognise speech with a CTC head over the frames of a pretrained encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_transfer.backbones import Frames, FrameTransformer, LoraOptions, load_source_head
from lightning_transfer.backbones.frames import freeze_feature_encoder, step_seconds
from lightning_transfer.backbones.sources import RANDOM
from lightning_transfer.data.transcripts import CTCVocabulary
from lightning_transfer.errors import BackboneError
from lightning_transfer.modules.ctc_beam import BeamSearch, LexiconDecoder
from lightning_transfer.modules.ctc_collapse import CollapseWatch
from lightning_transfer.modules.ctc_decode import Heard, greedy_decode
from lightning_transfer.modules.ctc_head import matching_tokens, start_head
from lightning_transfer.modules.losses import ctc_loss
from lightning_transfer.modules.spec_augment import SpecAugment
from lightning_transfer.modules.speech_module import SpeechModule, labelled, places
from lightning_transfer.speech import Transcript
from lightning_transfer.types import BackboneCard, Batch, Schema

__all__ = ["CTCModule", "FrameLogits"]


class FrameLogits(NamedTuple):
    """Logits in time.

    Attributes:
        logits: Of each frame, ``(N, T, V)``, unnormalised.
        lengths: Frames of each recording, ``(N,)``; what lies behind is padding.
    """

    logits: Tensor
    lengths: Tensor


class CTCModule(SpeechModule):
    """Recognise speech: a linear layer over each frame, trained by connectionist temporal classification.

    The loss is that of transformers with ``ctc_loss_reduction="mean"``, in float32 whatever the precision of the run;
    an utterance with fewer frames than its text needs counts as zero, is counted (``train_too_short``), and said once.
    Logged besides: ``train_loss``, ``val_loss``, ``val_wer``, ``val_cer`` (see `SpeechModule`), and
    ``val_blank_share``, the share of frames in which the blank wins. Where that is nearly all for several validations,
    it is said what helps.

    A vocabulary that has tokens of the checkpoint's begins with the rows of its head; what is new is said at the start
    of a fit. Transformers' own masks and dropped layers are switched off: masks are those of ``spec_augment``.

    Args:
        backbone: ``hf/NAME`` or a folder of wav2vec 2.0, HuBERT, WavLM or wav2vec2-bert, or an embedded speech model.
        weights: See `TransferModule`.
        card: See `TransferModule`.
        feature_encoder: ``frozen`` keeps the convolutions over the waveform as pretrained, whatever a freezing
            schedule opens; ``open`` lets the schedule decide. Networks that take mel features have none.
        spec_augment: Masks over time and features while training; None for none.
        decoding: Of test and prediction: None takes the best token of each frame; `BeamSearch` writes words of a
            lexicon. It may be given later, to ``test`` and ``predict``. Validation takes the best tokens always.
        head_dropout: Share of features dropped before the linear layer.
        keep_source_head: See `TransferModule`; the head that is kept maps frames.
        lora: See `TransferModule`.
        optimizer: See `TransferModule`.
        scheduler: See `TransferModule`.
        scheduler_interval: See `TransferModule`.
        scheduler_monitor: See `TransferModule`.

    Example:
        >>> settings = {"feature_extractor_type": "SeamlessM4TFeatureExtractor", "sampling_rate": 16000, "stride": 2}
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        >>> card = {
        ...     "name": "toy", "architecture": "hf/wav2vec2-bert", "modality": "audio", "pooling": "mean",
        ...     "architecture_config": {**sizes, "feature_projection_input_dim": 4},
        ...     "processor": {"feature_extractor": settings},
        ... }
        >>> vocabulary = CTCVocabulary.from_texts(["yes no"])
        >>> module = CTCModule("toy", weights="random", card=card)
        >>> preprocessing = {"vocabulary": vocabulary.to_dict()}
        >>> module.use_schema(Schema(task="transcription", classes=vocabulary.tokens, preprocessing=preprocessing))
        >>> module.configure_model()
        >>> logits, lengths = module({"input_features": torch.zeros(2, 50, 4)})
        >>> tuple(logits.shape), lengths.tolist()
        ((2, 50, 7), [50, 50])
    """

    form = "frames"

    def __init__(
        self,
        backbone: str,
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        feature_encoder: Literal["frozen", "open"] = "frozen",
        spec_augment: SpecAugment | None = None,
        decoding: BeamSearch | None = None,
        head_dropout: float = 0.0,
        keep_source_head: bool = False,
        lora: LoraOptions | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-4, weight_decay=0.01),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str = "val_loss",
    ) -> None:
        if feature_encoder not in ("frozen", "open"):
            raise ValueError(f"Expected `feature_encoder` to be 'frozen' or 'open', got {feature_encoder!r}.")
        super().__init__(
            backbone,
            weights=weights,
            card=card,
            head_dropout=head_dropout,
            keep_source_head=keep_source_head,
            lora=lora,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            scheduler_monitor=scheduler_monitor,
        )
        self.feature_encoder = feature_encoder
        self.spec_augment = SpecAugment.of(spec_augment)
        self.decoding = BeamSearch.of(decoding)
        self._decoder: LexiconDecoder | None = None
        if feature_encoder == "frozen":
            freeze_feature_encoder(self.encoder)
        self.vocabulary: CTCVocabulary | None = None
        self.val_blank_share = MeanMetric()
        self._val_empty_share = MeanMetric()
        self._watch = CollapseWatch()
        self._told_too_short = False
        # In a tuple: a checkpoint's head is a start, and no part of this network.
        self._pretrained: tuple[nn.Linear, ...] = ()
        self._start = ""
        self._all_rows_known = False
        if weights == RANDOM:
            self._start = "The head is new: the weights are random."
        else:
            self._pretrained, self._start = _pretrained_head(self.card, backbone, weights, card)

    @property
    def encoder(self) -> FrameTransformer:
        """The backbone, which returns frames."""
        if not isinstance(self.backbone, FrameTransformer):
            raise TypeError(f"Expected a backbone that returns frames, got {type(self.backbone).__name__}.")
        return self.backbone

    @property
    def head_is_pretrained(self) -> bool:
        """Whether every token of the head began with the checkpoint's row, so that it could recognise untrained."""
        return self._all_rows_known

    def build_head(self, schema: Schema) -> nn.Module:
        """Return a linear layer over frames, which begins with the checkpoint's rows of the tokens that both have.

        Raises:
            MisconfigurationException: If the schema does not say which token is the blank.
        """
        self.vocabulary = _vocabulary(schema, self.card)
        step_seconds(self.card)  # a card that does not say how long a step is would fail at the first transcript
        head = super().build_head(schema)
        known = CTCVocabulary.from_card(self.card)
        if self._pretrained and known is not None:
            linear = next(part for part in head.modules() if isinstance(part, nn.Linear))
            self._start = start_head(linear, self.vocabulary, self._pretrained[0], known)
            self._all_rows_known = len(matching_tokens(self.vocabulary, known)) == len(self.vocabulary)
        return head

    def frames(self, input: Mapping[str, Tensor], *, augment: bool = False) -> Frames:
        """Return the backbone's features in time; ``augment`` lays the masks of ``spec_augment`` over them."""
        found: Frames = self.encode(input, augment=self.spec_augment if augment else None)
        return found

    @property
    def cache_refusal(self) -> str:
        """Masks are laid inside the backbone, others in each step."""
        return "" if self.spec_augment is None else "`spec_augment` hides other parts of a recording in each step"

    def features(self, input: Any) -> Tensor:  # noqa: ANN401 - as the parent's
        """Return the mean of each recording's frames, ``(N, F)``."""
        hidden, lengths = self.frames(input)
        real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        total = hidden.masked_fill(~real[:, :, None], 0.0).sum(dim=1)
        return total / lengths.clamp(min=1)[:, None].to(total.dtype)

    def forward(self, input: Mapping[str, Tensor], *, augment: bool = False) -> FrameLogits:  # type: ignore[override]
        """Return the logits of each frame, and how many frames each recording has."""
        hidden, lengths = self.frames(input, augment=augment)
        return FrameLogits(self._classify(hidden), lengths)

    def loss(self, logits: Tensor, lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss as a scalar, and which recordings are too short for their text; see `ctc_loss`."""
        return ctc_loss(logits, lengths, target, blank=self._known_vocabulary.blank_id)

    @property
    def _known_vocabulary(self) -> CTCVocabulary:
        if self.vocabulary is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` has no vocabulary yet: call `use_schema` and `configure_model` first."
            )
        return self.vocabulary

    def on_fit_start(self) -> None:
        """Say how the head begins, and what the licence asks for."""
        super().on_fit_start()
        self._watch = CollapseWatch()
        self._told_too_short = False
        if self.trainer.ckpt_path is None and self._start:
            rank_zero_info(f"{type(self).__name__}: {self._start}")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log it as ``train_loss``."""
        target = labelled(batch)
        logits, lengths = self(batch.input, augment=True)
        loss, too_short = self.loss(logits, lengths, target)
        size = len(batch.index)
        self.log("train_loss", loss, prog_bar=True, batch_size=size)
        self._count_too_short(batch, too_short)
        return loss

    def _count_too_short(self, batch: Batch, too_short: Tensor) -> None:
        count = too_short.sum().float()
        self.log("train_too_short", count, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True, batch_size=1)
        if self._told_too_short or not bool(count):
            return
        self._told_too_short = True
        rows = [place[0] for place, short in zip(places(batch), too_short.tolist(), strict=True) if short]
        rank_zero_warn(
            f"{len(rows)} of {len(too_short)} recordings of a batch have fewer frames than their text needs, such as "
            f"training record {rows[0]}. Nothing can be learnt from them: their loss counts as zero. Their number in "
            "each epoch is logged as `train_too_short`. Check that texts and sound belong together."
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val_loss``, and compare what is heard with the transcripts."""
        logits, lengths = self(batch.input)
        loss, _ = self.loss(logits, lengths, labelled(batch))
        size = len(batch.index)
        self.log("val_loss", loss, prog_bar=True, batch_size=size, sync_dist=True)
        heard = greedy_decode(logits, lengths, self._known_vocabulary)
        self.update_errors(batch, self._transcripts(batch, heard))
        frames = sum(item.frames for item in heard)
        if frames:
            self.val_blank_share.update(sum(item.blanks for item in heard) / frames, weight=frames)
        self._val_empty_share.update(sum(not item.text for item in heard) / size, weight=size)
        self.log("val_blank_share", self.val_blank_share, batch_size=size)

    def on_validation_epoch_end(self) -> None:
        """Say what helps where the model has been writing nothing for several validations."""
        blank, empty = float(self.val_blank_share.compute()), float(self._val_empty_share.compute())
        self._val_empty_share.reset()
        if self.trainer.sanity_checking or self.trainer.state.fn != TrainerFn.FITTING:
            return
        rates = [group["lr"] for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        said = self._watch.check(blank, empty, rate=max(rates, default=None), vocabulary_is_new=not self._pretrained)
        if said:
            rank_zero_warn(f"{type(self).__name__}: {said}")

    def transcribe(self, batch: Batch) -> list[Transcript]:
        """Return what was said, as ``decoding`` finds it, with the times of its words."""
        logits, lengths = self(batch.input)
        if self.decoding is None:
            return self._transcripts(batch, greedy_decode(logits, lengths, self._known_vocabulary))
        if self._decoder is None or self._decoder.options is not self.decoding:
            self._decoder = LexiconDecoder(self.decoding, self._known_vocabulary)
        return self._transcripts(batch, self._decoder(logits, lengths))

    def _transcripts(self, batch: Batch, heard: list[Heard]) -> list[Transcript]:
        second = self.encoder.steps_per_frame * step_seconds(self.card)
        rows = zip(places(batch), heard, self.sound_seconds(batch), strict=True)
        return [
            Transcript(
                index=record,
                text=item.text,
                confidence=item.confidence,
                seconds=seconds,
                problem=_problem(item),
                piece=piece,
                num_pieces=pieces,
                start=self.piece_start(piece),
                words=tuple((word, first * second, min(last * second, seconds)) for word, first, last in item.words),
            )
            for (record, piece, pieces), item, seconds in rows
        ]

    def reference_texts(self, target: Tensor) -> list[str]:
        """Read targets ``(N, L)`` back as texts."""
        vocabulary = self._known_vocabulary
        blank = vocabulary.blank_id
        # A blank between any two tokens: equal neighbours are two letters here, not one that lasts.
        rows = [[number for token in row if token >= 0 for number in (token, blank)] for row in target.tolist()]
        return [vocabulary.decode(row) for row in rows]

    def rebuild_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments that shape the network."""
        return {
            "backbone": self.card.name,
            "feature_encoder": self.feature_encoder,
            "spec_augment": None if self.spec_augment is None else self.spec_augment.to_dict(),
            "decoding": None if self.decoding is None else self.decoding.to_dict(),
            "head_dropout": self.head_dropout,
            "lora": None if self.lora is None else self.lora.to_dict(),
        }


def _problem(heard: Heard) -> str:
    if not heard.frames:
        return "shorter than a frame"
    return "only blanks" if heard.blanks == heard.frames else ""


def _vocabulary(schema: Schema, card: BackboneCard) -> CTCVocabulary:
    """Return what the logits stand for: as the schema says, or else as the card does, of the same tokens."""
    stated = CTCVocabulary.from_schema(schema)
    if stated is not None:
        return stated
    known = CTCVocabulary.from_card(card)
    if known is not None and known.tokens == schema.classes:
        return known
    raise MisconfigurationException(
        f"The schema has {len(schema.classes)} tokens, and does not say which is the blank and which stands between "
        "words: `preprocessing['vocabulary']` is missing. Use a datamodule of lightning_transfer, or put "
        "`CTCVocabulary(...).to_dict()` there."
    )


def _pretrained_head(
    card: BackboneCard, backbone: str, weights: str | None, given: str | Mapping[str, Any] | None
) -> tuple[tuple[nn.Linear, ...], str]:
    """Return the checkpoint's CTC head, if it has one, or else why the head is new."""
    known = CTCVocabulary.from_card(card)
    if known is None:
        return (), f"The head is new: `{card.name}` comes without a vocabulary."
    stated = BackboneCard.from_dict(given) if isinstance(given, Mapping) else given
    try:
        head = load_source_head(backbone, weights=weights, card=stated)
    except BackboneError as error:
        return (), f"The head is new: {str(error).partition('.')[0]}."
    if head.out_features != len(known.tokens):
        return (), (
            f"The head is new: the checkpoint's has {head.out_features} rows, and its vocabulary {len(known.tokens)} "
            "tokens."
        )
    return (head,), ""
