"""The label graph for a call that `torch.compile` is tracing.

A capture cannot be traced.  It is made while torch traces the call, and the compiled code treats
its outcome as constant.  Everything that the capture depends on is compared here, in code that
torch traces: each comparison becomes a guard.  A change of a mode, an attribute or a submodule
therefore leads to another trace, and a new batch size does not.

Only `AlignedModule.forward` imports this module, and only while torch traces it: it needs
`torch._dynamo`, which takes longer to import than torch itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import guard_scalar
from torch.utils._pytree import tree_map

from labeltrace.capture.inputs import first_tensor
from labeltrace.errors import CaptureError
from labeltrace.runtime.cache_key import PLAIN_TYPES
from labeltrace.runtime.graph_cache import LIVE_CACHES, GraphCache, LabelGraph


class Example(NamedTuple):
    """What a graph treats as constant about a tensor; `batched` says that axis 0 is the batch."""

    batched: bool
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def traced_graph(
    graphs: GraphCache, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> LabelGraph:
    """The label graph for a call: `GraphCache.find_or_build` for code that torch is tracing."""
    _guard_model(graphs)
    identity = id(graphs)  # torch 2.11 accepts constants alone for code that it runs, not traces
    _, image = first_tensor(args, kwargs)
    batch = image.shape[0]
    described = tree_map(lambda leaf: _described(leaf, batch), (args, dict(kwargs)))
    for number, known in _ranges(identity, described, 1 if batch == 1 else 2):
        smallest, largest, step, remainder = known
        if smallest <= batch <= largest and batch % step == remainder:
            return graphs.graphs[number]
    # The model treats sizes of the batch differently: the code is compiled for this one.
    return graphs.graphs[_number(identity, described, int(guard_scalar(batch)))]


def _described(leaf: Any, batch: int) -> Any:
    """What a capture depends on; numbers that torch left dynamic are set to their present value."""
    if isinstance(leaf, int | float):
        return guard_scalar(leaf)
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.dim() > 0 and leaf.shape[0] == batch:
        return Example(True, _known(leaf.shape[1:]), leaf.dtype, leaf.device)
    return Example(False, _known(leaf.shape), leaf.dtype, leaf.device)


def _known(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple([int(guard_scalar(size)) for size in sizes])


def _guard_model(graphs: GraphCache) -> None:
    """Compare the modules, hooks and plain attributes of the model with those of the capture."""
    present = _present_state(id(graphs))
    for module, known in zip(graphs.model.modules(), present, strict=True):
        identity, hooks, attributes = known
        same = id(module) == identity
        same = same and len(module._forward_pre_hooks) + len(module._forward_hooks) == hooks
        for name, value in attributes:
            same = same and getattr(module, name) == value
        if not same:
            raise RuntimeError("the model was changed while torch.compile traced it")


@torch.compiler.assume_constant_result
def _present_state(
    identity: int,
) -> tuple[tuple[int, int, tuple[tuple[str, Any], ...]], ...]:
    """The identity, the number of hooks and the plain attributes of each submodule."""
    model = LIVE_CACHES[identity].model
    return tuple(
        (
            id(module),
            len(module._forward_pre_hooks) + len(module._forward_hooks),
            tuple(
                (name, value)
                for name, value in vars(module).items()
                if type(value) in PLAIN_TYPES and value == value  # NaN equals nothing
            ),
        )
        for module in model.modules()
    )


@torch.compiler.assume_constant_result
def _ranges(
    identity: int, described: Any, hint: int
) -> tuple[tuple[int, tuple[int, float, int, int]], ...]:
    """The graphs for any batch and their ranges; one is built for `hint` if there is none."""
    graphs = LIVE_CACHES[identity]
    args, kwargs = _example(described, hint)
    with torch._guards.tracing(None), contextlib.suppress(CaptureError):
        if not graphs.matching(args, kwargs):
            _check_true(graphs, args, kwargs)
            graphs.find_or_build(args, kwargs)
    batches = {
        number: graphs.graphs[number].capture.batch for number in graphs.matching(args, kwargs)
    }
    return tuple(
        (number, (batch.smallest, batch.largest, batch.step, batch.remainder))
        for number, batch in batches.items()
    )


@torch.compiler.assume_constant_result
def _number(identity: int, described: Any, batch: int) -> int:
    """The graph for one size of the batch."""
    graphs = LIVE_CACHES[identity]
    args, kwargs = _example(described, batch)
    with torch._guards.tracing(None):
        _check_true(graphs, args, kwargs)
        return graphs.find_or_build(args, kwargs)


def _check_true(graphs: GraphCache, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Check that a graph would be true to the model; within an export only an earlier one is."""
    if graphs.check_true is not None and not torch.compiler.is_exporting():
        graphs.check_true(args, kwargs)


def _example(described: Any, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call as described; a capture does not depend on the values of tensors."""

    def made(leaf: Any) -> Any:
        if not isinstance(leaf, Example):
            return leaf
        shape = (batch, *leaf.shape) if leaf.batched else leaf.shape
        return torch.zeros(shape, dtype=leaf.dtype, device=leaf.device)

    args, kwargs = tree_map(made, described, is_leaf=lambda leaf: isinstance(leaf, Example))
    return args, kwargs
