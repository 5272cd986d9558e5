"""Writes to a part of a tensor, at places that an index says: index_put, scatter and their kin.

What is written over has the label of what was written. What is added to is a residual at those
places (contract, point 6). A constant that is written carries the prior where it holds a position
alone (point 3); one that is added carries nothing.
"""

from collections.abc import Sequence
from typing import Any

from labeltrace.flow import Flow, Operand
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.written_parts import Part, added, overwritten

SELECTED = "which of several values remains depends on the values; their mean is taken"


@register_rule("aten.index_put")
def index_put(call: Call) -> Flow:
    """`activation[indices] = values`, or `+=` with `accumulate`."""
    part = Part.of_index(call["self"], call["indices"], call["values"])
    return added(part, call) if call["accumulate"] else overwritten(part, call)


@register_rule("aten.scatter.src", "aten.scatter.value")
def scatter(call: Call) -> Flow:
    """An element of the source at each index along one axis."""
    return overwritten(_scattered(call), call)


@register_rule("aten.scatter_add", "aten.scatter.reduce", "aten.scatter.value_reduce")
def scatter_add(call: Call) -> Flow:
    """Elements of the source are added, or multiplied, at indices along one axis."""
    return added(_scattered(call), call)


@register_rule("aten.scatter_reduce")
def scatter_reduce(call: Call) -> Flow:
    """Elements that land on one place are reduced; maxima and minima are taken for means."""
    reason = SELECTED if call["reduce"] in ("amax", "amin") else ""
    return added(_scattered(call), call, call["include_self"], reason)


@register_rule("aten.index_add", "aten.index_reduce")
def index_add(call: Call) -> Flow:
    """Slices of the source are added, or reduced, at indices of one axis."""
    part = _slices(call, call["source"])
    reason = SELECTED if call.get("reduce") in ("amax", "amin") else ""
    return added(part, call, call.get("include_self", True), reason)


@register_rule("aten.index_copy")
def index_copy(call: Call) -> Flow:
    """Slices of the source are written at indices of one axis."""
    return overwritten(_slices(call, call["source"]), call)


@register_rule("aten.index_fill")
def index_fill(call: Call) -> Flow:
    """A number is written at indices of one axis."""
    return overwritten(_slices(call, call["value"]), call)


@register_rule("aten.masked_scatter")
def masked_scatter(call: Call) -> Flow:
    """The elements of the source one after the other, wherever a mask holds."""
    base: Operand = call["self"]
    part = Part(base, call["source"], "masked_select", (call["mask"],), None)
    return overwritten(part, call)


@register_rule("aten.slice_scatter")
def slice_scatter(call: Call) -> Flow:
    """`start:end:step` of one axis is written over."""
    settings = (call["dim"], call["start"], call["end"], call["step"])
    return overwritten(_along(call, "slice", settings), call)


@register_rule("aten.select_scatter")
def select_scatter(call: Call) -> Flow:
    """One index of an axis is written over."""
    base: Operand = call["self"]
    dim = call["dim"] % len(base.shape)
    places = [axis for axis in range(len(base.shape)) if axis != dim]
    part = Part(base, call["src"], "select", (dim, call["index"]), places)
    return overwritten(part, call)


def _scattered(call: Call) -> Part:
    base: Operand = call["self"]
    source = call["src"] if "src" in call.arguments else call["value"]
    dim = call["dim"] % max(1, len(base.shape))
    return Part(base, source, "gather", (dim, call["index"]), list(range(len(base.shape))), None)


def _slices(call: Call, source: Any) -> Part:
    return _along(call, "index_select", (call["dim"], call["index"]), source)


def _along(call: Call, operator: str, settings: Sequence[Any], source: Any = None) -> Part:
    base: Operand = call["self"]
    places: list[int | None] = list(range(len(base.shape)))
    touched = {settings[0] % len(base.shape)}
    source = call["src"] if source is None else source
    return Part(base, source, operator, tuple(settings), places, touched)
