"""Find files under a root, and nothing outside it."""

from __future__ import annotations

from pathlib import Path

from lightning_transfer.errors import DataError, closest, listing

__all__ = ["check_folder", "resolve_inside"]


def check_folder(root: str | Path) -> Path:
    """Return the folder with links resolved, or say what exists where it was looked for.

    Args:
        root: Folder that holds the data.

    Raises:
        DataError: If it does not exist or is a file.

    Example:
        >>> check_folder(".") == Path.cwd().resolve()
        True
    """
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise DataError(f"The root `{folder}` is a file. Give the folder that holds the data.")
    parent = folder.parent
    if not parent.is_dir():
        raise DataError(f"The root `{folder}` does not exist, and neither does `{parent}`. Check the path.")
    names = sorted(item.name for item in parent.iterdir() if item.is_dir())
    raise DataError(
        f"The root `{folder}` does not exist.{closest(folder.name, names)}"
        f" Folders in `{parent}`: {listing(names) or 'none'}."
    )


def resolve_inside(root: Path, path: str, where: str) -> Path:
    """Resolve a path against a root and refuse one that leaves it, through ``..``, a link or an absolute path.

    Args:
        root: Folder with its links resolved, as `check_folder` returns it.
        path: As written in a table.
        where: What the message begins with, such as ``manifest.csv, row 3``.

    Returns:
        The path below the root, links resolved; the file need not exist.

    Raises:
        DataError: If the path leaves the root or no file can have such a name.
    """
    try:
        full = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: `{path}` is not a usable path ({error}). Correct it.") from error
    if not full.is_relative_to(root):
        raise DataError(
            f"{where}: `{path}` leaves the root `{root}`; it leads to `{full}`."
            " Put the file under the root, or name a root that holds them all."
        )
    return full
