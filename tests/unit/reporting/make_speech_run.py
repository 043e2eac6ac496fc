"""A run folder of a recogniser: its evaluation is a real one, of transcripts that are made up."""

from __future__ import annotations

import json
import random
import wave
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from make_run import item, make_fit, write

from lightning_transfer.data.transcripts import normaliser
from lightning_transfer.evaluation import RecogniserOutputs, evaluate_transcription, write_transcripts
from lightning_transfer.speech import AudioSegment, Transcript
from lightning_transfer.types import Record, Schema

SENTENCES = (
    "Good morning, you are speaking to Maya. How can I help?",
    "My router has no light since yesterday evening.",
    "Please read me the order number on your bill.",
    "I would like to change my plan to Acme Plus.",
    "The technician comes on Tuesday between nine and eleven.",
    "No, that is the old address, I have moved.",
    "Could you spell your family name for me?",
    "I will put you through to the billing team.",
)
SWAPS = {"router": "rooter", "bill": "will", "acme": "at me", "tuesday": "choose day", "plan": "plain", "me": "may"}
NAMES = ("ann", "bob", "cem", "dora", "eve", "finn")
RATE = 8_000


def heard(text: str, share: float, seed: int) -> str:
    """Return a text with that share of its words wrong, as a recogniser would write it."""
    rng, words = random.Random(seed), []
    for word in normaliser("basic")(text).split():
        chance = rng.random()
        if chance < 0.6 * share:
            words.append(SWAPS.get(word, word[:-1] or "uh"))
        elif chance < 0.8 * share:
            continue
        else:
            words.append(word)
            if chance > 1 - 0.2 * share:
                words.append("uh")
    return " ".join(words)


def make_records(root: Path, speakers: int = 6, each: int = 8, prefix: str = "", **meta: Any) -> list[Record]:
    """Return the records of a test split; their files are a second of tone each."""
    records = []
    for number in range(speakers):
        for place in range(each):
            name = f"{prefix}s{number}/call-{place}.wav"
            facts = {"accent": "scottish" if number % 2 else "received", "channel": "phone" if place % 2 else "desk"}
            records.append(
                Record(
                    id=name,
                    input=AudioSegment(str(root / name), 0.0, 1.0),
                    label=SENTENCES[place % len(SENTENCES)],
                    split="test",
                    group=f"{prefix}{NAMES[number % len(NAMES)]}",
                    meta={**facts, "duration": 1.0 + place, **meta},
                )
            )
    return records


