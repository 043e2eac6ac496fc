"""Predict with an exported model of texts: needs onnxruntime, numpy and tokenizers, not torch or lightning-transfer.

    python predict_onnx_text.py new_tickets.csv --output predictions.jsonl
    python predict_onnx_text.py lines.txt

Where the model was trained on texts with telephone numbers masked, it needs phonenumbers too. What the model knows
(classes, temperature, thresholds, cleaning, length) is read from ``model.onnx`` itself, the tokenizer from
``tokenizer.json`` beside it. This file and the folder ``text_parts`` are written by the verb ``export``, which compares
their decisions with the checkpoint's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from lightning_transfer.data.texts_clean import TextCleaning
from lightning_transfer.data.texts_ids import open_tokenizer, token_rows
from lightning_transfer.data.texts_items import NO_TEXT, cleaned_texts
from lightning_transfer.data.texts_private import phone_library
from lightning_transfer.data.texts_tables import TextTable, cell_text
from lightning_transfer.errors import DataError, closest
from lightning_transfer.export.predict_onnx import BATCH, open_model
from lightning_transfer.export.text_batches import by_length, padded
from lightning_transfer.export.text_decisions import Examples, decided, unreadable
from lightning_transfer.files import atomic

__all__ = ["EXAMPLES", "TOKENIZER", "Model", "main", "read_rows"]

TOKENIZER, EXAMPLES = "tokenizer.json", "examples.npz"
# Rows that are read and cleaned before they are sorted by length: the rest of a large table stays on the disk.
_ROWS = 1024

Row = tuple[str, str, str, str]
"""Id, subject, body, and why the row cannot be read."""


class Model:
    """An exported model, its tokenizer, and what they say of texts.

    Args:
        path: Of ``model.onnx``, or of its int8 sibling; the tokenizer lies beside it.
        threads: Of onnxruntime; 0 takes all cores.

    Attributes:
        facts: What the export wrote into the file.
        examples: Features of training texts, where the export wrote any.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self.session, self.facts = open_model(path, threads)
        self._spec: dict[str, Any] = self.facts["preprocessing"]
        if self._spec.get("kind") != "text":
            raise ValueError(f"`{path}` is no model of texts, but of kind `{self._spec.get('kind')}`.")
        self._tokenizer = _read_tokenizer(Path(path).with_name(TOKENIZER), self._spec["tokenizer"])
        self.cleaning = TextCleaning.from_dict(self._spec["cleaning"])
        if self.cleaning.phones:
            phone_library()
        self.examples = _read_examples(Path(path).with_name(EXAMPLES))

    def predict(
        self, items: Sequence[Any], ids: Sequence[str] | None = None, top: int = 3, batch_size: int = BATCH
    ) -> list[dict[str, Any]]:
        """Return a line for each text, in order.

        Args:
            items: Bodies, plain or HTML, or mappings with ``subject`` and ``body``.
            ids: Of the texts; None counts them from 0.
            top: Most probable queues to name.
            batch_size: Texts in one pass of the model.
        """
        names = [str(place) for place in range(len(items))] if ids is None else ids
        texts = cleaned_texts(items, self.cleaning)
        logits, features = self.outputs([self.ids(text) if text else [] for text in texts], batch_size)
        return [
            decided(name, logits[place], features[place], self.facts, self.examples, top)
            if text
            else unreadable(name, NO_TEXT)
            for place, (name, text) in enumerate(zip(names, texts, strict=True))
        ]

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a cleaned text."""
        return token_rows(self._tokenizer, text, self._spec["max_length"], self._spec["long_texts"])[0]

    def pad(self, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Return the inputs of one batch."""
        return padded(rows, self._spec["pad_id"])

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the logits ``(N, L)`` of one batch, before temperature."""
        logits: np.ndarray = self.session.run(["logits"], dict(inputs))[0]
        return logits

    def outputs(self, rows: Sequence[Sequence[int]], batch_size: int = BATCH) -> tuple[np.ndarray, np.ndarray]:
        """Return logits ``(N, L)`` and features ``(N, F)`` of token ids; those of empty rows are NaN."""
        shapes = [output.shape[1] for output in self.session.get_outputs()]
        logits, features = (np.full((len(rows), width), np.nan, dtype=np.float32) for width in shapes)
        filled = [place for place, row in enumerate(rows) if row]
        for part in by_length([len(rows[place]) for place in filled], batch_size):
            places = [filled[place] for place in part]
            found = self.session.run(["logits", "features"], self.pad([rows[place] for place in places]))
            logits[places], features[places] = found
        return logits, features


def _read_tokenizer(path: Path, fingerprint: str) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()[:16]
    if found != fingerprint:
        raise ValueError(f"`{path}` is {found}, and the model was trained with {fingerprint}: copy the file beside it.")
    return open_tokenizer(content.decode("utf-8"))


def _read_examples(path: Path) -> Examples | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return Examples(stored["features"], stored["ids"].tolist(), stored["labels"].tolist())


def read_rows(
    path: str, body_column: str, subject_column: str | None = None, id_column: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a table (``.csv``, ``.jsonl``, ``.parquet``), or the lines of any other file.

    A row that cannot be read is yielded with the reason: none is lost.

    Args:
        path: A file, or ``-`` for lines from standard input.
        body_column: Holds the text.
        subject_column: Holds the subject; None uses ``subject`` where it exists.
        id_column: Holds names; None uses ``id`` where it exists, else the number of the row.
    """
    if path == "-" or Path(path).suffix.lower() not in (".csv", ".jsonl", ".ndjson", ".parquet"):
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        for number, line in enumerate(content.decode("utf-8-sig", errors="replace").splitlines(), start=1):
            yield f"line {number}", "", line, ""
        return
    table = TextTable(Path(path))
    for row in table:
        if row.place == 0 and table.has_header:
            for column in filter(None, (body_column, subject_column, id_column)):
                if column not in table.columns:
                    raise DataError(
                        f"No column `{column}` in `{path}`.{closest(column, table.columns)} "
                        f"Columns: {', '.join(table.columns)}."
                    )
        name = cell_text(row.values.get(id_column or "id")).strip() or f"row {row.number}"
        subject, body = (cell_text(row.values.get(column)) for column in (subject_column or "subject", body_column))
        yield name, subject, body, row.problem


