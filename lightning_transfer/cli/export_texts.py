"""The verb ``export`` for models of texts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram

from lightning_transfer import export as forms
from lightning_transfer.cli.export_classes import ClassForm
from lightning_transfer.cli.export_forms import ExportedFile, Run
from lightning_transfer.cli.export_samples import Samples, spread
from lightning_transfer.data.texts import read_tickets
from lightning_transfer.data.texts_ids import open_tokenizer, token_rows
from lightning_transfer.data.texts_tokens import TextPreprocessing
from lightning_transfer.errors import listing
from lightning_transfer.evaluation import Predictor, decide
from lightning_transfer.export import predict_onnx_text
from lightning_transfer.export.predict_onnx import BATCH, judge
from lightning_transfer.export.text_decisions import KNN, decided
from lightning_transfer.types import Record

if TYPE_CHECKING:
    from lightning_transfer.cli.transfer_cli import TransferCLI

__all__ = ["MIXED", "ONE", "SORTED", "TextForm"]

ONE, SORTED, MIXED = "one by one", f"{BATCH} of like length", f"up to {BATCH} of all lengths"
"""How texts are put into batches for the comparison: what pads a text must not change what is said of it."""

_SCRIPT = Path(predict_onnx_text.__file__)
_ONNX, _INT8 = "model.onnx", "int8"
_COLUMNS = ("body_column", "subject_column", "id_column")
_TIMED = 64


class TextForm(ClassForm):
    """Texts: cleaned and cut into tokens by ``predict_onnx_text.py``, in batches of several kinds."""

    ways = (ONE, SORTED, MIXED)

    def __init__(self, cli: TransferCLI, predictor: Predictor) -> None:
        super().__init__(cli, predictor)
        module = predictor.module
        routing = None if cli.routing is None else cli.routing.to_dict()
        self.facts = forms.exported_facts(module.card, predictor.schema, cli.calibration, routing)
        columns = getattr(cli.datamodule, "columns", {})
        self.facts["columns"] = {name: columns[name] for name in _COLUMNS if columns.get(name) is not None}
        self.encode: TextPreprocessing = predictor.preprocess  # type: ignore[assignment] # of this kind
        self.threads = torch.get_num_threads()
        self._tokenizer = open_tokenizer(self.encode.tokenizer_json)
        self._known: dict[str, list[int]] = {}

    def samples(self, place: str, count: int) -> Samples:
        """Return rows of a table."""
        found = read_tickets(
            place, **{"body_column": "body", **self.facts["columns"]}, label_column=None, cleaning=self.encode.cleaning,
            on_bad_file="skip",
        ).records  # fmt: skip
        chosen = spread(found, count)
        return Samples(chosen, f"{len(chosen)} of {len(found)} texts of `{place}`")

    def trace(self) -> ExportedProgram:
        """Return the network for texts of any length that it was trained with."""
        return forms.trace_texts(forms.exported_network(self.predictor.module), self.encode.max_length)

    def write_script(self, folder: Path) -> None:
        """Write the script, the files that it needs, the tokenizer, and what the score ``knn`` is measured to."""
        forms.write_script(_SCRIPT, folder)
        (folder / predict_onnx_text.TOKENIZER).write_bytes(self.encode.tokenizer_json.encode("utf-8"))
        examples, policy = self.predictor.examples, self.facts["routing"]
        if examples is not None and policy is not None and policy["out_of_scope_score"] == KNN:
            np.savez(
                folder / predict_onnx_text.EXAMPLES,
                features=examples.features.numpy(), ids=np.array(examples.paths), labels=np.array(examples.labels),
            )  # fmt: skip

    def open_onnx(self, path: Path, label: str) -> ExportedFile:
        """Open it by the script, with the tokenizer that lies beside it."""
        model = predict_onnx_text.Model(path, self.threads)
        return ExportedFile(label, model.facts, model.run)

    def torch_run(self, network: Callable[..., Any]) -> Run:
        """Return a network of token ids as one of arrays."""
        is_module = network is self.predictor.module

        def run(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            with torch.inference_mode():
                given = {name: torch.from_numpy(values) for name, values in inputs.items()}
                # The checkpoint's module takes them together; an exported program one by one, and returns features too.
                logits: torch.Tensor = network(given) if is_module else network(*given.values())[0]
                return np.asarray(logits.numpy())

        return run

    def logits(
        self, runs: Mapping[str, Run], records: Sequence[Record], way: str = ""
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield logits of the texts, run in batches of that kind."""
        rows = [self._ids(record) for record in records]
        found: dict[str, list[Any]] = {name: [None] * len(rows) for name in runs}
        for places in _batches([len(row) for row in rows], way or SORTED):
            inputs = forms.padded([rows[place] for place in places], self.encode.pad_id)
            for name, run in runs.items():
                for place, row in zip(places, run(inputs), strict=True):
                    found[name][place] = row
        for place in range(len(rows)):
            yield {name: values[place] for name, values in found.items()}

    def quantise(self, model: Path, target: Path, training: Sequence[Record]) -> None:
        """Quantise; the ranges are found anew for each batch, so no training text is needed."""
        forms.quantise_texts(model, target, self.facts)

    def latency_inputs(self, records: Sequence[Record]) -> Callable[[int], Sequence[Any]]:
        """Return what makes batches of texts as they come: each model's turn is the next batch."""
        rows = [self._ids(record) for record in spread(records, _TIMED)]
        order = np.random.default_rng(0).permutation(len(rows))

        def batches(size: int) -> list[dict[str, np.ndarray]]:
            starts = range(0, len(rows), size)
            chosen = [[rows[order[place % len(rows)]] for place in range(start, start + size)] for start in starts]
            return [forms.padded(part, self.encode.pad_id) for part in chosen]

        return batches

    def report(self, files: Mapping[str, ExportedFile], records: Sequence[Record]) -> dict[str, Any]:
        """Return the ways of the comparison, how long texts are, what preparing them takes, and how steady int8 is."""
        lengths = [len(self._ids(record)) for record in records]
        taken = []
        for record in spread(records, _TIMED):
            start = time.perf_counter()
            self._tokens(self.encode.clean(record.input))
            taken.append(1e3 * (time.perf_counter() - start))
        int8 = {file.label: file.run for file in files.values() if file.label == _INT8}
        changed = None
        if int8:
            pairs = zip(self.logits(int8, records, ONE), self.logits(int8, records, SORTED), strict=True)
            changed = sum(judge(one[_INT8], self.facts)[2] != judge(many[_INT8], self.facts)[2] for one, many in pairs)
        return {
            "batches": list(self.ways),
            "tokens": {name: float(np.percentile(lengths, q)) for name, q in (("p50", 50), ("p95", 95), ("max", 100))},
            "preparation": {
                "what": "cleaning and tokens of one text, milliseconds on top of the forward pass",
                "p50_ms": float(np.percentile(taken, 50)),
                "p95_ms": float(np.percentile(taken, 95)),
            },
            # Its ranges are those of a batch, so a text's neighbours have a say.
            "int8_decisions_that_depend_on_the_batch": changed,
        }

    def check(self, place: Path, records: Sequence[Record]) -> None:
        """Compare the routing decisions of the script with those of the checkpoint's policy.

        Raises:
            ParityError: If one differs.
        """
        policy = self.cli.routing
        if policy is None or not (place / _ONNX).is_file():
            return
        ids = [record.id for record in records]
        logits, features = self.predictor.outputs(records)
        temperature = self.cli.calibration.temperature
        expected = decide(logits, features, ids, self.predictor.schema, temperature, policy, self.predictor.examples)
        model = predict_onnx_text.Model(place / _ONNX, self.threads)
        outputs = model.outputs([self._ids(record) for record in records])
        wrong = []
        for name, wanted, row, vector in zip(ids, expected, *outputs, strict=True):
            line = decided(name, row, vector, self.facts, model.examples, 3)
            if (line["decision"], line["queue"]) != (wanted.decision, wanted.queue):
                wrong.append(f"{name} ({line['decision']}, and not {wanted.decision})")
        if wrong:
            raise forms.ParityError(
                f"`{_SCRIPT.name}` does not route {len(wrong)} of {len(ids)} samples as the checkpoint: "
                f"{listing(wrong)}. Nothing was kept."
            )

    def _ids(self, record: Record) -> list[int]:
        """Return the token ids as the script makes them, after a look at those that the checkpoint is shown."""
        if record.input not in self._known:
            ids = self._tokens(record.input)
            if ids != self.encode(record.input)["input_ids"].tolist():
                raise forms.ParityError(
                    f"`{_SCRIPT.name}` reads other tokens in `{record.id}` than the checkpoint. Nothing was kept."
                )
            self._known[record.input] = ids
        return self._known[record.input]

    def _tokens(self, text: str) -> list[int]:
        return token_rows(self._tokenizer, text, self.encode.max_length, self.encode.long_texts)[0]


def _batches(lengths: Sequence[int], way: str) -> list[list[int]]:
    """Return places of the texts in batches: alone, of like length, or of all lengths in each.

    Example:
        >>> _batches([5, 9, 1, 7], ONE)
        [[0], [1], [2], [3]]
        >>> _batches([5, 9, 1, 7], MIXED)
        [[2, 0, 3, 1]]
    """
    if way == ONE:
        return [[place] for place in range(len(lengths))]
    parts = forms.by_length(lengths, BATCH)
    if way == SORTED:
        return parts
    order = [place for part in parts for place in part]
    return [order[start :: len(parts)] for start in range(len(parts))]