def make_sound(path: Path, seconds: float = 1.0, silent: float = 0.0) -> None:
    """Write a tone, with silence at its beginning."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(seconds * RATE)) / RATE
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        wanted = 0.3 * np.sin(2 * np.pi * 440 * times) * (times >= silent)
        file.writeframes((wanted * 32767).astype("<i2").tobytes())


def make_speech_fit(folder: Path, **plan: Any) -> Path:
    """Write what the fit of a recogniser leaves: a general set was listened to, a budget chose, weights were mixed."""
    make_fit(folder, classes=("a", "b"), kind="audio", **plan)
    config = {
        "data": {"root": str(folder.parent / "data"), "general_file": "general.jsonl"},
        "trainer": {"max_epochs": 4},
        "model": {"backbone": "embedded/speech_ctc_tiny"},
    }
    text = "# lightning-transfer==0.1.0\n# python -m recipes.speech fit\n" + yaml.safe_dump(config)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    splits = {"train": (120, 900.0, 8), "val": (40, 300.0, 3), "test": (48, 310.0, 6)}
    write(folder / "data.json", {
        "task": "transcription", "classes": ["<pad>", "|", *"abcdefghijklmnopqrstuvwxyz'"],
        "counts": {split: {"utterances": n} for split, (n, _, _) in splits.items()},
        "num_groups": {split: speakers for split, (_, _, speakers) in splits.items()},
        "columns": ["accent", "channel"],
        "preprocessing": {"kind": "audio", "sampling_rate": 16000, "normaliser": "basic",
                          "scoring_normaliser": "basic"},
        "fingerprint": "abcdef0123456789", "skipped": {"broken.wav": "the file is empty"},
        "speech": {split: {"utterances": n, "seconds": seconds, "unknown": 0, "speakers": speakers,
                           "columns": {"accent": {"scottish": n // 2, "received": n - n // 2},
                                       "channel": {"phone": n // 2, "desk": n - n // 2}}}
                   for split, (n, seconds, speakers) in splits.items()},
    })  # fmt: skip
    plan_file = folder / "plan.json"
    backbone = {"name": "embedded/speech_ctc_tiny", "licence": "CC0-1.0", "pretraining": "synthesised sentences",
                "source": "embedded", "num_parameters": 3_100_000, "num_features": 144}  # fmt: skip
    write(plan_file, {**json.loads(plan_file.read_text()), "backbone": backbone, **plan})
    write(folder / "metrics.json", {
        "fit_seconds": item(64.0), "val_wer": item(0.17),
        "source_wer_before": item(0.05, 0.03, 0.08, n=60, num_groups=5),
        "source_wer_after": item(0.07, n=60, num_groups=5, reason="its interval stands at the change"),
        "source_wer_change": item(0.02, 0.004, 0.04, n=60, num_groups=5),
    })  # fmt: skip
    rows = ["epoch,step,train_loss,val_loss,val_wer,val_cer,forgetting_wer"]
    for epoch in range(4):
        rows += [
            f"{epoch},{10 * epoch + 9},{2 - epoch / 3},,,,",
            f"{epoch},{10 * epoch + 9},,{1.5 - epoch / 4},{0.5 - epoch / 10},{0.2 - epoch / 25},",
            f"{epoch},{10 * epoch + 10},,,,,{0.008 * epoch}",
        ]
    (folder / "logs" / "csv" / "metrics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    write(folder / "forgetting.json", make_story())
    return folder


def make_story(**changes: Any) -> dict[str, Any]:
    """What a fit writes of what was forgotten: ten mixtures of which those up to 60% are within, and four epochs."""

    def row(alpha: float) -> dict[str, Any]:
        loss = 0.034 * alpha**2
        return {"alpha": alpha, "score": 0.55 - 0.4 * alpha + 0.02 * alpha**2, "within": loss <= 0.02,
                "readings": {"forgetting_wer": loss}}  # fmt: skip

    tried = [row(number / 10) for number in range(1, 11)]
    chosen = min((item for item in tried if item["within"]), key=lambda item: item["score"])["alpha"]
    epochs = [
        {"epoch": epoch, "step": 10 * epoch + 10, "new": 0.5 - epoch / 10, "losses": {"forgetting_wer": 0.008 * epoch},
         "score": (0.1 + epoch / 5) * (1 - 0.4 * epoch) if epoch < 3 else -0.2, "within": epoch < 3}
        for epoch in range(4)
    ]  # fmt: skip
    interpolation = {"alpha": chosen, "monitor": "val_wer", "mode": "min", "limits": {"forgetting_wer": 0.02},
                     "tried": tried, "pretrained": row(0.0), "checkpoint": "x.ckpt", "seconds": 2.0}  # fmt: skip
    retention = {"max_degradation": 0.02, "monitor": "val_wer", "metric": "wer", "before": 0.55, "rows": epochs,
                 "best": max(epochs, key=lambda item: item["score"])}  # fmt: skip
    return {"monitors": [{"checks": 4, "interpolation": interpolation}], "retention": retention, **changes}


def make_speech_test(
    folder: Path,
    records: list[Record] | None = None,
    share: float = 0.15,
    before: float | None = 0.5,
    name: str = "test",
    texts: list[str] | None = None,
    sound: bool = True,
    keywords: tuple[str, ...] = ("acme plus", "router", "order number"),
    **changes: Any,
) -> Path:
    """Write what the test of a recogniser leaves; `share` of its words are wrong, for speaker 5 three times as many."""
    root = folder.parent / "data"
    records = make_records(root) if records is None else records
    given = texts or [
        heard(str(record.label), share * (3 if place // 8 == 5 else 1), place) for place, record in enumerate(records)
    ]
    transcripts = [Transcript(place, text, 0.9, 1.0, "" if text else "only blanks") for place, text in enumerate(given)]
    rows = {}
    if before is not None:
        others = [Transcript(p, heard(str(r.label), before, 100 + p), 0.5, 1.0) for p, r in enumerate(records)]
        rows["pretrained"] = RecogniserOutputs(others, "the backbone with its own head, before adapting", 0.5)
    result = evaluate_transcription(
        transcripts,
        records,
        Schema(task="transcription", classes=()),
        normalise=normaliser("basic"),
        normaliser="basic",
        baselines=rows,
        keywords=keywords,
        decoding_seconds=1.5,
        device="cpu",
        n_resamples=200,
    )
    (folder / name).mkdir()
    write_transcripts(folder / name / "predictions.jsonl", records, transcripts, normaliser("basic"))
    write(folder / name / "evaluation.json", {**result.to_dict(), **changes})
    result.write_json(folder / name / "metrics.json")
    (folder / name / "data.json").write_text((folder / "data.json").read_text())
    for record in records if sound else ():
        make_sound(Path(str(record.input)))
    return folder
