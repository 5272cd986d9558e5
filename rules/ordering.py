"""Values chosen by their order: topk, sort, kthvalue. The indices are found again, and move labels.

Each value has the label of the element that it is; over channels alone nothing moves. (Maxima and
minima take the mean label by default, as all pooling does: see `labeltrace.rules.reduction`.)
"""

from collections.abc import Sequence
from typing import Any

from labeltrace.flow import Constant, Flow, Operand, Reindex, Weights
from labeltrace.layout import Axis, has_positions, renumbered
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.picked_elements import (
    axis_after_index,
    element_labels,
    factor_sizes,
    index_tensor,
    kept_factors,
    without_positions,
)


@register_rule("aten.topk")
def topk(call: Call) -> tuple[Flow, ...]:
    """The largest or smallest values along an axis, and their indices."""
    settings = (call["k"], call["dim"], call["largest"], call["sorted"])
    return _chosen(call, "topk", settings, call["dim"], keepdim=True)


@register_rule("aten.sort.default", "aten.sort.stable")
def sort(call: Call) -> tuple[Flow, ...]:
    """All values along an axis in their order, and their indices."""
    operator = "stable_sort" if call.get("stable") else "sort"
    return _chosen(call, operator, (call["dim"], call["descending"]), call["dim"], keepdim=True)


@register_rule("aten.kthvalue")
def kthvalue(call: Call) -> tuple[Flow, ...]:
    """The k-th smallest value along an axis, and its index."""
    settings = (call["k"], call["dim"], call["keepdim"])
    return _chosen(call, "kthvalue", settings, call["dim"], keepdim=call["keepdim"])


@register_rule("aten.msort")
def msort(call: Call) -> Flow:
    """All values along the first axis in their order."""
    return _chosen(call, "sort", (0, False), 0, keepdim=True)[0]


def _chosen(
    call: Call, operator: str, settings: tuple[Any, ...], dim: int, *, keepdim: bool
) -> tuple[Flow, Flow]:
    source: Operand = call["self"]
    if not source.shape:
        return without_positions(source, ()), Constant()
    dim %= len(source.shape)
    axes = source.traced_layout.axes
    whole_result = keepdim or len(call.output) == len(axes)
    size = call.output[dim] if whole_result else 1
    after: Sequence[Axis] = [*axes[:dim], axis_after_index(axes[dim], size), *axes[dim + 1 :]]
    if not has_positions(axes[dim]):
        kept = after if whole_result else [*axes[:dim], *axes[dim + 1 :]]
        return without_positions(source, kept), Constant()
    touched = range(len(axes))
    after = [
        axis if d == dim else axis_after_index(axis, source.shape[d])
        for d, axis in enumerate(after)
    ]
    if not whole_result:
        after[dim] = ()
    elements_kept = kept_factors(after)
    result = factor_sizes(after, touched)
    layout_axes = after if whole_result else [*after[:dim], *after[dim + 1 :]]
    if source.is_weights:
        return Weights(layout=renumbered(layout_axes)), Constant()
    view, elements = element_labels(source, touched)
    flow = Reindex(
        layout=renumbered(layout_axes),
        source=view,
        elements=elements,
        operator=operator,
        arguments=settings,
        ordered=index_tensor(source),
        order_axis=(dim, whole_result),
        rank=len(axes),
        result=result,
        kept=elements_kept,
    )
    return flow, Constant()
