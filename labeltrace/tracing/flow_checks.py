"""Checks of what a rule returns; an error names the rule's file and line."""

from __future__ import annotations

from math import prod

from labeltrace.errors import LayoutError
from labeltrace.flow import Attend, Carry, Constant, Flow, LabelStep, LabelView, Mix
from labeltrace.layout import Size, shape_text
from labeltrace.rule_api.call import Call, Rule
from labeltrace.rule_api.registry import rule_name


def check_flows(flows: tuple[object, ...], call: Call, rule: Rule) -> None:
    """Check that the flows that a rule returned fit the call that it was given.

    Raises:
        LayoutError: something that is no flow was returned, or too few flows; a layout does not
            have the shape of the output; a flow reads labels that the call does not have; or
            weights do not fit labels.
    """
    name = rule_name(rule)
    for flow in flows:
        if not isinstance(flow, Flow):
            raise LayoutError(f"the rule {name} returned {type(flow).__name__} instead of a flow")
    constant = all(isinstance(flow, Constant) for flow in flows)
    if len(flows) != len(call.outputs) and not constant:
        raise LayoutError(
            f"the rule {name} returned {len(flows)} flows for {len(call.outputs)} outputs"
        )
    for flow, shape in zip(flows, call.outputs, strict=False):
        assert isinstance(flow, Flow)
        fault = _fault(flow, shape, call)
        if fault:
            raise LayoutError(f"the rule {name} {fault}")


def _fault(flow: Flow, shape: tuple[Size, ...], call: Call) -> str:
    """What is wrong with one flow; empty if nothing is."""
    if flow.layout is None:
        return ""
    if flow.layout.shape != shape:
        return f"returned the layout {flow.layout} for an output of shape {shape_text(shape)}"
    if isinstance(flow, Carry):
        return _carry_fault(flow, call)
    for labels in flow.labels:
        fault = _labels_fault(labels, call)
        if fault:
            return fault
    if isinstance(flow, LabelStep) and prod(flow.field_sizes) != prod(flow.layout.field_sizes):
        return (
            f"computes a field of {shape_text(flow.field_sizes)} for the positions of {flow.layout}"
        )
    if isinstance(flow, Mix):
        return _equation_fault(flow, len(flow.weights.shape))
    if isinstance(flow, Attend):
        return _equation_fault(flow, len(flow.query.shape))
    return ""


def _carry_fault(flow: Carry, call: Call) -> str:
    if not any(flow.source.field == operand.field for operand in call.labeled):
        return f"carries the label of {flow.source.name}, which the call does not have"
    if prod(flow.source.traced_layout.field_sizes) != prod(flow.layout.field_sizes):
        return (
            f"carries a label with the positions of {flow.source.layout} to an output with those "
            f"of {flow.layout}"
        )
    return ""


def _labels_fault(labels: LabelView, call: Call) -> str:
    operand = labels.operand
    products = [one.product for one in call.operands if one.product is not None]
    key_values = [one.key_value_product for one in call.operands if one.key_value_product]
    multiplied = [factor for product in products for factor in (product.first, product.second)]
    multiplied += [side.operand for product in key_values for side in product.sides]
    if not any(operand.field == other.field for other in (*call.labeled, *multiplied)):
        return f"reads the labels of {operand.name}, which the call does not have"
    if prod(labels.arrangement.sizes) != prod(operand.traced_layout.field_sizes):
        return f"arranges the labels of {operand.layout} as {labels.arrangement}"
    return ""


def _equation_fault(flow: Mix | Attend, rank: int) -> str:
    """The weights of a mixing step must have the axes that its equation names."""
    equation, text = flow.equation, str(flow.equation)
    axes = len(equation.weights)
    if axes != rank:
        return f"names {axes} axes in {text!r} for weights that have {rank}"
    if len(equation.labels) != len(flow.source.arrangement.groups):
        dimensions = len(flow.source.arrangement.groups)
        return f"names {len(equation.labels)} dimensions in {text!r} for labels of {dimensions}"
    if isinstance(flow, Mix):
        return _size_fault(flow)
    return ""


def _size_fault(flow: Mix) -> str:
    sizes = dict(zip(flow.equation.labels, flow.source.arrangement.shape, strict=True))
    for names, size in zip(flow.equation.weights, flow.weights.shape, strict=True):
        if len(names) == 1 and size != 1 and sizes.get(names[0], size) != size:
            return (
                f"mixes labels of {shape_text(flow.source.arrangement.shape)} by weights of "
                f"{shape_text(flow.weights.shape)}, which differ along {names[0]!r}"
            )
    return ""
