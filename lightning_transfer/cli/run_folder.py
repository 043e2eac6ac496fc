"""A run's folder: made once, never overwritten. No torch."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "RUN_DIR_VARIABLE",
    "create",
    "environment",
    "new_folder",
    "remove_empty",
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
        >>> import tempfile
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
