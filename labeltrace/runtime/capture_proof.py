"""The proof of a capture: does its graph do to this call what the model does?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec

from labeltrace.runtime.autograd_graph import autograd_graph, first_difference

LABEL_TOLERANCE = 1e-4
"""How far labels of the two engines may lie apart: both add the same numbers in another order."""


def difference_of_outputs(
    plain: tuple[Sequence[Any], TreeSpec], graph: tuple[Sequence[Any], TreeSpec]
) -> str:
    """In what the outputs of a model and of its graph differ; empty where they are the same.

    Args:
        plain: the leaves of the model's outputs and their structure.
        graph: those of the graph.
    """
    (own, own_spec), (other, other_spec) = plain, graph
    if own_spec != other_spec:
        return "its outputs have another structure than the graph's"
    for index, (one, two) in enumerate(zip(own, other, strict=True)):
        found = _difference_of_leaves(one, two)
        if found:
            return f"its output {index} {found}"
    return first_difference(autograd_graph(own), autograd_graph(other))


def _difference_of_leaves(plain: Any, graph: Any) -> str:
    if not isinstance(plain, Tensor) or not isinstance(graph, Tensor):
        same = type(plain) is type(graph) and (plain is graph or plain == graph)
        return "" if same else f"is {plain!r}, the graph's {graph!r}"
    if plain.requires_grad != graph.requires_grad:
        return f"has requires_grad={plain.requires_grad}, the graph's {graph.requires_grad}"
    if (plain.shape, plain.dtype, plain.device) != (graph.shape, graph.dtype, graph.device):
        return (
            f"is {plain.dtype} {tuple(plain.shape)}, the graph's {graph.dtype} {tuple(graph.shape)}"
        )
    if plain.device.type == "meta" or bitwise_equal(plain, graph):
        return ""
    return f"differs from the graph's by up to {_largest_difference(plain, graph):.3g}"


def bitwise_equal(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors of one shape and type have the same values; NaN equals NaN."""
    one, two = one.detach(), two.detach()
    if torch.equal(one, two):
        return True
    return bool(((one == two) | ((one != one) & (two != two))).all())


def _largest_difference(one: Tensor, two: Tensor) -> float:
    wide = torch.complex128 if one.is_complex() else torch.float64
    apart = (one.detach().to(wide) - two.detach().to(wide)).abs()
    return float(apart.nan_to_num(nan=float("inf")).max())


def difference_of_labels(recorded: Sequence[Any], captured: Sequence[Any]) -> str:
    """In what the labels of the two engines differ; empty where they agree."""
    for index, (one, two) in enumerate(zip(recorded, captured, strict=True)):
        if (one is None) != (two is None):
            return f"output {index} has a label on one engine alone"
        if one is None:
            continue
        if one.shape != two.shape:
            sizes = f"{tuple(one.shape)} recorded, {tuple(two.shape)} captured"
            return f"the label of output {index} is {sizes}"
        apart = float((one - two).abs().max()) if one.numel() else 0.0
        if not apart <= LABEL_TOLERANCE:
            return f"the labels of output {index} differ by {apart:.3g} between the engines"
    return ""
