"""Write a script of this package beside a model, with the few files that it needs, so that it runs without us."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import lightning_transfer

__all__ = ["PARTS", "SCAN_PARTS", "SPEECH_PARTS", "needed_files", "write_script"]

PARTS, SPEECH_PARTS, SCAN_PARTS = "text_parts", "speech_parts", "scan_parts"
"""Folders beside the scripts of texts, of speech and of medical images."""

_ROOT = Path(lightning_transfer.__file__).parent
_PACKAGE = _ROOT.name
_IMPORT = re.compile(rf"^(\s*)from {_PACKAGE}(?:\.\w+)*\.(\w+) import ", re.MULTILINE)


def needed_files(script: Path) -> list[Path]:
    """Return the files of this package that a file imports, and those that they import, in order of their names.

    What stands under ``if TYPE_CHECKING`` is not followed: it is not imported when the script runs.

    Raises:
        ValueError: If one imports a whole package, whose other files would come along, or two have the same name.

    Example:
        >>> from lightning_transfer.data import texts_clean
        >>> [file.name for file in needed_files(Path(texts_clean.__file__))]
        ['errors.py', 'texts_private.py', 'texts_replies.py']
    """
    found: dict[str, Path] = {}
    waiting = [script]
    while waiting:
        file = waiting.pop()
        for module in _imports(ast.parse(file.read_text(encoding="utf-8"))):
            path = _ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
            if not path.is_file():
                raise ValueError(f"`{file.name}` imports `{module}`, which is no single file. Import from the file.")
            if path.name not in found:
                found[path.name] = path
                waiting.append(path)
            elif found[path.name] != path:
                raise ValueError(f"`{found[path.name]}` and `{path}` have one name, and would lie in one folder.")
    return [found[name] for name in sorted(found)]


def write_script(script: Path, folder: Path, place: str = PARTS) -> None:
    """Write the script into a folder, and what it needs into a folder ``place`` below it.

    Nothing is changed but where they import from.
    """
    parts = folder / place
    parts.mkdir()
    (parts / "__init__.py").write_text(
        f'"""Files of lightning-transfer {lightning_transfer.__version__} that `{script.name}` needs."""\n',
        encoding="utf-8",
    )
    for file in needed_files(script):
        (parts / file.name).write_text(_moved(file, "."), encoding="utf-8")
    (folder / script.name).write_text(_moved(script, f"{place}."), encoding="utf-8")


def _moved(file: Path, place: str) -> str:
    return _IMPORT.sub(rf"\1from {place}\2 import ", file.read_text(encoding="utf-8"))


def _imports(tree: ast.AST) -> list[str]:
    """Return the modules of this package that are imported when the file runs."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == _PACKAGE:
            found.append(str(node.module))
        elif isinstance(node, ast.Import):
            found += [item.name for item in node.names if item.name.partition(".")[0] == _PACKAGE]
        found += _imports(node)
    return found
