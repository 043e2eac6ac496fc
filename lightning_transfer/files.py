"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["atomic", "write_folder", "write_json", "write_text"]


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, and rename it to ``path`` in one step when the block ends well.

    A reader sees the old file or the new one, never half of one. After an error nothing is left behind; a process
    that is killed leaves a hidden ``.part`` file, and ``path`` untouched.

    Args:
        path: The file to be; missing folders are made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic(Path(folder, "a.txt")) as part:
        ...         _ = part.write_text("whole")
        ...     sorted(item.name for item in Path(folder).iterdir())
        ['a.txt']
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the last step is one rename; with a name of its own, as several nodes may share it.
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_folder(path: str | Path, write: Callable[[Path], None], is_there: Callable[[], bool]) -> None:
    """Write a folder, whole or not at all, unless it is there already.

    Args:
        path: The folder to be; missing parents are made, and an empty folder is replaced.
        write: Called with the path of a folder beside it, which it makes and fills.
        is_there: Tells whether the wanted folder stands at ``path``; raises where something else does.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     target = Path(home, "set")
        ...     write_folder(target, Path.mkdir, target.exists)
        ...     [item.name for item in Path(home).iterdir()]
        ['set']
    """
    if is_there():
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        write(partial)
        try:
            if target.exists():
                target.rmdir()  # empty, as checked; Windows does not rename over a folder
            os.rename(partial, target)
        except OSError:
            # Another process may have finished first; then its folder is as good as ours.
            if not is_there():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all; numbers that JSON lacks (NaN, infinity) become null."""
    write_text(path, json.dumps(_json(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _json(value: Any) -> Any:  # noqa: ANN401 - any tree of plain values
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
