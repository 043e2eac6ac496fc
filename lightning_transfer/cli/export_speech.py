"""The verb ``export`` for models that write down speech."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.export import ExportedProgram

from lightning_transfer import export as forms
from lightning_transfer.cli.export_forms import ExportedFile, Form, Run
from lightning_transfer.cli.export_samples import Samples, spread
from lightning_transfer.cli.export_words import WordLoss, measure_word_loss
from lightning_transfer.errors import DataError, listing
from lightning_transfer.evaluation import Predictor, progress
from lightning_transfer.export import predict_onnx_speech
from lightning_transfer.export.predict_onnx_speech import BATCH, Model, Piece, Sound, Steps
from lightning_transfer.export.speech_decode import join
from lightning_transfer.speech import AudioSegment
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["MIXED", "ONE", "RealTime", "SpeechForm"]

ONE, MIXED = "one by one", f"up to {BATCH} of all lengths"
"""How pieces of sound are put into batches for the comparison: what fills up a short one must not change its text."""

_SCRIPT = Path(predict_onnx_speech.__file__)
_ONNX, _OWN = "model.onnx", "checkpoint"
_TIMED = 64


@dataclass(frozen=True)
class RealTime:
    """Seconds of computing that a second of sound takes.

    Attributes:
        rows: Of `measure_real_time`, the checkpoint's own module first.
        preparation: Of reading a file and making its features, the same for all models.
    """

    rows: Sequence[Mapping[str, Any]]
    preparation: float

    def of(self, label: str, kind: str) -> dict[str, Any]:
        """Return the factors of one file, and of the checkpoint, for single recordings."""
        row = self.rows[0]
        return {
            "real_time_factor_eager": row["real_time_factor_eager"],
            f"real_time_factor_{kind}": row[f"real_time_factor_{label}"],
        }

    def text(self) -> str:
        """Return a line for each size of batch."""
        lines = ["Real-time factor (seconds of computing for a second of sound) on one CPU thread, in turns"]
        for row in self.rows:
            names = [key.removeprefix("real_time_factor_") for key in row if key.startswith("real_time_factor_")]
            cells = [f"{names[0]} {row[f'real_time_factor_{names[0]}']:.4f}"]
            cells += [
                f"{name} {row[f'real_time_factor_{name}']:.4f} ({row[f'speedup_{name}']:.1f}x)" for name in names[1:]
            ]
            lines.append(f"  batch of {row['batch_size']}: {', '.join(cells)}")
        lines.append(f"  on top of it, reading and features: {self.preparation:.4f}")
        return "\n".join(lines)


class _Logits(NamedTuple):
    """What each model makes of one piece, whose features have so many steps."""

    piece: Piece
    steps: int
    logits: dict[str, np.ndarray]


class SpeechForm(Form):
    """Speech: read, cut into pieces and decoded by ``predict_onnx_speech.py``, in batches of several kinds."""

    ways = (ONE, MIXED)

    def __init__(self, cli: TransferCLI, predictor: Predictor) -> None:
        super().__init__(cli, predictor)
        module = predictor.module
        if getattr(module, "decoding", None) is not None:
            rank_zero_warn("The exported file takes the best token of each frame: the lexicon is not exported.")
            setattr(module, "decoding", None)  # noqa: B010 - a module of any kind, to the type checker
        self.facts = forms.speech_facts(module.card, predictor.schema, forms.speech_network_facts(module))
        self.threads = torch.get_num_threads()
        self.feature_difference = 0.0
        self.steps = Steps(self.facts)
        self._written: dict[str, str] = {}
        self._ties: set[str] = set()

    def samples(self, place: str, count: int) -> Samples:
        """Return audio files below a folder, or rows of a manifest."""
        if not Path(place).exists():
            raise DataError(
                f"There is no `{place}` to compare on. Give a folder of audio files, or a manifest (.jsonl)."
            )
        found = [
            Record(sound.id, sound.segment) for sound in predict_onnx_speech.read_sounds([place]) if not sound.reason
        ]
        if not found:
            raise DataError(f"`{place}` holds no audio files and no rows of a manifest to compare on.")
        chosen = spread(found, count)
        return Samples(chosen, f"{len(chosen)} of {len(found)} recordings of `{place}`")

    def trace(self) -> ExportedProgram:
        """Return the network for sound of any length."""
        second = np.zeros(self.steps.rate, dtype=np.float32)
        shape = self.steps.prepared(second).shape
        return forms.trace_speech(forms.exported_network(self.predictor.module), shape[1] if len(shape) == 2 else None)

    def write_script(self, folder: Path) -> None:
        """Write the script and the files that it needs."""
        forms.write_script(_SCRIPT, folder, forms.SPEECH_PARTS)

    def open_onnx(self, path: Path, label: str) -> ExportedFile:
        """Open it by the script."""
        model = Model(path, self.threads)
        return ExportedFile(label, model.facts, model.run)

    def torch_run(self, network: Callable[..., Any]) -> Run:
        """Return a network of tensors as one of arrays, which gives the logits ``(frames, L)`` of each piece."""
        is_module = network is self.predictor.module

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            with torch.inference_mode():
                given = {name: torch.from_numpy(values) for name, values in inputs.items()}
                # The checkpoint's module takes them together; an exported program one by one.
                logits, lengths = network(given) if is_module else network(*given.values())
                return [row[:length].numpy() for row, length in zip(logits, lengths.tolist(), strict=True)]

        return run

    def timed_run(self, path: Path) -> Run:
        """Open it by the script, on one thread."""
        return Model(path, forms.THREADS).run

    def reference(self, records: Sequence[Record]) -> list[str]:
        """Return what the checkpoint writes: recordings alone, as some networks hear what fills up a batch."""
        texts = []
        with progress("Checkpoint", len(records), self.show) as bar:
            for record in records:
                texts.append(self.predictor.predict([record], batch_size=1)[0].text)  # type: ignore[attr-defined]
                bar.update(1)
        self._written = dict(zip((record.id for record in records), texts, strict=True))
        return texts

    def compare(
        self, files: Mapping[str, ExportedFile], reference: Sequence[str], records: Sequence[Record]
    ) -> dict[str, forms.SpeechParity]:
        """Compare logits and texts, in each way of making batches.

        Where the network hears what fills up a batch, texts are compared one by one alone, as the script makes them.
        """
        own = self.torch_run(self.predictor.module)
        found: dict[str, list[forms.SpeechParity]] = {name: [] for name in files}
        for way in self.ways:
            parities = {name: forms.SpeechParity() for name in files}
            with progress(f"Exported, {way}", len(records), self.show) as bar:
                for place, pieces in self._hear({name: file.run for name, file in files.items()}, records, way, own):
                    record, wanted = records[place], reference[place]
                    for name, parity in parities.items():
                        text = self._text(pieces, name)
                        alike = way == ONE or self.facts["sees_mask"]
                        logits = [(piece.logits[_OWN], piece.logits[name]) for piece in pieces]
                        parity.add(record.id, wanted if alike else text, text, logits)
                    bar.update(1)
            for name, parity in parities.items():
                parity.check(name)
                found[name].append(parity)
                self._ties.update(parity.ties)
        return {name: parities[0].joined(parities[1:]) for name, parities in found.items()}

    def check(self, place: Path, records: Sequence[Record]) -> None:
        """Let the script itself transcribe the samples, in its own batches.

        Raises:
            ParityError: If it writes something else than the checkpoint.
        """
        if not (place / _ONNX).is_file():
            return
        model = Model(place / _ONNX, self.threads)
        sounds = [Sound(record.id, record.input) for record in records]
        wrong = []
        for line in model.transcribe(sounds):
            if line["reason"] or (line["text"] != self._written[line["id"]] and line["id"] not in self._ties):
                wrong.append(f"{line['id']} ({line['reason'] or line['text']})")
        if wrong:
            raise forms.ParityError(
                f"`{_SCRIPT.name}` does not write what the checkpoint writes of {len(wrong)} of {len(records)} "
                f"samples: {listing(wrong)}. Nothing was kept."
            )

    def quantise(self, model: Path, target: Path, training: Sequence[Record]) -> None:
        """Quantise the matrix products; the ranges are found anew for each batch, so no training sound is needed."""
        forms.quantise_texts(model, target, self.facts)

    def loss(self, float_run: Run, int8_run: Run, test: Sequence[Record]) -> WordLoss:
        """Compare the word errors of both on the test split."""
        texts: dict[str, list[str]] = {"float": [], "int8": []}
        with progress("8 bits", len(test), self.show) as bar:
            for _, pieces in self._hear({"float": float_run, "int8": int8_run}, test, ONE):
                for name, heard in texts.items():
                    heard.append(self._text(pieces, name))
                bar.update(1)
        scoring = self.predictor.schema.preprocessing.get("scoring_normaliser", "basic")
        return measure_word_loss(test, texts["float"], texts["int8"], scoring)

    def timing(self, runs: Mapping[str, Run], records: Sequence[Record]) -> RealTime:
        """Time pieces as they come, alone and in batches of like length; and what prepares them."""
        pieces = [piece for record in spread(records, _TIMED) for piece in self._pieces(record)][:_TIMED]
        begin = time.perf_counter()
        rows = [self.steps.features(piece) for piece in pieces]
        sound = sum(piece.seconds for piece in pieces)
        preparation = (time.perf_counter() - begin) / sound

        def batches(size: int) -> list[tuple[dict[str, np.ndarray], float]]:
            parts = self.steps.batches([len(row) for row in rows], size)
            # Not shortest first: where time runs out, those that were run are of all lengths.
            order = np.random.default_rng(0).permutation(len(parts))
            chosen = [parts[place] for place in order]
            return [
                (self.steps.batch([rows[place] for place in part]), sum(pieces[place].seconds for place in part))
                for part in chosen
            ]

        return RealTime(forms.measure_real_time(runs, batches, batch_sizes=(1, BATCH)), preparation)

    def report(self, files: Mapping[str, ExportedFile], records: Sequence[Record]) -> dict[str, Any]:
        """Return the ways of the comparison, how long the recordings are, and how far the script's features are off."""
        seconds = [sum(piece.seconds for piece in self._pieces(record)) for record in records]
        return {
            "batches": list(self.ways),
            "seconds": {name: float(np.percentile(seconds, q)) for name, q in (("p50", 50), ("p95", 95), ("max", 100))},
            "max_feature_difference": self.feature_difference,
        }

    def _hear(
        self, runs: Mapping[str, Run], records: Sequence[Record], way: str, own: Run | None = None
    ) -> Iterator[tuple[int, list[_Logits]]]:
        """Yield for each record, in order, the logits of its pieces by each model, and by the checkpoint's own.

        Few records are in memory at once.
        """
        for start in range(0, len(records), BATCH):
            places = range(start, min(start + BATCH, len(records)))
            pieces = [(place, piece) for place in places for piece in self._pieces(records[place])]
            rows = [self._features(records[place], piece) for place, piece in pieces]
            given = []
            if own is not None:
                triples = zip(pieces, rows, strict=True)
                given = [self._prepared(records[place], piece, row) for (place, piece), row in triples]
            found = [_Logits(piece, len(row), {}) for (_, piece), row in zip(pieces, rows, strict=True)]
            for chosen in _batches([len(row) for row in rows], way):
                inputs = self.steps.batch([rows[number] for number in chosen])
                made = {name: run(inputs) for name, run in runs.items()}
                if own is not None:
                    # What is heard alone is what every company must agree to; without a mask it changes with it.
                    parts = [[number] for number in chosen] if self.facts["sees_mask"] else [chosen]
                    made[_OWN] = [row for part in parts for row in own(self._collated([given[n] for n in part]))]
                for name, logits in made.items():
                    for number, values in zip(chosen, logits, strict=True):
                        found[number].logits[name] = values
            for place in places:
                yield place, [item for item, (owner, _) in zip(found, pieces, strict=True) if owner == place]

    def _pieces(self, record: Record) -> list[Piece]:
        segment = record.input if isinstance(record.input, AudioSegment) else AudioSegment(str(record.input))
        try:
            return self.steps.pieces(segment)
        except DataError as error:
            raise forms.ParityError(f"`{_SCRIPT.name}` cannot read `{record.id}`: {error} Nothing was kept.") from error

    def _features(self, record: Record, piece: Piece) -> np.ndarray:
        """Return the features as the script makes them."""
        try:
            return self.steps.features(piece)
        except DataError as error:
            raise forms.ParityError(f"`{_SCRIPT.name}` cannot read `{record.id}`: {error} Nothing was kept.") from error

    def _prepared(self, record: Record, piece: Piece, row: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what the checkpoint is given, and note how far the script's features are from it."""
        given: dict[str, torch.Tensor] = self.predictor.preprocess(piece.segment)
        [values] = [item for name, item in given.items() if name != "attention_mask"]
        # Behind an odd number of frames the extractor puts a step that it hides itself.
        ours = values[given["attention_mask"].bool()].numpy()
        if ours.shape != row.shape:
            raise forms.ParityError(
                f"`{_SCRIPT.name}` makes {len(row)} steps of features of `{record.id}`, and the checkpoint's "
                f"preprocessing {len(ours)}. Nothing was kept."
            )
        self.feature_difference = max(self.feature_difference, float(np.abs(row - ours).max()))
        return given

    def _collated(self, given: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, np.ndarray]:
        batch = self.predictor.preprocess.collate(given)  # type: ignore[attr-defined] # an AudioPreprocessing
        return {name: values.numpy() for name, values in batch.items()}

    def _text(self, pieces: Sequence[_Logits], name: str) -> str:
        heard = [self.steps.decode(item.logits[name], item.steps) for item in pieces]
        return heard[0].text if len(heard) == 1 else join(heard, [item.piece.start for item in pieces]).text


def _batches(lengths: Sequence[int], way: str) -> list[list[int]]:
    """Return places of the pieces in batches: alone, or of all lengths in each.

    Example:
        >>> _batches([5, 9, 1], ONE), _batches([5, 9, 1], MIXED)
        ([[0], [1], [2]], [[2, 0, 1]])
    """
    if way == ONE:
        return [[place] for place in range(len(lengths))]
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])
    count = -(-len(order) // BATCH)
    return [order[start::count] for start in range(count)]
