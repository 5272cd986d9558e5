"""From records to what a rule sees: a `Call`, whose tensors are operands with layout and field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labeltrace.capture.call_records import CallRecord, ModelCalls
from labeltrace.flow import Operand, ValueFacts, ValueRef
from labeltrace.rule_api.call import Call, Shape
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.regions import Region
from labeltrace.tracing.uniform_constants import is_uniform

Path = tuple[str | int, ...]
"""The place of a value among a call's arguments: the schema's name, then indices into lists."""


def operator_call(
    record: CallRecord, environment: Environment, *, as_weights: bool = False
) -> Call:
    """The call of an operator.

    With `as_weights`, operands that are streams and may be mixing weights too are read as weights.
    """
    arguments = {
        name: _argument(value, (name,), environment, as_weights=as_weights)
        for name, value in record.arguments.items()
    }
    shapes = output_shapes(record, environment.calls)
    return Call(record.operator, arguments, shapes, batch=environment.batch)


def region_call(region: Region, environment: Environment) -> Call:
    """The call of a module or function with a rule of its own.

    Its arguments are named `input0`, `input1` ... in the order in which its code reads them.
    """
    calls = environment.calls
    arguments: dict[str, Any] = {}
    parameters: dict[str, Operand] = {}
    for name in region.inputs:
        if calls[name].tensor is None:
            continue
        if name in calls.state:
            inner_name = calls.state[name].removeprefix(f"{region.module_path}.")
            parameters[inner_name] = _operand(ValueRef(name), (inner_name,), environment)
        else:
            argument = f"input{len(arguments)}"
            arguments[argument] = _operand(ValueRef(name), (argument,), environment)
    inner = {
        call.name: Operand((call.name,), call.tensor.shape, tensor=ValueRef(call.name))
        for call in region.calls
        if call.tensor is not None
    }
    outputs = tuple(calls[name].tensors[0].shape for name in region.outputs)
    return Call(region.name, arguments, outputs, inner, parameters, environment.batch)


def output_shapes(record: CallRecord, calls: ModelCalls) -> tuple[Shape, ...]:
    """The shapes of a call's outputs; of what it writes to, where it returns nothing."""
    tensors = record.tensors
    if not tensors and record.written is not None:
        tensors = calls[record.written].tensors
    return tuple(tensor.shape for tensor in tensors)


def name_at(record: CallRecord, path: Path) -> str:
    """The name of the call whose result is the argument at a path."""
    value: Any = record.arguments
    for key in path:
        value = value[key]
    assert isinstance(value, ValueRef)
    return value.name


def values_in(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The results of calls among arguments: the path as a rule writes it, and the call's name."""
    if isinstance(value, ValueRef):
        yield path, value.name
    elif isinstance(value, (Mapping, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            place = f'["{key}"]' if isinstance(key, str) else f"[{key}]"
            yield from values_in(item, path + place)


def _argument(value: Any, path: Path, environment: Environment, *, as_weights: bool) -> Any:
    if isinstance(value, tuple):
        return [
            _argument(item, (*path, index), environment, as_weights=as_weights)
            for index, item in enumerate(value)
        ]
    if isinstance(value, ValueRef):
        return _operand(value, path, environment, as_weights=as_weights)
    return value


def _operand(
    ref: ValueRef, path: Path, environment: Environment, *, as_weights: bool = False
) -> Operand:
    known = environment.value(ref.name)
    tensor = environment.calls[ref.name].tensors[0]
    own: dict[str, Any] = {"values": ref, "strides": tensor.strides, "dtype": tensor.dtype}
    own["size_is_known"] = tensor.size_is_known
    if known is None:
        facts = ValueFacts(is_uniform=is_uniform(ref.name, environment.calls))
        return Operand(path, tensor.shape, tensor=ref, facts=facts, **own)
    if as_weights and known.as_weights is not None:
        known = known.as_weights
    return Operand(
        path=path,
        shape=known.layout.shape,
        layout=known.layout,
        field=known.field,
        tensor=ref if known.field is not None else known.source,
        facts=_still_true(known.facts, ref, environment),
        **own,
    )


def _still_true(facts: ValueFacts, ref: ValueRef, environment: Environment) -> ValueFacts:
    """The facts now: what has been written to is no function of what it was computed from.

    Operands of a product that have been written to cannot be read again.
    """
    if environment.has_changed(ref):
        facts = facts.with_origins(())
    product = facts.product
    if product is None:
        return facts
    both = (product.first, product.second)
    read = [one.tensor for one in both if not one.labeled] or [one.tensor for one in both]
    refs = [tensor for tensor in read if isinstance(tensor, ValueRef)]
    if any(environment.has_changed(ref) for ref in refs):
        return facts.with_product(product.after_other_step())
    return facts
