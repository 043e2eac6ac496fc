"""Make `embedded/speech_ctc_tiny`, the small speech recogniser that ships with this package, from nothing.

A `Wav2Vec2BertModel` of 3.0 M parameters with a character CTC head learns from synthetic speech alone: general English
sentences (`recipes.speech.sentences`) in ONE accent, American, from three synthesisers: espeak-ng (``en-us``, 83
variants of its voice, computed from formants), Flite (`benchmarks.flite_speech`: three people's voices, made of
recordings), and, with ``--pool``, half of all, Kokoro (`benchmarks.kokoro_speech`: a neural network's many voices and
their mixtures). All at many rates and pitches, with noise, room, equaliser, 8 kHz, mu-law and uneven changes of speed.
Each round speaks new sentences and learns them three times, each time with other disturbances. With espeak-ng alone,
real digits and Flite's sentences stayed foreign to it (`benchmarks/README.md`).

    python -m benchmarks.pretrain_speech [--out DIR] [--pool DIR] [--minutes 60] [--steps N]
    python -m benchmarks.pretrain_speech --evaluate FILE [--fsdd ../shared/data/fsdd]

A file named ``decay`` in DIR begins the last phase (the rate falls to nothing) at the next step; DIR holds the last
weights, and a log. ``--resume`` goes on from them, ``--start FILE`` from other weights. Weights are averaged over steps
(EMA 0.998) and stored as 16-bit floats. One process on one core: some 25 seconds of audio a CPU second, speaking and
judging included. The file that ships was made in stretches, of which only the last had all that is here;
`benchmarks/README.md` says how, and how well it hears. A run anew gives weights of the same kind, not the same ones.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import flite_speech
from benchmarks.kokoro_speech import draw_from_pool
from benchmarks.synthetic_speech import (
    OTHER_ACCENT,
    TRAINING_VOICES,
    UNSEEN_VOICES,
    FilterBank,
    Generator,
    Utterance,
    Wave,
    batches,
    disturb,
    recordings,
    speak,
    speak_by_recordings,
)
from recipes.speech.sentences import lexicon
from recipes.speech.synthesis import SAMPLE_RATE

NAME = "speech_ctc_tiny"
EMBEDDED = Path(__file__).parents[1] / "lightning_transfer" / "backbones" / "embedded"
# The order of the logits. The blank is also what pads.
TOKENS = ("<blank>", "|", "'", *"abcdefghijklmnopqrstuvwxyz")
NETWORK = {
    "hidden_size": 160,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 480,
    "feature_projection_input_dim": 160,
    "conv_depthwise_kernel_size": 15,
    "layerdrop": 0.0,
    "hidden_dropout": 0.05,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "apply_spec_augment": False,
    "vocab_size": len(TOKENS),
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
# Seeds of sentences: the first trains. No sentence set that is judged shares a generator with it.
TRAINING_SEED, HELD_OUT_SEED = 0, 10_001
JUDGED = {
    "held-out sentences, training voices": TRAINING_VOICES,
    "held-out sentences, unseen voices": UNSEEN_VOICES,
    "held-out sentences, en-gb-scotland": OTHER_ACCENT,
}
JUDGED_RECORDINGS = {
    "held-out sentences, Flite's training voices": flite_speech.VOICES,
    "held-out sentences, Flite's Scot": (flite_speech.SCOT,),
}
PASSES = 3
# While the smoothed loss of a letter is over the first value: utterances of a round, most words, seconds of a batch.
CURRICULUM = ((2.3, 400, 3, 8.0), (1.5, 600, 5, 10.0), (0.6, 800, 12, 12.0), (-1.0, 1000, 12, 16.0))
# Share of the utterances that Kokoro speaks where there is a pool of its speech; and of the others, that Flite speaks.
BY_POOL, BY_RECORDINGS = 0.5, 0.5
MIDDLE_WEIGHT = 0.3


class Recogniser(nn.Module):
    """The backbone with its head, and the loss of a middle layer that gets a deep CTC network off its plateau."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

        self.backbone = Wav2Vec2BertModel(Wav2Vec2BertConfig(**NETWORK))
        self.lm_head = nn.Linear(NETWORK["hidden_size"], len(TOKENS))
        # Only masked frames see it, and there are none here; zero is the mean of what the projection gives.
        nn.init.zeros_(self.backbone.masked_spec_embed)

    def forward(self, features: Tensor, lengths: Tensor, middle: bool = False) -> list[Tensor]:
        """Return logits (N, T, V), of the middle layer too where they are asked for."""
        mask = (torch.arange(features.shape[1]) < lengths[:, None]).long()
        with torch.autocast("cpu", torch.bfloat16):
            found = self.backbone(features, attention_mask=mask, output_hidden_states=middle)
        states = [found.last_hidden_state]
        if middle:
            states.append(found.hidden_states[len(found.hidden_states) // 2])
        return [self.lm_head(state.float()) for state in states]


def ctc_loss(logits: Tensor, lengths: Tensor, texts: Sequence[str]) -> Tensor:
    """Return the mean loss of a letter."""
    targets = [torch.tensor(encode(text)) for text in texts]
    sizes = torch.tensor([len(target) for target in targets])
    scores = F.log_softmax(logits, -1).transpose(0, 1)
    total = F.ctc_loss(scores, torch.cat(targets), lengths, sizes, blank=0, reduction="sum", zero_infinity=True)
    return total / sizes.sum()


def encode(text: str) -> list[int]:
    """Return the numbers of the letters."""
    return [TOKENS.index(letter) for letter in text.replace(" ", "|")]


def decode(logits: Tensor, length: int) -> str:
    """Return the best path's text."""
    best = torch.unique_consecutive(logits[:length].argmax(-1))
    return " ".join("".join(TOKENS[index] for index in best.tolist() if index).replace("|", " ").split())


class Pretraining:
    """The run: model, average, optimiser, and what is left of the time."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.args = args
        self.out: Path = args.out
        self.model = Recogniser()
        # Every utterance is new, so nothing is learnt by heart; what adapts the model to little data has its dropout.
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if args.start is not None:
            self.model.load_state_dict(read_weights(args.start).state_dict())
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        decayed = [value for value in self.model.parameters() if value.ndim > 1]
        rest = [value for value in self.model.parameters() if value.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
        # What begins with weights goes on with sentences that they have not heard.
        self.step, self.round, self.heard, self.decay_from = 0, 0 if args.start is None else 5000, 0.0, math.inf
        self.smooth = 4.0 if args.start is None else 0.5
        self.began = self.saved = time.monotonic()
        self.bank = FilterBank()
        self.judged = speak(np.random.default_rng(HELD_OUT_SEED), args.held_out, TRAINING_VOICES, 12, calm=True)
        if args.resume:
            stored = torch.load(self.out / "last.pt", weights_only=True)
            self.model.load_state_dict(stored["model"])
            self.average.load_state_dict(stored["average"])
            self.optimizer.load_state_dict(stored["optimizer"])
            self.step, self.round, self.heard, self.smooth = (
                stored[name] for name in ("step", "round", "heard", "smooth")
            )

    def run(self) -> None:
        """Train until the rate has fallen to nothing."""
        for round_index in range(self.round, 10**9):
            self.round = round_index
            generator = np.random.default_rng([TRAINING_SEED, round_index])
            # Short utterances and small batches first: alignments are found there, by many steps.
            count, words, seconds = next(values for loss, *values in CURRICULUM if self.smooth > loss)
            count = min(count, self.args.round)
            by_pool = round(BY_POOL * count) if self.args.pool else 0
            by_recordings = round(BY_RECORDINGS * (count - by_pool))
            spoken = speak(generator, count - by_pool - by_recordings, TRAINING_VOICES, words)
            spoken += speak_by_recordings(generator, by_recordings, words)
            if by_pool:
                spoken += draw_from_pool(self.args.pool, generator, by_pool)
            for _ in range(PASSES):
                for batch in batches(spoken, generator, seconds):
                    if self.train(batch, generator):
                        self.save()
                        return

    def train(self, batch: Sequence[Utterance], generator: Generator) -> bool:
        """Take one step; return whether it was the last."""
        features, lengths = self.bank([disturb(item.wave, generator) for item in batch])
        texts = [item.text for item in batch]
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        last, middle = (ctc_loss(logits, lengths, texts) for logits in self.model(features, lengths, middle=True))
        self.optimizer.zero_grad()
        ((1 - MIDDLE_WEIGHT) * last + MIDDLE_WEIGHT * middle).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.smooth += 0.02 * (last.item() - self.smooth)
        self.heard += sum(len(item.wave) for item in batch) / SAMPLE_RATE
        with torch.no_grad():
            kept = min(0.998, self.step / (self.step + 20))
            for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(value, 1 - kept)
        if self.step % 20 == 0:
            self.log(
                loss=round(last.item(), 4),
                middle=round(middle.item(), 4),
                smooth=round(self.smooth, 3),
                rate=round(rate, 6),
            )
        if time.monotonic() - self.saved > self.args.save_seconds:
            self.save()
        return self.progress() >= 1

    def progress(self) -> float:
        """Return which part of the whole is done: of the steps or of the time, whichever is nearer its end."""
        minutes = (time.monotonic() - self.began) / 60
        return max(self.step / self.args.steps, minutes / self.args.minutes)

    def rate(self) -> float:
        """Return the learning rate: up, level, and down from `decay_share` of the way, or from the signal on."""
        done = self.progress()
        if self.decay_from > 1 and (done > 1 - self.args.decay_share or (self.out / "decay").exists()):
            self.decay_from = done
            self.log(decay_from=round(done, 3))
            # After a signal the decay takes as long as it would have taken, not all the time that is left.
            if done < 1 - self.args.decay_share:
                factor = done + self.args.decay_share
                self.args.steps, self.args.minutes = self.args.steps * factor, self.args.minutes * factor
                self.decay_from = done / factor
                done = self.decay_from
        left = 1.0 if self.decay_from > 1 else max(0.02, (1 - done) / (1 - self.decay_from))
        return float(self.args.lr) * min(1.0, (self.step + 1) / self.args.warmup) * left

    def log(self, **values: Any) -> None:  # noqa: ANN401 - JSON
        """Write one line."""
        minutes = round((time.monotonic() - self.began) / 60, 2)
        line = {"step": self.step, "minutes": minutes, "heard_hours": round(self.heard / 3600, 3), **values}
        with (self.out / "log.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def save(self) -> None:
        """Judge the averaged weights and keep them."""
        self.log(held_out_wer=round(word_error_rate(self.average, self.judged, self.bank), 4))
        stored = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimizer")}
        stored.update(step=self.step, round=self.round, heard=self.heard, smooth=self.smooth)
        torch.save(stored, self.out / "last.tmp")
        (self.out / "last.tmp").replace(self.out / "last.pt")
        write_weights(self.average, self.out / f"{NAME}.safetensors")
        self.saved = time.monotonic()


def write_weights(model: Recogniser, path: Path) -> None:
    """Store the backbone's own names, and the head's beside them, as 16-bit floats."""
    state = {
        **model.backbone.state_dict(),
        **{f"lm_head.{name}": value for name, value in model.lm_head.state_dict().items()},
    }
    save_file({name: value.detach().half().contiguous() for name, value in state.items()}, path)


def read_weights(path: Path) -> Recogniser:
    """Return the model of such a file, in 32-bit floats."""
    model = Recogniser().eval()
    state = load_file(path)
    head = {name.removeprefix("lm_head."): state.pop(name) for name in list(state) if name.startswith("lm_head.")}
    model.backbone.load_state_dict(state)
    model.lm_head.load_state_dict(head)
    return model


@torch.inference_mode()
def transcribe(model: Recogniser, waves: Sequence[Wave], bank: FilterBank) -> list[str]:
    """Return what the model hears, in the order given."""
    order = np.argsort([len(wave) for wave in waves], kind="stable")
    found = [""] * len(waves)
    for start in range(0, len(order), 16):
        chosen = order[start : start + 16]
        features, lengths = bank([waves[index] for index in chosen])
        (logits,) = model.eval()(features, lengths)
        for index, scores, length in zip(chosen, logits, lengths.tolist(), strict=True):
            found[index] = decode(scores, length)
    return found


def word_error_rate(model: Recogniser, utterances: Sequence[Utterance], bank: FilterBank) -> float:
    """Return errors over words of the references."""
    heard = transcribe(model, [item.wave for item in utterances], bank)
    return float(jiwer.wer([item.text for item in utterances], heard))


def export(weights: Path, folder: Path, before: tuple[float, int] = (0.0, 0)) -> Path:
    """Copy the weights and write the card beside them, as `load_backbone` reads both.

    Args:
        weights: Of a run, with its log beside them.
        folder: Where to.
        before: Hours heard and steps taken by the weights that the run began with.
    """
    from transformers import SeamlessM4TFeatureExtractor

    model = read_weights(weights)
    configuration = model.backbone.config.to_diff_dict()
    for key in ("transformers_version", "model_type", "architectures"):
        configuration.pop(key, None)
    card = {
        "name": f"embedded/{NAME}",
        "architecture": "hf/wav2vec2-bert",
        "architecture_config": configuration,
        "source": "embedded",
        "licence": "Apache-2.0",
        "modality": "audio",
        "num_features": NETWORK["hidden_size"],
        "num_parameters": sum(value.numel() for value in model.backbone.parameters()),
        "pooling": "mean",
        "pretraining": _pretraining(weights.parent / "log.jsonl", *before),
        "processor": {
            "feature_extractor": SeamlessM4TFeatureExtractor().to_dict(),
            "vocabulary": {"tokens": list(TOKENS), "blank": TOKENS[0], "word_delimiter": "|", "unknown": None},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, folder / f"{NAME}.safetensors")
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(card, sort_keys=False, width=120), encoding="utf-8")
    return folder / f"{NAME}.yaml"


def _pretraining(log: Path, hours: float, steps: int) -> str:
    last = json.loads(log.read_text().splitlines()[-1])
    words = len(lexicon().everything)
    return (
        f"{hours + last['heard_hours']:.1f} hours of synthetic speech ({steps + last['step']} steps; about {PASSES}"
        " passes over each utterance, more over Kokoro's, each time disturbed anew), in American English: espeak-ng,"
        f" accent en-us, {len(TRAINING_VOICES)} variants of its voice, 105 to 260 words a minute, pitch 12 to 89;"
        f" Flite, voices {', '.join(flite_speech.VOICES)}, which are made of recordings of three people; and Kokoro-82M"
        " (Apache-2.0), a neural synthesiser, its American voices and mixtures of them with its British and foreign"
        " ones, by American phonemes. No recording of any person. Single words, spoken numbers, words in no order and"
        f" template sentences over {words} everyday English words. Disturbed by noise (5 to 40 dB), rooms, equalisers,"
        " 8 kHz and mu-law, so telephone lines are not new to it, and by changes of pitch, tempo and resonances, by up"
        " to 0.3. Made by benchmarks/pretrain_speech.py."
    )


def evaluate(weights: Path, fsdd: Path | None, count: int = 300) -> dict[str, float]:
    """Print and return word error rates on what the model never heard; recordings of digits are only judged."""
    model, bank = read_weights(weights), FilterBank()
    sets: dict[str, list[Utterance]] = {}
    for index, (name, voices) in enumerate(JUDGED.items(), 1):
        generator = np.random.default_rng([HELD_OUT_SEED, index])
        sets[name] = speak(generator, count, voices, max_words=12, calm=True)
    for index, (name, spoken_by) in enumerate(JUDGED_RECORDINGS.items(), len(JUDGED) + 1):
        generator = np.random.default_rng([HELD_OUT_SEED, index])
        sets[name] = speak_by_recordings(generator, count, 12, spoken_by, calm=True)
    if fsdd is not None:
        sets["spoken digits of six people (fsdd)"] = recordings(fsdd)
    found = {}
    print("| set | utterances | words | WER | CER |\n|---|---|---|---|---|")
    for name, utterances in sets.items():
        heard = transcribe(model, [item.wave for item in utterances], bank)
        said = [item.text for item in utterances]
        found[name] = float(jiwer.wer(said, heard))
        words = sum(len(text.split()) for text in said)
        print(f"| {name} | {len(said)} | {words} | {found[name]:.3f} | {jiwer.cer(said, heard):.3f} |", flush=True)
    return found


def main(args: Sequence[str] | None = None) -> None:
    """Train and write the embedded files; or write them from a run's weights; or judge weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/pretrain_speech"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="at most so long")
    parser.add_argument("--steps", type=float, default=6000, help="at most so many")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps")
    parser.add_argument("--decay_share", type=float, default=0.15, help="of the whole, at its end")
    parser.add_argument("--round", type=int, default=10_000, help="most utterances that are spoken at a time")
    parser.add_argument("--held_out", type=int, default=60, help="utterances that are judged while it runs")
    parser.add_argument("--save_seconds", type=float, default=400.0)
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with, not random ones")
    parser.add_argument("--pool", type=Path, metavar="DIR", help="speech of `benchmarks.kokoro_speech`: half of all")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in --out")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="no training: write what the run in --out has")
    parser.add_argument(
        "--before", nargs=2, metavar=("HOURS", "STEPS"), default=(0, 0), help="of --start, for the card"
    )
    parser.add_argument("--evaluate", type=Path, metavar="FILE", help="no training: judge these weights")
    parser.add_argument("--fsdd", type=Path, help="folder of the Free Spoken Digit Dataset, to judge by it too")
    found = parser.parse_args(args)
    torch.set_num_threads(1)
    if found.evaluate is not None:
        evaluate(found.evaluate, found.fsdd)
        return
    if found.export is None:
        found.out.mkdir(parents=True, exist_ok=True)
        Pretraining(found).run()
    before = float(found.before[0]), int(found.before[1])
    print(export(found.out / f"{NAME}.safetensors", found.export or found.out / "embedded", before))


if __name__ == "__main__":
    main()
