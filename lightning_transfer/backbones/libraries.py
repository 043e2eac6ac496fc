"""The model libraries as optional guests: import them, and explain what goes wrong inside them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from lightning_transfer.errors import BackboneError

__all__ = ["Built", "explain_failures", "explain_torchaudio", "import_library"]

_EXTRAS = {"timm": "vision", "torchvision": "vision", "transformers": "nlp", "huggingface_hub": "nlp", "peft": "nlp"}


class Built(NamedTuple):
    """A network as a library builds it: random weights, no head.

    Attributes:
        module: The network; its output is the pooled features.
        num_features: Width of the pooled features.
        heads: Dotted names of the removed head modules, as the whole network has them; the classifier first, if it
            is one layer.
    """

    module: nn.Module
    num_features: int
    heads: tuple[str, ...] = ()


def import_library(name: str) -> Any:  # noqa: ANN401 - a module without type information
    """Import one of the optional model libraries.

    Args:
        name: ``timm``, ``torchvision.models``, ``transformers``: the dotted name of the module.

    Raises:
        BackboneError: If the library is missing, with the line that installs it, or if its import fails.

    Example:
        >>> import_library("timm").__name__
        'timm'
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        what = "`lora` needs it" if package == "peft" else "this backbone comes from it"
        raise BackboneError(
            f"`{package}` is not installed, and {what}. "
            f"Run `pip install lightning-transfer[{_EXTRAS.get(package, 'all')}]`."
        ) from error


@contextmanager
def explain_torchaudio() -> Iterator[None]:
    """Turn the failed import of a mismatched torchaudio, deep inside transformers, into a message that helps.

    transformers imports torchaudio wherever it is installed, for text models too. A torchaudio that was built for
    another torch or CUDA version raises while it is imported.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        if not _mentions_torchaudio(error):
            raise
        raise BackboneError(
            f"`transformers` could not be imported, because the installed `torchaudio` does not fit this `torch`: "
            f"{_first_line(_root(error))} Text and image models do not need torchaudio: run "
            f"`pip uninstall torchaudio`. For speech, install the torchaudio made for your torch: "
            f"`pip install lightning-transfer[speech] -c constraints.txt`."
        ) from error


@contextmanager
def explain_failures(name: str, cache: str | Path) -> Iterator[None]:
    """Turn whatever a hub raises when weights cannot be had into one message with the way out.

    Args:
        name: The backbone as the user wrote it.
        cache: The folder or file where the library looks before it asks the network.
    """
    place = Path(cache)
    # Asked before: some libraries make the folder before they fail.
    state = "where it is incomplete or unreadable" if place.exists() else "which does not exist"
    failures: tuple[type[Exception], ...] = (
        *_hub_exceptions(),
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
    )
    try:
        yield
    except failures as error:
        if _mentions_torchaudio(error):
            raise
        raise BackboneError(
            f"Cannot get the pretrained weights of `{name}`: {_first_line(error)} "
            f"Looked in the cache `{place}`, {state}, and on the hub. "
            f"Bring the weights file to this machine and pass `--model.weights PATH`, "
            f"or run once with a network to fill the cache."
        ) from error


def _hub_exceptions() -> tuple[type[Exception], ...]:
    """Collect the network errors that are neither ``OSError`` nor ``ValueError``."""
    if find_spec("httpx") is None:
        return ()
    return (import_module("httpx").HTTPError,)


def _chain(error: BaseException) -> list[BaseException]:
    """List an error and what led to it, the first cause last."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _root(error: BaseException) -> BaseException:
    """Return the deepest cause that speaks of torchaudio."""
    return next(item for item in reversed(_chain(error)) if _speaks_of_torchaudio(item))


def _mentions_torchaudio(error: BaseException) -> bool:
    return any(_speaks_of_torchaudio(item) for item in _chain(error))


def _speaks_of_torchaudio(error: BaseException) -> bool:
    """Tell by the message, or by the file the error was raised in: a missing symbol often names no library."""
    if "torchaudio" in str(error).lower():
        return True
    trace = error.__traceback__
    while trace is not None:
        if "torchaudio" in Path(trace.tb_frame.f_code.co_filename).parts:
            return True
        trace = trace.tb_next
    return False


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message, as a sentence."""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if line.endswith((".", "!", "?")) else f"{line}."
