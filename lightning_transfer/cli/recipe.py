"""What the command line must know of a recipe before it imports anything heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

__all__ = ["Kind", "Recipe"]

Kind = Literal["classification", "transcription", "segmentation"]


@dataclass(frozen=True)
class Recipe:
    """Name the classes of a recipe without importing them.

    Attributes:
        name: Short name; run folders lie in ``runs/<name>/``.
        package: Importable name of the recipe; its configs lie in ``configs/`` beside the code.
        module: The LightningModule, as ``package.module:Class``.
        data: The LightningDataModule, as ``package.module:Class``.
        description: One sentence for the help text.
        heads: Further LightningModules by the name that ``model.head`` chooses them with; ``linear`` is ``module``.
        routes: Whether each record is sent to one of the classes, or to a person: a fit then has a routing policy, and
            predictions are ``predictions.jsonl``.
        kind: ``classification``; ``transcription`` of speech or ``segmentation``, drawing masks: these have scores,
            predictions and a report of their own.
        clinical: Whether classes are findings in medical images: each then has operating points that are fixed on the
            calibration split, numbers of its own, and the model card a warning.
        head_kinds: Those of the heads that are of another kind.

    Example:
        >>> recipe = Recipe("toy", "json", module="json.decoder:JSONDecoder", data="json.encoder:JSONEncoder")
        >>> recipe.command
        'python -m json'
        >>> recipe.module_class().__name__
        'JSONDecoder'
    """

    name: str
    package: str
    module: str
    data: str
    description: str = ""
    heads: Mapping[str, str] = field(default_factory=dict)
    routes: bool = False
    clinical: bool = False
    kind: Kind = "classification"
    head_kinds: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """How a user starts this recipe."""
        return f"python -m {self.package}"

    @property
    def configs(self) -> Path:
        """Folder of the configs that come with the recipe; it need not exist."""
        spec = find_spec(self.package)
        places = list(spec.submodule_search_locations or []) if spec is not None else []
        return Path(places[0] if places else ".") / "configs"

    def kind_of(self, head: str) -> Kind:
        """Return the kind of what one of the heads does."""
        return self.head_kinds.get(head, self.kind)

    def module_class(self, head: str = "linear") -> type[Any]:
        """Import the LightningModule's class for one of the heads."""
        return _load(self.heads.get(head, self.module))

    def data_class(self) -> type[Any]:
        """Import the LightningDataModule's class."""
        return _load(self.data)


def _load(target: str) -> type[Any]:
    place, _, name = target.partition(":")
    loaded: type[Any] = getattr(import_module(place), name)
    return loaded
