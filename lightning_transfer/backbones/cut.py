"""A backbone cut in two: what its first layers make of an input, and what the others make of that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # as Lightning and transformers use it: outputs are any tree of tensors

from lightning_transfer.types import Activations

__all__ = ["WHOLE", "Cut", "Form"]

WHOLE = ""
"""Name of the backbone itself among its layers: what is kept is its output."""


class _Reached(BaseException):
    """Ends a forward at the cut; no `except Exception` of a library stops it."""


@dataclass(frozen=True)
class Form:
    """What the output of a layer looks like, so that it can be taken apart into tensors and put together again.

    Attributes:
        spec: Of the tree.
        leaves: Shape and dtype of each tensor, other values as they are.

    Example:
        >>> form = Form.of((torch.zeros(2, 3), None))
        >>> form.join([torch.ones(1, 3)])
        (tensor([[1., 1., 1.]]), None)
    """

    spec: Any
    leaves: tuple[Any, ...]

    @classmethod
    def of(cls, output: Any) -> Form:  # noqa: ANN401 - whatever a layer returns
        """Describe an output."""
        leaves, spec = pytree.tree_flatten(output)
        return cls(spec, tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves))

    @staticmethod
    def split(output: Any) -> list[Tensor]:  # noqa: ANN401
        """Return the tensors of an output, in their order."""
        return [leaf for leaf in pytree.tree_flatten(output)[0] if isinstance(leaf, Tensor)]

    @property
    def size(self) -> int:
        """Number of tensors."""
        return sum(_is_shape(leaf) for leaf in self.leaves)

    def join(self, tensors: Sequence[Tensor]) -> Any:  # noqa: ANN401
        """Return an output of this form with other tensors."""
        rest = iter(tensors)
        return pytree.tree_unflatten([next(rest) if _is_shape(leaf) else leaf for leaf in self.leaves], self.spec)

    def stand_in(self, rows: int, steps: tuple[int, int] | None, device: torch.device) -> Any:  # noqa: ANN401
        """Return an output of this form that says nothing: numbers are NaN, so that whoever reads them is found out.

        Args:
            rows: Of the batch.
            steps: For inputs that differ in length: axes of the first number of steps get the second one. None: the
                shape is that of the example.
            device: Of the tensors.
        """

        def fill(leaf: Any) -> Any:  # noqa: ANN401
            if not _is_shape(leaf):
                return leaf
            shape, dtype = leaf
            size = [rows, *shape[1:]]
            nothing = torch.full((), float("nan") if dtype.is_floating_point else 0, dtype=dtype, device=device)
            if steps is None:
                return nothing.expand(size)  # no memory, however large
            # Transformers zero the padding in place, which an expanded tensor does not take.
            return nothing.expand([steps[1] if axis and n == steps[0] else n for axis, n in enumerate(size)]).clone()

        return pytree.tree_unflatten([fill(leaf) for leaf in self.leaves], self.spec)


@dataclass(frozen=True)
class Cut:
    """Where a backbone is cut: `prefix` runs what lies before, `suffix` the rest.

    Made by `find_cut`, which proves that the rest depends on the input through ``layers`` alone. It holds names and
    shapes, no modules.

    Attributes:
        layers: Dotted names of the layers whose outputs are kept, in the order in which they end. The last one is where
            the network goes on; earlier ones are read from outside, such as the maps of a decoder.
        forms: Of their outputs.
        skipped: Name of each outermost layer that `suffix` need not run -> form of what stands in for its output.
        ran: Names of all modules that run in `prefix`, and of those around them.
        reads_input: Whether code between the layers of `suffix` looks at the input, as transformers do at their mask.
        steps: Size of the second axis of the last layer's output in the example, where inputs differ in length.
    """

    layers: tuple[str, ...]
    forms: tuple[Form, ...]
    skipped: Mapping[str, Form]
    ran: tuple[str, ...]
    reads_input: bool
    steps: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the backbone's output is kept, so that nothing of it need run."""
        return self.layers == (WHOLE,)

    def describe(self) -> str:
        """Put into words what is kept."""
        if self.is_whole:
            return "the features of the whole backbone"
        return f"the output of {' and '.join(f'`{name}`' for name in self.layers)}"

    def prefix(self, backbone: nn.Module, input: Any) -> list[Tensor]:  # noqa: ANN401 - tensor or dict of tensors
        """Run the backbone up to the cut, and return the tensors that the kept layers gave.

        Args:
            backbone: Of which the cut was found, or a copy.
            input: A batch's input.
        """
        modules = dict(backbone.named_modules())
        found: dict[str, Any] = {}

        def keep(name: str, output: Any) -> None:  # noqa: ANN401
            found[name] = output
            if name == self.layers[-1]:
                raise _Reached

        handles = [
            modules[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            for name in self.layers
        ]
        try:
            backbone(input)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return [tensor for name in self.layers for tensor in Form.split(found[name])]

    def suffix(self, backbone: nn.Module, kept: Activations, **options: Any) -> Any:  # noqa: ANN401
        """Return what the backbone gives, from what was kept of its input.

        Args:
            backbone: Of which the cut was found.
            kept: Of a batch; ``layers`` as `prefix` gave them.
            options: Further arguments of the backbone's ``forward``.
        """
        modules = dict(backbone.named_modules())
        outputs: dict[str, Any] = {}
        rest = list(kept.layers)
        for name, form in zip(self.layers, self.forms, strict=True):
            outputs[name], rest = form.join(rest[: form.size]), rest[form.size :]
        first = kept.layers[0]
        steps = None
        if self.steps is not None:
            last = kept.layers[-self.forms[-1].size]
            steps = (self.steps, last.shape[1])
        for name, form in self.skipped.items():
            outputs[name] = form.stand_in(len(first), steps, first.device)
        with _replaced({modules[name]: output for name, output in outputs.items()}):
            return backbone(self._input(kept), **options)

    def _input(self, kept: Activations) -> Any:  # noqa: ANN401 - tensor or dict of tensors
        """Return what stands in for the input: what is kept of it, and NaN in the shape of what is not."""
        found = dict(kept.given)
        device = kept.layers[0].device
        for name, sizes in kept.sizes.items():
            shape = (len(sizes), *sizes.amax(dim=0).tolist())
            found[name] = torch.full((), float("nan"), device=device).expand(shape)
        return found.get("") if set(found) <= {""} else found


@contextmanager
def _replaced(outputs: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Let modules return what is given, without running, while the block runs; their hooks run as ever."""
    before = {module: module.__dict__.get("forward") for module in outputs}
    try:
        for module, output in outputs.items():
            # Of the instance, where the call looks first; types take `forward` for the method of the class.
            module.__dict__["forward"] = lambda *_, output=output, **__: output
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own


def _is_shape(leaf: Any) -> bool:  # noqa: ANN401
    return isinstance(leaf, tuple) and len(leaf) == 2 and isinstance(leaf[0], torch.Size)
