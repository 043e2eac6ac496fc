"""Order layers by what somebody declared: the user, the model itself, or timm."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from torch import nn
from torch.nn import Parameter

from lightning_transfer.depth.structure import Order
from lightning_transfer.depth.tree import Node
from lightning_transfer.errors import listing

__all__ = ["by_matcher", "by_method", "by_regexes", "matches"]

# timm's mark for "joins the group before", and for "not matched".
_PREVIOUS = 99999
_UNMATCHED = (float("inf"),)


def _common_name(paths: Sequence[str], fallback: str) -> str:
    """Name a group by the module that most of its parameters share."""
    if not paths:
        return fallback
    first = Counter(path.split(".")[0] for path in paths).most_common(1)[0][0]
    parts = [path.split(".")[:-1] for path in paths if path.split(".")[0] == first]
    common: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common) or fallback


def _known(backbone: Node, new: set[str]) -> list[str]:
    return [path for path, _, _ in backbone.all_parameters() if path not in new]


def matches(backbone: Node, pattern: str, new: set[str]) -> bool:
    """Whether a regular expression matches a parameter of the backbone that is not new."""
    try:
        regex = re.compile(pattern)
    except re.error:
        return False
    return any(regex.match(backbone.relative(path)) for path in _known(backbone, new))


def by_regexes(backbone: Node, patterns: Sequence[str], new: set[str]) -> Order:
    """Order by regular expressions from stem to top, matched at the start of names relative to the backbone.

    Raises:
        ValueError: If a pattern is none, matches nothing, or nothing is given.
    """
    if isinstance(patterns, str) or not patterns:
        raise ValueError(f"Expected `layer_groups` to be a list of regular expressions, got {patterns!r}.")
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(f"`layer_groups` holds {pattern!r}, which is no regular expression: {error}.") from None
    groups: list[list[str]] = [[] for _ in compiled]
    matched: set[int] = set()
    last = 0
    for path in _known(backbone, new):
        relative = backbone.relative(path)
        number = next((i for i, regex in enumerate(compiled) if regex.match(relative)), None)
        if number is not None:
            last = number
            matched.add(number)
        groups[last].append(path)
    for number, regex in enumerate(compiled):
        if number not in matched:
            raise ValueError(_unmatched(backbone, regex, new))
    relative_paths = [[backbone.relative(path) for path in paths] for paths in groups]
    named = [
        (_common_name([path for path in paths if regex.match(path)], regex.pattern), group)
        for regex, paths, group in zip(compiled, relative_paths, groups, strict=True)
    ]
    return Order(named, [(name, list(paths)) for name, paths in named])


def _unmatched(backbone: Node, regex: re.Pattern[str], new: set[str]) -> str:
    names = [backbone.relative(path) for path, _, _ in backbone.all_parameters() if path in new]
    if any(regex.match(name) for name in names):
        return (
            f"`{regex.pattern}` matches parameters of the head alone, which is always open and no group. Leave it out "
            "of `layer_groups`."
        )
    if matches(backbone, regex.pattern, new):
        return f"All that `{regex.pattern}` matches is matched by an earlier pattern. Check `layer_groups`."
    children = listing((f"`{backbone.relative(child.path)}`" for child in backbone.children), limit=12)
    where = f"the backbone `{backbone.name}`" if backbone.name else "the backbone, which is the module itself"
    return (
        f"No parameter matches `{regex.pattern}`. Names are relative to {where}; its children are: {children}. "
        "Check `layer_groups`."
    )


def by_method(backbone: Node, owner: Node, new: set[str]) -> Order:
    """Order by the model's own ``layer_groups()``.

    It returns, from stem to top, regular expressions, modules, lists of modules or parameters, or a mapping from
    names to any of those.

    Raises:
        TypeError: If it returns something else.
    """
    answer = owner.module.layer_groups()  # type: ignore[operator]
    names: list[str] = []
    if isinstance(answer, Mapping):
        names, answer = [str(key) for key in answer], answer.values()
    items = list(answer)
    kind = type(owner.module).__name__
    if not items:
        raise TypeError(f"{kind}.layer_groups() returned {answer!r}, which is empty. Return at least one group.")
    if all(isinstance(item, str) for item in items):
        found = [paths for _, paths in by_regexes(owner, items, new).groups]
        owners = {path: number for number, paths in enumerate(found) for path in paths}
    else:
        number_of: dict[int, int] = {}
        present = {id(value) for _, _, value in backbone.all_parameters()}
        for number, item in enumerate(items):
            for value in _parameters_of(item, kind):
                if id(value) not in present:
                    raise TypeError(
                        f"{kind}.layer_groups() returned in group {number} a parameter of shape {tuple(value.shape)} "
                        "that is not in the model. Return the model's own modules or parameters."
                    )
                number_of.setdefault(id(value), number)
        owners = {path: number_of[id(value)] for path, _, value in backbone.all_parameters() if id(value) in number_of}
    groups: list[list[str]] = [[] for _ in items]
    last = 0
    for path in _known(backbone, new):
        last = owners.get(path, last)
        groups[last].append(path)
    labelled: list[tuple[str, list[str]]] = []
    for number, paths in enumerate(groups):
        if paths:
            own = [owner.relative(path) for path in paths if path in owners]
            labelled.append((names[number] if names else _common_name(own, f"group{number}"), paths))
    return Order(labelled, [(name, list(paths)) for name, paths in labelled])


def _parameters_of(item: Any, owner: str) -> Iterable[Parameter]:  # noqa: ANN401 - whatever a user's method returns
    if isinstance(item, nn.Module):
        return item.parameters()
    if isinstance(item, Parameter):
        return (item,)
    if isinstance(item, Iterable) and not isinstance(item, str):
        return chain.from_iterable(_parameters_of(part, owner) for part in item)
    raise TypeError(
        f"{owner}.layer_groups() returned {item!r}. Return a list, from stem to top, of modules, of lists of modules "
        "or parameters, or of regular expressions only."
    )


def by_matcher(backbone: Node, new: set[str]) -> Order:
    """Order by timm's ``group_matcher``; what it does not match and is not new joins the layer before."""
    matcher: Any = backbone.module.group_matcher
    paths = _known(backbone, new)
    return Order(_number(paths, backbone, matcher(coarse=True)), _number(paths, backbone, matcher(coarse=False)))


