"""What the walk could not follow, in one error: where it is, what depends on it, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labeltrace.capture.call_records import CallKind, CallRecord, ModelCalls
from labeltrace.errors import LabelTraceError, LayoutError, UnknownOperatorError
from labeltrace.layout import shape_text
from labeltrace.rule_api.call import Shape
from labeltrace.tracing.rule_stubs import UnknownCall, rule_stubs

MAX_CALLS_SHOWN = 8
"""How many calls of one operator are listed; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A call through which positions cannot be followed."""

    call: CallRecord
    operator: str
    message: str

    def __str__(self) -> str:
        where = self.call.location
        return f"{self.call.name} = {self.operator}: {self.message}\n    in {where}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A call of an operator without a rule.

    Attributes:
        call: the record of the call.
        operands: the shapes of the tensors that it reads.
        stub: what a rule for it is written from.
    """

    call: CallRecord
    operands: tuple[Shape, ...]
    stub: UnknownCall


@dataclass(frozen=True, slots=True)
class CallGraph:
    """Which operators read what others compute.

    `merged` has, for each call inside a module or function that is one step, the name of the call
    that represents it.
    """

    calls: ModelCalls
    merged: Mapping[str, str]

    def all(self) -> set[str]:
        """Every operator that reads what comes from the image."""
        return self.downstream_of([self.calls.traced_input])

    def downstream_of(self, names: Iterable[str]) -> set[str]:
        """The operators that read, directly or not, what calls compute or write."""
        starts = set(names)
        reached: set[str] = set()
        tensors: set[str] = set()
        for call in self.calls:
            if call.name in starts or not tensors.isdisjoint(call.inputs):
                reached.add(call.name)
                tensors.add(call.name)
                if call.written is not None:
                    tensors.add(call.written)
        found = {self.merged.get(name, name) for name in reached - starts}
        return {name for name in found if _is_step(self.calls[name])} - starts


def problems_error(
    problems: Sequence[Problem], unknown: Sequence[Unknown], steps: CallGraph
) -> LabelTraceError:
    """One error for all calls that could not be traced.

    Operators without a rule come first, one paragraph each; then the calls that no rule can follow.
    """
    by_operator: dict[str, list[Unknown]] = {}
    for found in unknown:
        by_operator.setdefault(found.stub.operator, []).append(found)
    parts = [_summary(len(by_operator), len(problems))]
    total = len(steps.all()) if unknown else 0
    for operator, calls in by_operator.items():
        waiting = len(steps.downstream_of(found.call.name for found in calls))
        parts.append(_paragraph(operator, calls, waiting, total))
    if problems:
        parts.append("\n".join(f"  {problem}" for problem in problems))
    if not unknown:
        parts.append(
            "What to do: rewrite that line so that positions and channels stay separate, or give "
            "align a rule for the operator, or for the module around it: "
            "align(model, rules={...})."
        )
        return LayoutError("\n".join(parts))
    without = {name: calls for name, calls in by_operator.items() if not _has_answer(calls)}
    if without:
        parts.append(
            f"What to do about {', '.join(without)}: no rule can answer, since it returns no "
            "tensor with content. Keep the value a tensor on its way (no .item(), no .data =), "
            "give align a rule for the module around it, or run the model as it is: "
            'align(model, engine="recorded").'
        )
    answered = [found.stub for found in unknown if found.stub.operator not in without]
    if not answered:
        return UnknownOperatorError("\n".join(parts), by_operator)
    stubs = rule_stubs(answered)
    parts.append(
        "What to do: say in a rule what each of these operators does to labels; docs/rules.md "
        "shows how.\nThis runs unchanged. Start from it:"
    )
    indented = "\n".join(f"    {line}" if line else "" for line in stubs.splitlines())
    return UnknownOperatorError("\n".join(parts) + f"\n\n{indented}", by_operator)


def _has_answer(calls: Sequence[Unknown]) -> bool:
    """Whether a rule for these calls has an output to say something about."""
    return all(found.stub.outputs for found in calls)


def _summary(unknown: int, other: int) -> str:
    parts = []
    if unknown:
        parts.append(f"{pluralize(unknown, 'operator')} without a rule")
    if other:
        parts.append(f"{pluralize(other, 'node')} that cannot be followed")
    return f"The model has {' and '.join(parts)}:"


def _paragraph(operator: str, calls: Sequence[Unknown], waiting: int, total: int) -> str:
    share = f" ({waiting / total:.0%})" if total else ""
    head = (
        f"  no rule for {operator}: {pluralize(len(calls), 'call')}; {waiting} of "
        f"{pluralize(total, 'operator')} {'waits' if waiting == 1 else 'wait'} for it{share}"
    )
    lines = [head, *(_call_line(call) for call in calls[:MAX_CALLS_SHOWN])]
    if len(calls) > MAX_CALLS_SHOWN:
        lines.append(f"    and {pluralize(len(calls) - MAX_CALLS_SHOWN, 'more call')} of it")
    return "\n".join(lines)


def _call_line(found: Unknown) -> str:
    operands = ", ".join(shape_text(shape) for shape in found.operands)
    outputs = ", ".join(shape_text(shape) for shape in found.stub.outputs) or "nothing"
    call = found.call
    return f"    {call.name}, called with {operands} -> {outputs}\n      in {call.location}"


def pluralize(number: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _is_step(call: CallRecord) -> bool:
    """Whether a call is an operator on tensors, and not a size or one of several outputs."""
    is_operator = call.kind is CallKind.OPERATOR
    return is_operator and (bool(call.tensors) or call.written is not None)
