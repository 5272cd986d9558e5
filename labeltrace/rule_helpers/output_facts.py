"""What a rule knows of its output's values, in place of what follows from the operands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from labeltrace.flow import Carry, Flow, Origin, ProductOperands, Weights

AnyFlow = TypeVar("AnyFlow", bound=Flow)


def after_nonlinear(flow: AnyFlow, *, is_gate: bool) -> AnyFlow:
    """The flow of a non-linear step, whose output is a gate or is none; weights are no gates."""
    facts = flow.output_facts
    if isinstance(flow, Weights):
        return flow
    if isinstance(flow, Carry):
        facts = facts.after_nonlinear(is_gate=is_gate, lower_bound=facts.lower_bound)
        return replace(flow, is_linear=False, facts=facts)
    return replace(flow, facts=facts.with_gate(is_gate))


def with_lower_bound(flow: AnyFlow, lower_bound: float) -> AnyFlow:
    """The flow of an output in which no value lies below a number."""
    return replace(flow, facts=flow.output_facts.with_lower_bound(lower_bound))


def with_key_features(flow: AnyFlow, held: bool) -> AnyFlow:
    """The flow of an output that holds features of keys, or does not."""
    return replace(flow, facts=flow.output_facts.with_key_features(held))


def with_product(flow: AnyFlow, product: ProductOperands | None) -> AnyFlow:
    """The flow of an output that is a product, or from which none can be taken."""
    return replace(flow, facts=flow.output_facts.with_product(product))


def with_origins(flow: AnyFlow, origins: Iterable[Origin]) -> AnyFlow:
    """The flow of an output that is a point-wise function or a statistic of these tensors alone."""
    return replace(flow, facts=flow.output_facts.with_origins(origins))
