"""Labels of the elements that an index picks, or that an order decides on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic
from labeltrace.label_ops.elements import equal_along, looked_up, numbered, pick


@label_arithmetic
def reindex(
    labels: Tensor,
    operator: str,
    arguments: Sequence[Any],
    kept: Sequence[int],
    sizes: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
    result: Sequence[int] | None = None,
) -> Tensor:
    """The labels of the elements that an indexing operator picks.

    Args:
        labels: a field with a dimension for each factor of the tensor's axes, (factors..., K).
        operator: the operator of `torch.ops.aten`, `"gather"` or `"index"` for instance.
        arguments: its arguments after the tensor.
        kept: the dimensions of the result that are dimensions of the new field, in order; labels
            are averaged over all others: channels that an index moves differently.
        sizes: the sizes to which the factors are expanded; those of the field by default.
        shape: the shape of the tensor; the sizes by default.
        result: the sizes of the factors of the result; the shape of what is picked by default.
    """
    narrowed = equal_along(operator, arguments, kept)
    found = pick(numbered(labels, sizes, shape), operator, arguments, narrowed)
    if result is not None:
        found = found.reshape(tuple(result))
    return looked_up(labels.flatten(0, -2), found, kept)[0]


@label_arithmetic
def reindex_by_order(
    labels: Tensor,
    values: Tensor,
    operator: str,
    arguments: Sequence[Any],
    dim: int,
    kept: Sequence[int],
    keepdim: bool = True,
    sizes: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """As `reindex`, by the indices that an operator on `values` returns second.

    Args:
        labels: see `reindex`.
        values: the tensor that is sorted.
        operator: `"topk"`, `"sort"`, `"stable_sort"` or `"kthvalue"`.
        arguments: its arguments after the tensor.
        dim: the axis along which it chooses.
        kept: see `reindex`; of a result that has the axis `dim`.
        keepdim: whether the operator's result has that axis.
        sizes: see `reindex`.
        shape: see `reindex`.
    """
    index = _ORDERS[operator](values, *arguments)[1]
    index = index if keepdim else index.unsqueeze(dim)
    found = numbered(labels, sizes, shape).gather(dim, index)
    return looked_up(labels.flatten(0, -2), found, kept)[0]


def _stable_sort(values: Tensor, dim: int, descending: bool) -> tuple[Tensor, Tensor]:
    return torch.sort(values, stable=True, dim=dim, descending=descending)


_ORDERS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = MappingProxyType(
    {
        "topk": torch.topk,
        "sort": torch.sort,
        "stable_sort": _stable_sort,
        "kthvalue": torch.kthvalue,
    }
)
