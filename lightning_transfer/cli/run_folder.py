"""A run's folder: made once, never overwritten, every file in it written whole or not at all. No torch."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "RUN_DIR_VARIABLE",
    "atomic",
    "create",
    "environment",
    "new_folder",
    "remove_empty",
    "write_json",
    "write_text",
]

# Processes that Lightning starts for further devices find the folder of the first one here.
RUN_DIR_VARIABLE = "LT_RUN_DIR"

_PACKAGES = (
    "lightning",
    "torch",
    "torchvision",
    "torchmetrics",
    "timm",
    "transformers",
    "jsonargparse",
    "numpy",
    "scikit-learn",
    "safetensors",
)
_SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)


def create(root: str | Path, recipe: str, name: str, now: datetime | None = None) -> Path:
    """Make ``root/recipe/name-time``; with a number behind it when another run has that name already.

    Example:
        >>> with tempfile.TemporaryDirectory() as root:
        ...     first = create(root, "vision", "demo", datetime(2030, 1, 2, 3, 4, 5))
        ...     second = create(root, "vision", "demo", datetime(2030, 1, 2, 3, 4, 5))
        >>> first.name, second.name
        ('demo-20300102-030405', 'demo-20300102-030405-2')
    """
    stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    safe = re.sub(r"[^\w.+-]+", "_", name).strip("._") or "run"
    return new_folder(Path(root) / recipe / f"{safe}-{stamp}")


def new_folder(wanted: Path) -> Path:
    """Make a folder that did not exist: ``wanted``, or ``wanted-2`` and so on.

    ``mkdir`` decides, not a look beforehand, so that two processes never share one.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def remove_empty(*folders: Path) -> None:
    """Remove the folders that hold nothing: a command that failed before it wrote anything leaves none behind."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file beside ``path``, then put it in place in one step; after a failure nothing is left."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes files that only the owner reads; a result is an ordinary file.
        mask = os.umask(0)
        os.umask(mask)
        part.chmod(0o666 & ~mask)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    atomic(path, lambda part: _ignore(part.write_text(text, encoding="utf-8")))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all; numbers that JSON lacks (NaN, infinity) become null."""
    write_text(path, json.dumps(_json(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def environment(command: Sequence[str], device: str = "") -> dict[str, Any]:
    """Describe where a run happened: versions, device, command, git revision. No environment variables, no names.

    Example:
        >>> environment(["fit", "--trainer.logger.init_args.api_key", "abc"])["command"]
        'fit --trainer.logger.init_args.api_key ***'
    """
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(_masked(command)),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "device": device,
        "versions": _versions(),
        "git_revision": _git_revision(Path.cwd()),
    }


def _versions() -> dict[str, str]:
    from lightning_transfer import __version__

    found = {"lightning-transfer": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _masked(words: Sequence[str]) -> list[str]:
    """Replace the values of options that look like secrets."""
    masked: list[str] = []
    hide_next = False
    for word in words:
        name, has_value, _ = word.partition("=")
        secret = word.startswith("-") and _SECRET.search(name) is not None
        if hide_next and not word.startswith("-"):
            masked.append("***")
        elif secret and has_value:
            masked.append(f"{name}=***")
        else:
            masked.append(word)
        hide_next = secret and not has_value
    return masked


def _git_revision(start: Path) -> str | None:
    """Read the revision of the checkout that ``start`` lies in, without starting a process."""
    for folder in (start, *start.parents):
        git = folder / ".git"
        if not git.is_dir():
            continue
        try:
            head = (git / "HEAD").read_text(encoding="utf-8").strip()
            if not head.startswith("ref: "):
                return head
            name = head.removeprefix("ref: ")
            loose = git / name
            if loose.is_file():
                return loose.read_text(encoding="utf-8").strip()
            for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
                if line.endswith(f" {name}"):
                    return line.split()[0]
        except OSError:
            return None
        return None
    return None


def _json(value: Any) -> Any:  # noqa: ANN401 - any tree of plain values
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _ignore(_: object) -> None:
    """Drop a result that nobody needs."""
