"""Predict with an exported model: needs onnxruntime, numpy and pillow, and neither torch nor lightning-transfer.

    python predict_onnx.py part_001.png folder_of_images
    python predict_onnx.py folder_of_images --output predictions.csv

What the model knows (classes, temperature, threshold, preprocessing) is read from ``model.onnx`` itself. This file is
written beside it by the verb ``export``, which compares its decisions with the checkpoint's.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = ["Model", "Unreadable", "find_files", "join_tiles", "judge", "main", "open_model", "place", "prepare"]
__all__ += ["read_pixels", "tensors"]

PREFIX = "lightning_transfer."
BATCH = 32
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, NotImplementedError,
    struct.error, zlib.error,
)  # fmt: skip


class Unreadable(ValueError):
    """A file that is no picture the model can judge; the message says why."""


class Model:
    """An exported model, and what it says of pictures.

    Args:
        path: Of ``model.onnx``, or of its int8 sibling.
        threads: Of onnxruntime; 0 takes all cores.
        max_false_reject_rate: Decide by the threshold of another rate that was fitted; None takes the chosen one.

    Attributes:
        facts: What the export wrote into the file.
    """

    def __init__(self, path: str | Path, threads: int = 0, max_false_reject_rate: float | None = None) -> None:
        self.session, self.facts = open_model(path, threads)
        if max_false_reject_rate is not None:
            self.facts["threshold"] = _threshold_at(self.facts["threshold_points"], max_false_reject_rate)
        self._input = self.session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return logits ``(N, L)`` of prepared images ``(N, C, H, W)``."""
        logits: np.ndarray = self.session.run(["logits"], {self._input: images})[0]
        return logits

    def tensors(self, path: str | Path) -> np.ndarray:
        """Return the tiles of one picture, prepared; one where there are no tiles."""
        return tensors(path, self.facts["preprocessing"])

    def logits(self, path: str | Path) -> np.ndarray:
        """Return the logits ``(L,)`` of one picture, before temperature; its tiles are joined."""
        images = self.tensors(path)
        parts = [self.run(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        return join_tiles(np.concatenate(parts), self.facts)

    def predict(self, path: str | Path) -> dict[str, Any]:
        """Return one row of the table."""
        classes = self.facts["classes"]
        try:
            probabilities, score, decision = judge(self.logits(path), self.facts)
            reason = "the logits are not finite" if probabilities[0] is None else ""
        except Unreadable as error:
            probabilities, score, decision, reason = [None] * len(classes), None, "unreadable", str(error)
        shares = {f"probability_{name}": share for name, share in zip(classes, probabilities, strict=True)}
        threshold = self.facts["threshold"]
        return {"path": str(path), **shares, "score": score, "threshold": threshold, "decision": decision,
                "reason": reason}  # fmt: skip


def open_model(path: str | Path, threads: int = 0) -> tuple[Any, dict[str, Any]]:
    """Return the session of an exported model, and what the export wrote into the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # On the CPU, in float32, as compared with the checkpoint.
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    stored = session.get_modelmeta().custom_metadata_map
    facts = {key.removeprefix(PREFIX): json.loads(value) for key, value in stored.items() if key.startswith(PREFIX)}
    if "preprocessing" not in facts:
        raise ValueError(f"`{path}` was not written by the verb `export`: it does not say how its inputs are prepared.")
    return session, facts


# From a file to the network's input, as lightning_transfer/data/image_files.py and images.py.


def tensors(path: str | Path, spec: Mapping[str, Any]) -> np.ndarray:
    """Return a picture as ``(tiles, channels, height, width)`` float32; one tile where none are asked for."""
    pixels = read_pixels(path, spec["max_megapixels"])
    if spec["bit_depth"] is not None and pixels.dtype == np.uint16:
        top = 2 ** spec["bit_depth"] - 1
        if pixels.max() > top:
            raise Unreadable(f"a value of {pixels.max()} needs more than {spec['bit_depth']} bits")
        pixels = pixels.astype(np.float32) / np.float32(top)
    return np.stack([prepare(part, spec) for part in _tiles(pixels, spec["tiling"])])


def read_pixels(path: str | Path, max_megapixels: float) -> np.ndarray:
    """Decode a picture, upright, as ``(H, W, C)`` of uint8, uint16 or float32 in ``[0, 1]``."""
    from PIL import Image, ImageOps

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, int(max_megapixels * 1e6)
    try:
        if Path(path).stat().st_size == 0:
            raise Unreadable("the file is empty")
        with Image.open(path) as image:
            width, height = image.size
            if width * height > max_megapixels * 1e6:
                raise Unreadable(f"{width} x {height} pixels, and the limit is {max_megapixels:g} megapixels")
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise Unreadable(f"it holds {frames} frames; save the wanted one as a still image")
            return _decode(ImageOps.exif_transpose(image))
    except Unreadable:
        raise
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _decode(image: Any) -> np.ndarray:  # noqa: ANN401 - PIL.Image.Image, imported on use
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode in ("I", "F"):
        values, top = np.asarray(image), 65535 if image.mode == "I" else 1
        if not (values.min() >= 0 and values.max() <= top):
            raise Unreadable(f"values from {values.min():g} to {values.max():g}; expected 0 to {top}")
        return values.astype(np.uint16 if image.mode == "I" else np.float32)[..., None]
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        return pixels[..., [0, 3]] if grey else pixels
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _tiles(pixels: np.ndarray, tiling: Mapping[str, Any] | None) -> Iterator[np.ndarray]:
    if tiling is None:
        yield pixels
        return
    height, width = tiling["size"]
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise Unreadable(f"{pixels.shape[0]} x {pixels.shape[1]} pixels, and a tile has {height} x {width}")
    for top in _starts(pixels.shape[0], height, tiling["overlap"]):
        for left in _starts(pixels.shape[1], width, tiling["overlap"]):
            yield pixels[top : top + height, left : left + width]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    rest = length - tile
    gaps = math.ceil(rest / (tile - overlap))
    return [rest * place // gaps for place in range(gaps + 1)] if gaps else [0]


def prepare(pixels: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """Return decoded pixels ``(H, W, C)`` as the network takes them, ``(channels, height, width)`` float32."""
    return place(_channels(pixels, spec["channels"], np.asarray(spec["mean"], dtype=np.float32)), spec)


def place(pixels: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """Return pixels that have the network's channels, resized, padded and normalised."""
    mean, std = np.asarray(spec["mean"], dtype=np.float32), np.asarray(spec["std"], dtype=np.float32)
    (height, width), (old_height, old_width) = spec["size"], pixels.shape[:2]
    new_height, new_width = height, width
    if spec["pad"] != "none":
        scale = min(height / old_height, width / old_width)
        new_height, new_width = max(1, round(old_height * scale)), max(1, round(old_width * scale))
    if (new_height, new_width) != (old_height, old_width):
        pixels = _resize(pixels, new_height, new_width, spec["interpolation"])
    top, left = (height - new_height) // 2, (width - new_width) // 2
    if spec["pad"] == "reflect":
        margins = ((top, height - top - new_height), (left, width - left - new_width), (0, 0))
        frame = np.pad(_unit(pixels), margins, mode="symmetric")
    else:
        frame = np.empty((height, width, spec["channels"]), dtype=np.float32)
        frame[:] = mean
        frame[top : top + new_height, left : left + new_width] = _unit(pixels)
    return np.ascontiguousarray(((frame - mean) / std).transpose(2, 0, 1))


def _channels(pixels: np.ndarray, channels: int, mean: np.ndarray) -> np.ndarray:
    alpha = None
    if pixels.shape[2] in (2, 4):
        unit = _unit(pixels)
        pixels, alpha = unit[..., :-1], unit[..., -1:]
    if pixels.shape[2] < channels:
        pixels = np.repeat(pixels, 3, axis=2)
    elif pixels.shape[2] > channels:
        pixels = (_unit(pixels) @ np.asarray([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    return pixels if alpha is None else np.asarray(pixels * alpha + mean * (1 - alpha))


def _unit(pixels: np.ndarray) -> np.ndarray:
    if np.issubdtype(pixels.dtype, np.integer):
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    return pixels.astype(np.float32, copy=False)


def _resize(pixels: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    from PIL import Image

    resample = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).resize((width, height), resample))
    planes = pixels if pixels.dtype == np.uint8 else _unit(pixels)
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(planes[..., c])).resize((width, height), resample))
        for c in range(planes.shape[2])
    ]
    stacked = np.stack(resized, axis=2)
    return stacked if stacked.dtype == np.uint8 else np.clip(stacked, 0.0, 1.0)


# From logits to a decision, as lightning_transfer/evaluation/tiles.py and scores.py.


def join_tiles(logits: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """Return the logits ``(L,)`` of one picture from those of its tiles ``(T, L)``."""
    tiling = facts["preprocessing"].get("tiling")
    if tiling is None:
        return np.asarray(logits[0])
    values = logits.astype(np.float64)
    count = len(values) if tiling["top_k"] is None else min(tiling["top_k"], len(values))
    if facts["task"] != "multiclass":
        best = -np.sort(-values, axis=0)[:count]
        yes, no = -np.logaddexp(0.0, -best), -np.logaddexp(0.0, best)
        return np.asarray(np.logaddexp.reduce(yes, axis=0) - np.logaddexp.reduce(no, axis=0), dtype=np.float32)
    logs = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
    if count < len(values):
        negative = facts["classes"].index(facts["negative_class"])
        score = np.logaddexp.reduce(np.delete(logs, negative, axis=1), axis=1) - logs[:, negative]
        logs = logs[np.argsort(-score, kind="stable")[:count]]
    joined = np.logaddexp.reduce(logs, axis=0)
    return np.asarray(joined - np.logaddexp.reduce(joined), dtype=np.float32)


def judge(logits: np.ndarray, facts: Mapping[str, Any]) -> tuple[list[Any], float | None, str]:
    """Return the probability of each class, the score and the decision for the logits ``(L,)`` of one picture."""
    classes, negative, threshold = facts["classes"], facts["negative_class"], facts["threshold"]
    if not np.isfinite(logits).all():
        return [None] * len(classes), None, "undefined"
    values = logits.astype(np.float64)
    scaled = values / facts["temperature"]
    if facts["task"] == "multilabel":
        shares = np.exp(-np.logaddexp(0.0, -scaled))
        cuts = facts.get("label_thresholds")
        reached = shares >= np.asarray(cuts) if cuts else values >= 0
        return shares.tolist(), None, "|".join(name for name, yes in zip(classes, reached, strict=True) if yes)
    if facts["task"] == "binary":
        best = int(values[0] >= 0)
        logs = np.array([-np.logaddexp(0.0, scaled[0]), -np.logaddexp(0.0, -scaled[0])])
    else:
        best = int(values.argmax())
        shifted = scaled - scaled.max()
        logs = shifted - np.log(np.exp(shifted).sum())
    if negative is None:
        return np.exp(logs).tolist(), None, classes[best]
    place = classes.index(negative)
    others = np.delete(logs, place)
    score = float(np.exp(np.logaddexp.reduce(others)))
    if threshold is not None:
        rest = [name for name in classes if name != negative]
        return np.exp(logs).tolist(), score, rest[int(others.argmax())] if score >= threshold else negative
    return np.exp(logs).tolist(), score, classes[best]


def _threshold_at(points: Sequence[Mapping[str, Any]], rate: float) -> float:
    for point in points:
        if abs(point["max_false_reject_rate"] - rate) < 1e-9:
            return float(point["threshold"])
    fitted = ", ".join(f"{point['max_false_reject_rate']:g}" for point in points) or "none"
    raise ValueError(f"no threshold was fitted for the false-reject rate {rate:g}; fitted: {fitted}")


# The command line.


def find_files(
    paths: Sequence[str], wanted: Callable[[Path], bool] = lambda path: path.suffix.lower() in SUFFIXES
) -> Iterator[Path]:
    """Yield files as they are, and the images below folders in the order of their paths."""
    for path in map(Path, paths):
        if path.is_dir():
            found = (item for item in path.rglob("*") if item.is_file() and wanted(item))
            yield from sorted(
                item for item in found if not any(p.startswith(".") for p in item.relative_to(path).parts)
            )
        else:
            yield path


def _cell(value: object) -> object:
    """Return a cell that no spreadsheet runs as a formula."""
    if value is None or isinstance(value, float):
        return "" if value is None else value
    text = str(value)
    starts = ("=", "+", "-", "@", "\t", "\r", "\n")
    if text.startswith(starts) or text.lstrip().startswith(starts[:4]):
        return text if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) else f"'{text}"
    return text


def _write(stream: IO[str], model: Model, files: Sequence[Any]) -> int:
    """Write a row for each file; return how many could not be judged."""
    bad = 0
    # All cells in quotes: a bare carriage return in a file's name would begin a new row.
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for number, file in enumerate(files):
        row = model.predict(file)
        if not number:
            writer.writerow([_cell(name) for name in row])
        writer.writerow([_cell(value) for value in row.values()])
        bad += bool(row["reason"])
    return bad


def main(
    words: Sequence[str] | None = None,
    model_class: type[Model] = Model,
    find: Callable[[Sequence[str]], Iterator[Any]] = find_files,
    script: str = __file__,
) -> int:
    """Run the command line; return 0, or 1 where a file could not be judged (its row says why)."""
    parser = argparse.ArgumentParser(description="Predict with an exported model; a CSV row for each image.")
    parser.add_argument("paths", nargs="+", help="images, and folders of images")
    parser.add_argument("--model", default=str(Path(script).with_name("model.onnx")), help="default: beside this file")
    parser.add_argument("--output", help="a new CSV file; default: standard output")
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--max_false_reject_rate", type=float, help="decide by the threshold of another fitted rate")
    given = parser.parse_args(words)
    files = list(find(given.paths))
    if not files:
        parser.error(f"no images in {', '.join(given.paths)}")
    try:
        model = model_class(given.model, given.threads, given.max_false_reject_rate)
    except Exception as error:  # onnxruntime raises classes of its own
        parser.error(f"cannot use the model `{given.model}`: {error}")
    if given.output is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
        bad = _write(sys.stdout, model, files)
    else:
        try:
            with open(given.output, "x", encoding="utf-8", errors="backslashreplace", newline="") as stream:
                bad = _write(stream, model, files)
        except FileExistsError:
            parser.error(f"`{given.output}` exists and is not written over")
    if bad:
        print(f"{bad} of {len(files)} files could not be judged: see the column `reason`.", file=sys.stderr)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
