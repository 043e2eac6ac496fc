"""Every error as a message: the key's path, the value, what was expected, the closest match. No torch."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_transfer.errors import TransferError, closest, listing

if TYPE_CHECKING:
    from lightning_transfer.cli.recipe import Recipe

__all__ = ["UsageError", "explain", "explain_instantiation", "report"]


class UsageError(TransferError):
    """A command line or a config that cannot be used; the message says what to change."""


def report(error: Exception, recipe: Recipe, *, debug: bool = False) -> int:
    """Print an error as a message, or with its trace, and return the exit code.

    Returns:
        2 for what the user can mend in the command, the config or the data, else 1.
    """
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, ArgumentError):
        message, code = explain(error.message), 2
    elif isinstance(error, TransferError) or _is_misconfiguration(error):
        message, code = str(error), 2
    elif isinstance(error, FileNotFoundError | PermissionError | FileExistsError) and error.filename:
        message, code = f"{error.strerror}: `{error.filename}`.", 2
    else:
        message, code = f"{type(error).__name__}: {error}", 1
        if not debug:
            message += "\nRun again with --debug to see where."
    print(f"Error: {message}", file=sys.stderr)
    return code


def _is_misconfiguration(error: Exception) -> bool:
    """Tell Lightning's exception by name: both packages have one, and neither is imported for this."""
    return any(base.__name__ == "MisconfigurationException" for base in type(error).__mro__)


def explain(message: str, known: Mapping[str, Any] | None = None) -> str:
    """Turn a message of the parser into one that says where, what, what was expected, and what was near.

    Args:
        message: Message of an ``ArgumentError`` of jsonargparse.
        known: Dotted keys that the parser accepts, with their defaults.

    Returns:
        Our message; the parser's own where its form is not known here.

    Example:
        >>> explain("Group 'model' does not accept option 'bakbone'", {"model.backbone": None})
        'Unknown key `model.bakbone`. Did you mean `model.backbone`?'
    """
    keys = list(known or ())
    for rule in (_unrecognised, _required, _linked, _unknown_key, _value):
        found = rule(message.strip(), keys)
        if found:
            return found
    return message.strip()


def explain_instantiation(error: Exception) -> str:
    r"""Return what a constructor said, without the parser's account of all the types it also tried.

    Example:
        >>> text = "Does not validate against any of the Union subtypes\nErrors:\n  - Unknown `schedule` 'x'.\n  - Not"
        >>> explain_instantiation(ValueError(text))
        "Unknown `schedule` 'x'."
    """
    message = str(error)
    found = re.search(r"Errors:\n\s*- (?P<first>.*?)(?=\n\s*- |\Z)", message, re.DOTALL)
    return found["first"].strip() if "Union subtypes" in message and found else message


def _unrecognised(message: str, keys: list[str]) -> str:
    """Explain a word of the command line that no option takes."""
    match = re.match(r"unrecognized arguments: (.*)", message, re.DOTALL | re.IGNORECASE)
    if not match:
        return ""
    word = match[1].split()[0]
    if not word.startswith("-"):
        return f"Unexpected word `{word}`. Options look like `--model.backbone VALUE`."
    name = word.lstrip("-").partition("=")[0]
    return f"Unknown option `--{name}`.{_near(name, keys, '--')}"


def _required(message: str, keys: list[str]) -> str:
    match = re.match(r"the following arguments are required: (.*)", message, re.IGNORECASE)
    if not match:
        return ""
    names = [name.strip() for name in match[1].split(",")]
    shown = " and ".join(f"`{name}`" for name in names)
    return f"Missing {shown}. Set it in the config, or on the command line: `--{names[0]} VALUE`."


def _linked(message: str, keys: list[str]) -> str:
    """Explain an option that another one sets."""
    match = re.search(r"Linked \"(?P<key>[^\"]+)\" must be given via \"(?P<source>[^\"]+)\"", message)
    if not match:
        return ""
    return f"`{match['key']}` is set by `{match['source']}`: write `--{match['source']} VALUE`."


def _unknown_key(message: str, keys: list[str]) -> str:
    """Explain a key of a config that nothing takes, outside of any class path."""
    match = re.match(r"(?:Group '(?P<group>[^']+)' does not accept|) ?[Oo]ption '(?P<name>[^']+)'", message)
    if not match:
        return ""
    name = match["name"] if not match["group"] else f"{match['group']}.{match['name']}"
    return f"Unknown key `{name}`.{_near(name, keys)}"


def _value(message: str, keys: list[str]) -> str:
    """Explain a value that does not fit its key, or a class path within it."""
    match = re.match(r"Parser key \"(?P<key>[^\"]+)\":\s*(?P<inner>.*)", message, re.DOTALL)
    if not match:
        return ""
    key, inner = match["key"], match["inner"]
    dotless = re.search(r"Expected a dot import path string: (\w+)\s*$", inner)
    if dotless and "Subtypes" not in inner:
        return f"No class `{dotless[1]}` for `{key}`.{closest(dotless[1], _classes(key))} Give its `class_path`."
    return (
        _class_path(key, inner)
        or _mismatch(key, inner)
        or f"Wrong value of `{key}`: {' '.join(line.strip() for line in inner.splitlines()[:3])}"
    )


_PROBLEM = re.compile(r"Problem with given class_path '(?P<path>[^']+)':\s*(?P<inner>.*)", re.DOTALL)
_CALLABLE = re.compile(
    r"expects a function or a callable class: (?P<inner>.*)\. Got value: "
    r"(?:Namespace\(class_path='(?P<path>[^']+)'|(?P<value>.*))",
    re.DOTALL,
)


