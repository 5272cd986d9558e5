"""What autograd recorded for some outputs: the kinds of its steps, and the leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

_VIEWS: Final = frozenset(
    f"{name}Backward0"
    for name in (
        "Alias",
        "Permute",
        "ReshapeAlias",
        "Slice",
        "Transpose",
        "UnsafeView",
        "View",
    )
)
"""Steps that only rearrange a gradient: an export adds and leaves out some, of whole axes."""

_STANDS_FOR: Final = {
    "_AttentionWithLabelsBackward": "ScaledDotProductFlashAttentionForCpuBackward0"
}
"""Steps of ours that have the gradient of a step of torch."""


@dataclass(frozen=True, slots=True)
class AutogradGraph:
    """The steps of a backward pass.

    Attributes:
        kinds: how many steps there are of each kind.
        leaves: the identities of the tensors whose gradients are accumulated.
    """

    kinds: Counter[str]
    leaves: frozenset[int]


def autograd_graph(outputs: Iterable[Any]) -> AutogradGraph:
    """The autograd graph behind the tensors among `outputs`."""
    kinds: Counter[str] = Counter()
    leaves: set[int] = set()
    tensors = [leaf for leaf in outputs if isinstance(leaf, Tensor)]
    waiting = [leaf.grad_fn for leaf in tensors if leaf.grad_fn is not None]
    leaves |= {id(leaf) for leaf in tensors if leaf.grad_fn is None and leaf.requires_grad}
    seen: set[Any] = set()
    while waiting:
        step = waiting.pop()
        if step in seen:
            continue
        seen.add(step)
        name = step.name()
        variable = getattr(step, "variable", None)
        if variable is not None:
            leaves.add(id(variable))
        elif name not in _VIEWS:
            kinds[_STANDS_FOR.get(name, name)] += 1
        waiting += [other for other, _ in step.next_functions if other is not None]
    return AutogradGraph(kinds, frozenset(leaves))


def first_difference(plain: AutogradGraph, other: AutogradGraph) -> str:
    """What the first graph has and the other has not, or the other way around; empty if equal."""
    missing, added = plain.kinds - other.kinds, other.kinds - plain.kinds
    if missing or added:
        lost = next(iter(missing), "") or "nothing"
        instead = next(iter(added), "") or "nothing"
        return f"its backward pass has {lost} where the graph's has {instead}"
    if plain.leaves != other.leaves:
        count = len(plain.leaves ^ other.leaves)
        return f"gradients reach {count} tensors in the model alone, or in its graph alone"
    return ""
