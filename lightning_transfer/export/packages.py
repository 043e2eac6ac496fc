"""The packages of the extra ``export``: imported on use, and named where they are missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from lightning_transfer.errors import TransferError

__all__ = ["ExportError", "check_packages", "import_package"]

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportError(TransferError):
    """A model that cannot be exported, or packages that an export needs and that are missing."""


def import_package(name: str) -> ModuleType:
    """Import a package of the extra, or a module of one.

    Raises:
        ExportError: If it is missing; says how to install it.

    Example:
        >>> import_package("json").loads("[1]")
        [1]
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(
            f"An export to ONNX needs `{name.partition('.')[0]}`, which cannot be imported ({error}). Install the "
            "extra `export`: `pip install 'lightning-transfer[export]'`."
        ) from error


def check_packages() -> None:
    """Import all of them, so that what is missing is said before any work is done.

    Raises:
        ExportError: Names the first that is missing.
    """
    for name in _PACKAGES:
        import_package(name)