def _class_path(key: str, inner: str) -> str:
    match = _CALLABLE.search(inner) or _PROBLEM.search(inner)
    if not match:
        return ""
    path = match["path"] or match["value"].strip()
    reason = match["inner"].strip()
    name = path.rpartition(".")[2]
    missing = re.match(r"module '(?P<module>[^']+)' has no attribute '(?P<name>[^']+)'", reason)
    if missing:
        place = sys.modules.get(missing["module"])
        exist = [item for item in dir(place) if item[0].isupper()] if place else []
        return f"No class `{missing['name']}` in `{missing['module']}`, asked for by `{key}`." + closest(
            missing["name"], exist
        )
    absent = re.match(r"No module named '([^']+)'", reason)
    if absent:
        return f"No module `{absent[1]}` for the class path `{path}` of `{key}`.{closest(absent[1], _roots())}"
    option = re.match(r"(?:Group '[^']+' does not accept |)[Oo]ption '(?P<name>[^']+)'", reason)
    if option:
        accepted = _parameters(path)
        hint = closest(option["name"], accepted) or f" It takes: {listing(accepted, 20)}."
        return f"`{name}` in `{key}` does not take `{option['name']}`.{hint}"
    deeper = _value(reason, []) if reason.startswith("Parser key") else ""
    if deeper:
        return f"In `{key}`, {name}: {deeper}"
    if "." not in path:
        return f"No class `{path}` for `{key}`.{closest(path, _classes(key))} Give its `class_path`, dots included."
    lines = [line.strip() for line in reason.splitlines()]
    return f"Cannot use `{path}` for `{key}`: {lines[0]}"


_TYPE = re.compile(r"<class '([^']+)'>")


def _mismatch(key: str, inner: str) -> str:
    """Explain a value of the wrong type."""
    union = re.search(r"Subtypes: \[(?P<types>.*?)\]\n.*Given value: (?P<value>[^\n]*)", inner, re.DOTALL)
    single = re.search(
        r"(?:Expected an? (?P<type>.*?)\.? (?:Got value|but got)|types? (?P<other>typing\.\S+).*?Got value): "
        r"(?P<value>[^\n]*)",
        inner,
        re.DOTALL,
    )
    if union:
        types, value = union["types"], union["value"]
    elif single:
        types, value = single["type"] or single["other"], single["value"]
    else:
        return ""
    value = value.strip().partition(". Got value:")[0]
    if "Callable[" in types or re.search(r"callbacks?\.Callback|loggers?\.Logger", types):
        hint = closest(value, _classes(key))
        return f"No class `{_short(value)}` for `{key}`.{hint} Give its `class_path`, dots included."
    choices = re.findall(r"'([^']*)'", " ".join(re.findall(r"Literal\[([^\]]*)\]?", types)))
    return f"Expected `{key}` to be {_plain_types(types)}, got `{_short(value)}`.{closest(value, choices)}"


def _plain_types(types: str) -> str:
    """Write Python's types as a user of YAML would.

    Example:
        >>> _plain_types("<class 'int'>, <class 'NoneType'>")
        'int or null'
    """
    plain = _TYPE.sub(lambda match: match[1].rpartition(".")[2], types)
    plain = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", plain)
    literal = re.compile(r"Literal\[([^\]]*)\]?")
    plain = literal.sub(lambda match: f"one of {match[1]}", plain)
    for python, word in (("NoneType", "null"), ("None", "null"), ("bool", "true/false"), ("str", "text")):
        plain = re.sub(rf"\b{python}\b", word, plain)
    if "[" not in plain and "one of" not in plain:
        plain = " or ".join(part.strip() for part in plain.split(","))
    return plain


def _near(name: str, keys: list[str], prefix: str = "") -> str:
    """Name the accepted key that is nearest; if none is, what its section holds."""
    section, _, last = name.rpartition(".")
    inside = sorted(
        {key.removeprefix(f"{section}.").partition(".")[0] for key in keys if key.startswith(f"{section}.")}
    )
    if section and inside:
        # Compared without the section, which would make any two keys of it look alike.
        hint = closest(last, inside)
        return hint.replace("`", f"`{prefix}{section}.", 1) or f" `{section}` takes: {listing(inside, 20)}."
    tops = sorted({key.partition(".")[0] for key in keys})
    hint = closest(name, keys) or closest(name.partition(".")[0], tops)
    if hint:
        return hint.replace("`", f"`{prefix}", 1)
    return f" Sections: {listing(tops, 20)}." if tops else ""


def _parameters(path: str) -> list[str]:
    """List what a class takes, its bases' arguments included, for the hint only."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    names: dict[str, None] = {}
    for base in inspect.getmro(found) if inspect.isclass(found) else (found,):
        function = base.__dict__.get("__init__") if inspect.isclass(base) else base
        if function is None or base is object:
            continue
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and parameter.name != "self":
                names.setdefault(parameter.name)
    return list(names)


_HOMES = {
    "callbacks": ("lightning.pytorch.callbacks", "lightning_transfer.callbacks"),
    "optimizer": ("torch.optim",),
    "scheduler": ("torch.optim.lr_scheduler",),
    "logger": ("lightning.pytorch.loggers",),
}


def _classes(key: str) -> list[str]:
    """List the classes that a key is most often given; only of modules that are imported already."""
    homes = next((homes for word, homes in _HOMES.items() if word in key), ())
    modules = [sys.modules[home] for home in homes if home in sys.modules]
    return [name for module in modules for name in dir(module) if name[0].isupper()]


def _roots() -> Iterable[str]:
    """List the packages that are imported already: what a class path most often begins with."""
    return sorted({name.partition(".")[0] for name in sys.modules if not name.startswith("_")})


def _short(value: str, limit: int = 80) -> str:
    flat = " ".join(value.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
