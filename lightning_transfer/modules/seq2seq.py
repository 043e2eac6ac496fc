"""Recognise speech with Whisper: its encoder hears a window, its decoder writes the text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_transfer.backbones import LoraOptions, Seq2SeqTransformer
from lightning_transfer.backbones.sources import RANDOM
from lightning_transfer.modules.losses import next_token_loss
from lightning_transfer.modules.repetition import repeats_itself
from lightning_transfer.modules.spec_augment import SpecAugment
from lightning_transfer.modules.speech_module import SpeechModule, labelled, places
from lightning_transfer.modules.whisper_tokens import WhisperTokens
from lightning_transfer.speech import Transcript
from lightning_transfer.types import Batch, Schema

__all__ = ["Seq2SeqModule"]


class Seq2SeqModule(SpeechModule):
    """Recognise speech with Whisper as a whole.

    Nothing is new in this network: every text begins with the model's own tokens of language and task, and the loss is
    transformers', over those tokens, the text and its end, in float32. Since there is no new head, a freezing schedule
    must open a group from the start (``{0: 2, 1: "all"}``, ``partial``, ``full``), or ``lora`` trains. The data bring
    windows of the model's length (30 seconds), and longer recordings in pieces.

    Logged: ``train_loss``, ``val_loss``, ``val_wer`` and ``val_cer`` (see `SpeechModule`; the texts are generated), and
    ``train_too_long``, the texts with more tokens than the decoder has places: they are left out of the loss, counted,
    and said once. A text that goes round in circles is marked ``repeats itself``, one that comes to no end
    ``without end``.

    Args:
        backbone: ``hf/openai/whisper-small``, or a folder of a Whisper model.
        weights: See `TransferModule`.
        card: See `TransferModule`.
        language: That is spoken, by its code or English name; None for models of English alone.
        task: ``translate`` writes English, whatever is spoken.
        num_beams: 1 takes the most probable token at each place.
        max_new_tokens: Of a text; None takes half of the decoder's places, as OpenAI's own code does.
        spec_augment: Masks over time and mel bands while training; None for none.
        lora: Low-rank adapters on encoder and decoder, whose own weights are then frozen; None for none.
        optimizer: See `TransferModule`.
        scheduler: See `TransferModule`.
        scheduler_interval: See `TransferModule`.
        scheduler_monitor: See `TransferModule`.

    Raises:
        ValueError: If a number is out of range.
        MisconfigurationException: If the model does not know the language, or its card has no tokenizer.
    """

    form = "seq2seq"

    def __init__(
        self,
        backbone: str,
        weights: str | None = None,
        card: str | dict[str, Any] | None = None,
        language: str | None = None,
        task: Literal["transcribe", "translate"] = "transcribe",
        num_beams: int = 1,
        max_new_tokens: int | None = None,
        spec_augment: SpecAugment | None = None,
        lora: LoraOptions | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-5, weight_decay=0.01),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        scheduler_monitor: str = "val_loss",
    ) -> None:
        if num_beams < 1:
            raise ValueError(f"Expected `num_beams` of at least 1, got {num_beams}. 1 is greedy.")
        super().__init__(
            backbone,
            weights=weights,
            card=card,
            lora=lora,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            scheduler_monitor=scheduler_monitor,
        )
        self.tokens = WhisperTokens(self.card, language, task)
        most = self.network.max_positions - len(self.tokens.prompt)
        if max_new_tokens is not None and not 1 <= max_new_tokens <= most:
            raise ValueError(f"Expected `max_new_tokens` from 1 to {most}, got {max_new_tokens}.")
        self.language = language
        self.task = task
        self.num_beams = num_beams
        self.max_new_tokens = max_new_tokens
        self.spec_augment = SpecAugment.of(spec_augment)
        self._told_too_long = False
        self.head_is_pretrained = weights != RANDOM

    @property
    def network(self) -> Seq2SeqTransformer:
        """The backbone: encoder and decoder."""
        if not isinstance(self.backbone, Seq2SeqTransformer):
            raise TypeError(f"Expected a backbone that writes texts, got {type(self.backbone).__name__}.")
        return self.backbone

    def build_head(self, schema: Schema) -> nn.Module:
        """Return nothing to train: the decoder's output is pretrained, and tied to its input."""
        if schema.classes:
            raise MisconfigurationException(
                f"The data have a vocabulary of {len(schema.classes)} tokens, and Whisper writes those of its own "
                "tokenizer. Leave the vocabulary out, or use `CTCModule`."
            )
        return nn.Identity()

    @property
    def cache_refusal(self) -> str:
        """Training and generating run the network in two ways, and the second one from the sound."""
        return "a decoder that writes texts runs the whole network at each validation"

    def features(self, input: Mapping[str, Tensor]) -> Tensor:  # type: ignore[override]
        """Return the mean of the encoder's frames over the sound in each window, ``(N, F)``."""
        model: Any = self.network.model
        hidden: Tensor = model.get_encoder()(input["input_features"]).last_hidden_state
        steps = input.get("attention_mask")
        if steps is None:
            return hidden.mean(dim=1)
        lengths = model._get_feat_extract_output_lengths(steps.sum(dim=1)).clamp(min=1)
        real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
        total = hidden.masked_fill(~real[:, :, None], 0.0).sum(dim=1)
        mean: Tensor = total / lengths[:, None].to(total.dtype)
        return mean

    def forward(self, input: Mapping[str, Tensor]) -> Tensor:  # type: ignore[override]
        """Return the logits of the next token at each place of ``decoder_input_ids``, ``(N, L, V)``."""
        logits: Tensor = self.backbone(input)
        return logits

    def teach(self, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the tokens of texts ``(N, L)`` into what the decoder is given, and what it should write.

        Returns:
            Given tokens ``(N, M)``; wanted tokens ``(N, M)``, -100 where nothing is to be learnt; and which texts do
            not fit into the decoder, ``(N,)``.
        """
        rows = [self.tokens.labels(row) for row in target.tolist()]
        most = self.network.max_positions
        too_long = [len(given) > most for given, _ in rows]
        rows = [row if not long else (list(self.tokens.prompt), []) for row, long in zip(rows, too_long, strict=True)]
        width = max(len(given) for given, _ in rows)
        given = torch.full((len(rows), width), self.tokens.end)
        wanted = torch.full((len(rows), width), -100)
        for number, (tokens, answers) in enumerate(rows):
            given[number, : len(tokens)] = torch.tensor(tokens)
            wanted[number, : len(answers)] = torch.tensor(answers, dtype=torch.long)
        device = target.device
        return given.to(device), wanted.to(device), torch.tensor(too_long, device=device)

    def trial_input(self, batch: Batch) -> dict[str, Tensor]:
        """Return what `forward` takes of a batch with transcripts, as a plan tries it to measure memory."""
        given, _, _ = self.teach(labelled(batch))
        return {"input_features": batch.input["input_features"], "decoder_input_ids": given}

    def loss(self, input: Mapping[str, Tensor], target: Tensor, *, augment: bool = False) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the texts' tokens as a scalar, and which texts do not fit into the decoder."""
        given, wanted, too_long = self.teach(target)
        features = input["input_features"]
        if augment and self.spec_augment is not None:
            mask = input.get("attention_mask")
            steps = torch.full((len(features),), features.shape[2]) if mask is None else mask.sum(dim=1)
            zero = features.new_zeros(features.shape[1])
            features = self.spec_augment(features.transpose(1, 2), steps, zero).transpose(1, 2)
        logits = self({"input_features": features, "decoder_input_ids": given})
        return next_token_loss(logits, wanted), too_long

    def on_fit_start(self) -> None:
        """Say what the licence asks for."""
        super().on_fit_start()
        self._told_too_long = False

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log it as ``train_loss``."""
        loss, too_long = self.loss(batch.input, labelled(batch), augment=True)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch.index))
        count = too_long.sum().float()
        self.log("train_too_long", count, on_step=False, on_epoch=True, reduce_fx="sum", sync_dist=True, batch_size=1)
        if bool(count) and not self._told_too_long:
            self._told_too_long = True
            rows = [place[0] for place, long in zip(places(batch), too_long.tolist(), strict=True) if long]
            rank_zero_warn(
                f"{len(rows)} of {len(too_long)} texts of a batch have more tokens than the decoder's "
                f"{self.network.max_positions} places, such as that of training record {rows[0]}. They are left out of "
                "the loss; their number in each epoch is logged as `train_too_long`. Cut such recordings into pieces."
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val_loss``, and compare generated texts with the transcripts."""
        loss, _ = self.loss(batch.input, labelled(batch))
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch.index), sync_dist=True)
        self.update_errors(batch, self.transcribe(batch))

    def transcribe(self, batch: Batch) -> list[Transcript]:
        """Return the generated text of each window."""
        features: Tensor = batch.input["input_features"]
        prompt = torch.tensor([self.tokens.prompt] * len(features), device=features.device)
        room = self.network.max_positions
        written = self.network.generate(
            features,
            prompt,
            settings=self.tokens.settings,
            max_new_tokens=self.max_new_tokens or min(room // 2, room - len(self.tokens.prompt)),
            num_beams=self.num_beams,
        )
        rows = zip(places(batch), written.tokens.tolist(), written.probabilities.tolist(), strict=True)
        return [
            self._transcript(place, tokens, chances, seconds)
            for (place, tokens, chances), seconds in zip(rows, self.sound_seconds(batch), strict=True)
        ]

    def _transcript(
        self, place: tuple[int, int, int], tokens: list[int], chances: list[float], seconds: float
    ) -> Transcript:
        record, piece, pieces = place
        length = tokens.index(self.tokens.end) if self.tokens.end in tokens else len(tokens)
        logs = [
            math.log(max(chance, 1e-30))
            for token, chance in zip(tokens[:length], chances[:length], strict=True)
            if self.tokens.is_text(token)
        ]
        text = self.tokens.decode(tokens)
        problem = "" if self.tokens.end in tokens else "without end"
        return Transcript(
            index=record,
            text=text,
            confidence=math.exp(sum(logs) / len(logs)) if logs else None,
            seconds=seconds,
            problem="repeats itself" if repeats_itself(text) else problem,
            piece=piece,
            num_pieces=pieces,
            start=self.piece_start(piece),
        )

    def reference_texts(self, target: Tensor) -> list[str]:
        """Read targets ``(N, L)`` back as texts."""
        return [self.tokens.decode(row) for row in target.tolist()]

    def rebuild_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments that shape the network and what it writes."""
        return {
            "backbone": self.card.name,
            "language": self.language,
            "task": self.task,
            "num_beams": self.num_beams,
            "max_new_tokens": self.max_new_tokens,
            "spec_augment": None if self.spec_augment is None else self.spec_augment.to_dict(),
            "lora": None if self.lora is None else self.lora.to_dict(),
        }
