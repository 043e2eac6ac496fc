"""Find the backbone in a module, and the new head, also inside the backbone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from lightning_transfer.depth.tree import Node
from lightning_transfer.errors import closest, listing

__all__ = ["Found", "find_backbones", "find_head", "named_node"]

# In this order a LightningModule's attributes are trusted to be the backbone.
_BACKBONE_NAMES = (
    ("backbone", "encoder", "model"),
    ("feature_extractor", "features", "net", "network", "trunk", "body"),
)
_HEAD_NAMES = ("head", "classifier", "fc", "classification_head", "heads", "predictor", "output_layer")
_NOT_A_BACKBONE = re.compile(r"(^|_)(loss(es)?|criterion|metrics?)(_|$)|(^|_)(ema|teacher)(_|$)")

# transformers classes whose output layer was pretrained with the rest.
_PRETRAINED_OUTPUT = re.compile(
    r"For(MaskedLM|CausalLM|ConditionalGeneration|PreTraining|NextSentencePrediction|MaskedImageModeling)"
    r"|LMHeadModel|WithLMHead|DoubleHeads"
)

# transformers classes (by the start of their name) with a part outside the base model that is pretrained all the same.
_PRETRAINED_BESIDE = {"ModernBert": ("head",)}

# torchvision: attributes that hold the classifier, and the children of those that are sequences of pretrained
# layers before a last new one. Anything else under these names was put there by the user, and is new as a whole.
_TORCHVISION_HEADS = ("fc", "classifier", "heads", "head", "aux_classifier", "AuxLogits.fc", "aux1.fc2", "aux2.fc2")
_TORCHVISION_WEIGHTED = {
    "VGG": (("Linear", 4096), ("Linear", 4096), ("Linear", None)),
    "AlexNet": (("Linear", 4096), ("Linear", 4096), ("Linear", None)),
    "MobileNetV3": (("Linear", None), ("Linear", None)),
    "ConvNeXt": (("LayerNorm2d", None), ("Linear", None)),
    "MaxVit": (("LayerNorm", None), ("Linear", None), ("Linear", None)),
}
_WEIGHT_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Found:
    """Nodes of the head inside a backbone, and what was noticed on the way.

    Attributes:
        head: Subtrees that are new.
        parameters: Paths of single new parameters.
        base: The pretrained part, by which layers are named; the backbone itself if None.
        warnings: For the user.
        decided: False when nothing said where the head is.
    """

    head: list[Node] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    base: Node | None = None
    warnings: list[str] = field(default_factory=list)
    decided: bool = True


def named_node(tree: Node, name: str, argument: str) -> Node:
    """Return the node that a user named.

    Raises:
        ValueError: If there is none.
    """
    node = tree.find(name)
    if node is None:
        known = [below.path for below in tree.walk() if below.path]
        top = listing((f"`{child.path}`" for child in tree.children), limit=12)
        raise ValueError(
            f"No module named `{name}`, given as `{argument}`.{closest(name, known)} Its children are: {top}."
        )
    return node


def is_timm(module: nn.Module) -> bool:
    """Tell a timm model by what it can answer."""
    return callable(getattr(module, "get_classifier", None))


def is_feature_extractor(module: nn.Module) -> bool:
    """Tell what ``timm.create_model(features_only=True)`` returns, which never has a head."""
    return hasattr(module, "feature_info") and not is_timm(module)


def is_transformers(module: nn.Module) -> bool:
    """Tell a transformers model by what it declares."""
    return isinstance(getattr(module, "base_model_prefix", None), str) and hasattr(module, "config")


def is_torchvision(module: nn.Module) -> bool:
    """Tell a whole torchvision model, also a user's subclass of one, from its blocks."""
    ours = any(base.__module__.startswith("torchvision.models.") for base in type(module).__mro__)
    return ours and any(name.split(".")[0] in module._modules for name in _TORCHVISION_HEADS)


def _is_recognised(module: nn.Module) -> bool:
    if callable(getattr(module, "layer_groups", None)) or is_timm(module) or is_feature_extractor(module):
        return True
    return is_transformers(module) or is_torchvision(module)


def _candidates(node: Node) -> list[Node]:
    """Children with weights that may be a backbone."""
    return [child for child in node.children if child.has_parameters and not child.outside]


def _shown(nodes: Sequence[Node]) -> str:
    return listing(
        (f"`{node.path or node.last}` ({type(node.module).__name__}, {node.size:,} weights)" for node in nodes),
        limit=12,
    )


def find_backbones(tree: Node, backbone: str | Sequence[str] | None) -> list[Node]:
    """Find the backbones of a module.

    Args:
        tree: Of the root.
        backbone: Dotted names from the user; None to look for one.

    Raises:
        ValueError: If a name does not exist, holds no weights, or lies in another; or if several could be meant.
    """
    if backbone is not None:
        names = [backbone] if isinstance(backbone, str) else list(backbone)
        if not names:
            raise ValueError("Expected at least one name in `backbone`, got none. Use None to have it found.")
        nodes = [named_node(tree, name, "backbone") for name in dict.fromkeys(names)]
        for node in nodes:
            if not node.has_parameters:
                raise ValueError(f"The backbone `{node.name}` ({type(node.module).__name__}) has no parameters.")
            for other in nodes:
                if other is not node and any(below is node for below in other.walk()):
                    raise ValueError(f"The backbone `{node.name}` lies inside the backbone `{other.name}`. Name one.")
        return nodes
    return [_search(tree)]