def _number(paths: Sequence[str], backbone: Node, matcher: Any) -> list[tuple[str, list[str]]]:  # noqa: ANN401 - timm's dict or function
    key_of = _keys(matcher)
    keyed: dict[tuple[float, ...], list[str]] = defaultdict(list)
    labels: dict[tuple[float, ...], list[str]] = defaultdict(list)
    before_blocks = True
    for path in paths:
        key, label = key_of(backbone.relative(path))
        before_blocks = before_blocks and (key == _UNMATCHED or key[0] == 0)
        key = (0.0,) if before_blocks else key
        keyed[key].append(path)
        labels[key].append(label)
    order: list[tuple[str, list[str]]] = []
    for key in sorted(keyed):
        if order and (key[-1] == _PREVIOUS or key == _UNMATCHED):
            order[-1][1].extend(keyed[key])
        elif not order and key[0] == 0:
            order.append(("stem", keyed[key]))
        elif callable(matcher):
            order.append(
                (_common_name([backbone.relative(path) for path in keyed[key]], f"group{len(order)}"), keyed[key])
            )
        else:
            # Most of a stage's parameters are in its blocks, not in what leads to them.
            order.append((Counter(labels[key]).most_common(1)[0][0], keyed[key]))
    return order


def _keys(matcher: Any) -> Callable[[str], tuple[tuple[float, ...], str]]:  # noqa: ANN401 - timm's dict or function
    """Turn timm's description into a sort key and a label for each name; the keys are those of timm's numbering."""
    if callable(matcher):

        def by_function(name: str) -> tuple[tuple[float, ...], str]:
            answer = matcher(name)
            parts = answer if isinstance(answer, Iterable) else (answer,)
            return tuple(float(part) for part in parts), ""

        return by_function
    rules: list[tuple[re.Pattern[str], int, tuple[float, ...] | None]] = []
    for number, spec in enumerate(matcher.values()):
        if spec is None:
            continue
        for pattern, suffix in spec if isinstance(spec, list | tuple) else [(spec, None)]:
            rules.append((re.compile(pattern), number, suffix))

    def by_rules(name: str) -> tuple[tuple[float, ...], str]:
        for regex, number, suffix in rules:
            match = regex.match(name)
            if match:
                found = (float(part) for part in match.groups() if part is not None)
                return (float(number), *found, *(suffix or ())), match.group(0)
        return _UNMATCHED, ""

    return by_rules