def _lines(model: Model, rows: Iterator[Row], top: int) -> Iterator[dict[str, Any]]:
    while part := list(islice(rows, _ROWS)):
        items = [{"subject": subject, "body": "" if problem else body} for _, subject, body, problem in part]
        found = model.predict(items, [row[0] for row in part], top)
        for (name, _, _, problem), line in zip(part, found, strict=True):
            yield unreadable(name, problem) if problem else line


def _write(stream: IO[str], lines: Iterator[dict[str, Any]]) -> tuple[int, int]:
    """Write a line for each text; return how many there are, and how many could not be read."""
    count = bad = 0
    for line in lines:
        stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        count += 1
        bad += line["decision"] == "unreadable"
    return count, bad


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 where a text could not be read (its line says why)."""
    parser = argparse.ArgumentParser(description="Predict with an exported model of texts; a JSON line for each.")
    parser.add_argument(
        "path", help="table (.csv, .jsonl, .parquet), or a file with a text a line; - is standard input"
    )
    parser.add_argument(
        "--model", default=str(Path(__file__).with_name("model.onnx")), help="default: beside this file"
    )
    parser.add_argument("--output", help="a new .jsonl file; default: standard output")
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--top", type=int, default=3, help="most probable queues to name; default: 3")
    for role in ("body", "subject", "id"):
        parser.add_argument(f"--{role}_column", help="default: as in the training")
    given = parser.parse_args(words)
    try:
        model = Model(given.model, given.threads)
    except Exception as error:  # onnxruntime raises classes of its own
        parser.error(f"cannot use the model `{given.model}`: {error}")
    known = {
        **model.facts.get("columns", {}),
        **{key: value for key, value in vars(given).items() if value is not None},
    }
    rows = read_rows(
        given.path, known.get("body_column") or "body", known.get("subject_column"), known.get("id_column")
    )
    try:
        if given.output is None:
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
            count, bad = _write(sys.stdout, _lines(model, rows, given.top))
        elif Path(given.output).exists():
            parser.error(f"`{given.output}` exists and is not written over")
        else:
            with (
                atomic(given.output) as part,
                part.open("x", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
            ):
                count, bad = _write(stream, _lines(model, rows, given.top))
    except (DataError, OSError) as error:
        parser.error(str(error))
    if bad:
        print(f"{bad} of {count} texts could not be read: see `reason`.", file=sys.stderr)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
