"""Stubs of the rules that an error asks for: source code that runs when it is pasted.

A stub assumes that an operator that keeps the shape is point-wise, and that any other one mixes all
positions equally. Until somebody confirms that, its nodes are marked as approximate.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from labeltrace.layout import shape_text
from labeltrace.rule_api.call import Shape


@dataclass(frozen=True, slots=True)
class UnknownCall:
    """A call of an operator without a rule.

    Attributes:
        operator: the operator's name.
        arguments: the names of the arguments in its schema.
        source: the operand whose label the stub moves, as a rule writes it: `["x"]`.
        shape: the shape of that operand.
        channels: the axes of that operand that have no positions.
        outputs: the shapes of the outputs.
    """

    operator: str
    arguments: tuple[str, ...]
    source: str
    shape: Shape
    channels: tuple[int, ...]
    outputs: tuple[Shape, ...]

    @property
    def keeps_shape(self) -> bool:
        return all(output == self.shape for output in self.outputs)


def rule_stubs(calls: Sequence[UnknownCall]) -> str:
    """The source of a rule for each operator among `calls`, and the call of `align` with them.

    It expects a variable `model`.
    """
    by_operator: dict[str, list[UnknownCall]] = {}
    for call in calls:
        by_operator.setdefault(call.operator, []).append(call)
    names = _function_names(list(by_operator))
    stubs = [_stub(names[operator], found) for operator, found in by_operator.items()]
    imports = ["import labeltrace"]
    if any("carry(" in stub for stub in stubs):
        imports.append("from labeltrace.rule_helpers import carry")
    if any("even_mix(" in stub for stub in stubs):
        imports.append("from labeltrace.rule_helpers import even_mix")
    table = ["rules = {", *(f'    "{operator}": {names[operator]},' for operator in names), "}"]
    last = [*table, "aligned = labeltrace.align(model, rules=rules)"]
    return "\n\n\n".join(["\n".join(imports), *stubs, "\n".join(last)])


def _function_names(operators: Sequence[str]) -> dict[str, str]:
    """The name of the stub's function for each operator.

    It is that of the operator, after that of its library if two operators have the same name. The
    suffix avoids keywords, modules and the names that the stub imports.
    """
    short = {operator: _identifier(operator.rpartition(".")[2]) for operator in operators}
    counted = Counter(short.values())
    return {
        operator: (name if counted[name] == 1 else _identifier(operator)) + "_rule"
        for operator, name in short.items()
    }


def _identifier(name: str) -> str:
    cleaned = re.sub(r"\W", "_", name).strip("_")
    return f"operator_{cleaned}" if cleaned[:1].isdigit() else cleaned


def _stub(name: str, calls: Sequence[UnknownCall]) -> str:
    first = calls[0]
    sources = {call.source for call in calls}
    source = f"call{first.source}" if len(sources) == 1 else "call.traced[0]"
    shapes = ", ".join(shape_text(shape) for shape in first.outputs)
    single = all(len(call.outputs) == 1 for call in calls)
    output = "call.output" if single else "output"
    flow = _point_wise(first.operator, source, output)
    changing = next((call for call in calls if not call.keeps_shape), None)
    if changing is not None:
        flow = _mixed(changing, source, output)
    if not single:
        (comment, expression) = flow
        inner = "\n".join(f"    {line}" for line in expression.splitlines())
        flow = (comment, f"tuple(\n{inner}\n    for output in call.outputs\n)")
    comment, expression = flow
    body = [
        f'"""{first.operator}({", ".join(first.arguments)}) -> {shapes or "nothing"}."""',
        *comment.splitlines(),
        *f"return {expression}".splitlines(),
    ]
    return "\n".join([f"def {name}(call):", *(f"    {line}" for line in body)])


def _point_wise(operator: str, source: str, output: str) -> tuple[str, str]:
    comment = (
        "# Each value depends on its own position alone? Then the label stays: this is right, and\n"
        "# the approximation can go. If not: contract, relayout or custom_step."
    )
    reason = f'approximation="a stub: {operator} is taken for point-wise"'
    return comment, f"carry(\n    {source}, {output}, {reason}\n)"


def _mixed(call: UnknownCall, source: str, output: str) -> tuple[str, str]:
    comment = (
        "# Where does each position of the output come from? Say so with contract, relayout or\n"
        "# custom_step. Until then: equally from all positions. Which axes have channels?"
    )
    reason = f'approximation="a stub: {call.operator} is taken for an equal mix of all"'
    channels = f"({', '.join(map(str, _output_channels(call)))},)"
    return comment, f"even_mix(\n    {source}, {output}, channels={channels},\n    {reason},\n)"


def _output_channels(call: UnknownCall) -> tuple[int, ...]:
    """The axes that have channels: those of the operand if its rank is kept, else the last."""
    changed = next(output for output in call.outputs if output != call.shape)
    return call.channels if call.channels and len(changed) == len(call.shape) else (-1,)