def _search(node: Node) -> Node:
    if _is_recognised(node.module):
        return node
    children = _candidates(node)
    plausible = [child for child in children if not _NOT_A_BACKBONE.search(child.last)]
    for names in _BACKBONE_NAMES:
        called = [child for child in plausible if child.last in names]
        known = [child for child in called if _is_recognised(child.module)]
        called = known if len(known) == 1 else called
        if len(called) == 1:
            return _below(called[0])
        if len(called) > 1:
            raise ValueError(f"Several modules could be the backbone: {_shown(called)}. Say which: pass `backbone=`.")
    known = [child for child in plausible if _is_recognised(child.module)]
    if known:
        known.sort(key=lambda child: -child.size)
        if len(known) > 1 and known[1].size * 10 > known[0].size:
            raise ValueError(f"Several modules could be the backbone: {_shown(known)}. Say which: pass `backbone=`.")
        return known[0]
    if len(plausible) == 1 and not node.parameters:
        return _below(plausible[0])
    return node


def _below(node: Node) -> Node:
    """Look inside a module of the user's own for a model that a library made."""
    if _is_recognised(node.module):
        return node
    known = [child for child in _candidates(node) if _is_recognised(child.module)]
    named = [child for child in _candidates(node) if child.last in _BACKBONE_NAMES[0]]
    inner = known if len(known) == 1 else named
    return _below(inner[0]) if len(inner) == 1 else node


def find_head(backbone: Node, others_are_head: bool) -> Found:
    """Find what is new inside a backbone.

    Args:
        backbone: Where to look.
        others_are_head: Whether weights outside the backbone make up a head already, so that finding nothing is fine.
    """
    module = backbone.module
    if is_timm(module):
        return _timm_head(backbone)
    if is_transformers(module):
        return _transformers_head(backbone)
    if is_torchvision(module):
        return _torchvision_head(backbone)
    if others_are_head or callable(getattr(module, "layer_groups", None)) or is_feature_extractor(module):
        return Found()
    weighted = [child for child in backbone.children if child.has_parameters]
    if weighted and weighted[-1].last in _HEAD_NAMES and len(weighted) > 1:
        return Found(head=[weighted[-1]])
    return Found(decided=False)


def _timm_head(backbone: Node) -> Found:
    classifier = backbone.module.get_classifier()  # type: ignore[operator]
    modules = classifier if isinstance(classifier, list | tuple) else (classifier,)
    found = Found()
    for module in modules:
        # A classifier that was compiled by itself is met here without its wrapper.
        inner = getattr(module, "_orig_mod", module)
        found.head.extend(node for node in backbone.walk() if node.module is inner and node.has_parameters)
    return found


def _transformers_head(backbone: Node) -> Found:
    module = backbone.module
    prefix = str(module.base_model_prefix)
    by_name = {child.last: child for child in backbone.children}
    inner = [child for child in backbone.children if is_transformers(child.module)]
    kind = type(module).__name__
    found = Found()
    pretrained_output = bool(_PRETRAINED_OUTPUT.search(kind))
    if prefix in by_name:
        bases = [by_name[prefix]]
        found.base = bases[0]
    elif inner and ("For" in kind or pretrained_output):
        bases = inner
    else:
        return found
    outside = [child for child in backbone.children if child not in bases and child.has_parameters]
    if pretrained_output:
        within = {id(value) for base in bases for _, _, value in base.all_parameters()}
        output = [child for child in outside if any(id(value) not in within for _, _, value in child.all_parameters())]
        what = listing(f"`{child.last}`" for child in output)
        said = f"{what} was pretrained with the rest and belongs to the top layer" if what else "its output is tied"
        found.warnings.append(f"{kind} has no new head: {said}. Pass `head=` if there is a new one.")
        return found
    beside = next((names for start, names in _PRETRAINED_BESIDE.items() if kind.startswith(start)), ())
    found.head = [child for child in outside if not child.outside and child.last not in beside]
    for base in bases:
        if is_timm(base.module):  # transformers' wrapper of timm leaves the classifier inside.
            found.head.extend(_timm_head(base).head)
    found.parameters = [path for path, _, _ in backbone.parameters]
    return found


def _torchvision_head(backbone: Node) -> Found:
    found = Found()
    kinds = [base.__name__ for base in type(backbone.module).__mro__]
    for name in _TORCHVISION_HEADS:
        node = next((n for n in backbone.walk() if backbone.relative(n.path) == name and n.has_parameters), None)
        if node is not None and not any(node in list(other.walk()) for other in found.head):
            found.head.append(_new_part(node, kinds))
    found.decided = bool(found.head) or backbone.module.__class__.__module__.startswith("torchvision.models.")
    return found


def _new_part(node: Node, kinds: Sequence[str]) -> Node:
    """Take the last layer of a classifier whose earlier layers torchvision pretrained."""
    expected = next((_TORCHVISION_WEIGHTED[kind] for kind in kinds if kind in _TORCHVISION_WEIGHTED), None)
    weighted = [child for child in node.children if child.has_parameters]
    if expected is None or len(weighted) != len(expected):
        return node
    for child, (kind, width) in zip(weighted, expected, strict=True):
        inner = getattr(child.module, "base_layer", child.module)
        if type(inner).__name__ != kind or (width is not None and getattr(inner, "out_features", width) != width):
            return node
    return weighted[-1]
