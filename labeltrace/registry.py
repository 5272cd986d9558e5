"""Which rule serves which operator.

Rules are filed under the name of an operator, ``"aten.linear"``, or of one of its overloads,
``"aten.pad.default"``; the overload is looked up first.  An in-place operator is served by the rule
of its functional twin.  A second rule for a name is an error, and so is a name without a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from labeltrace.call import Rule


@dataclass(frozen=True, slots=True)
class Registry:
    """An immutable table of rules by operator name."""

    rules: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, names: tuple[str, ...]) -> Rule | None:
        """The rule filed under the first of ``names`` that has one."""
        for name in names:
            if name in self.rules:
                return self.rules[name]
        return None

    def overlaid(self, rules: Mapping[Any, Rule] | None) -> Registry:
        """This table with ``rules`` over it: keys are names or operators, the nearest wins.

        Raises:
            TypeError: a key is no operator, or a rule cannot be called.
        """
        if not rules:
            return self
        named = {operator_name(target): _callable(target, rule) for target, rule in rules.items()}
        return Registry(MappingProxyType({**self.rules, **named}))


_BUILT_IN: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """File a built-in rule under one or more operator names.

    Raises:
        ValueError: a name has a rule already.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            if name in _BUILT_IN:
                raise ValueError(
                    f"{name} is served by {_BUILT_IN[name].__qualname__} already; "
                    f"{function.__qualname__} cannot be filed under it as well"
                )
            _BUILT_IN[name] = function
        return function

    return register


def filed() -> Registry:
    """All that :func:`rule` has filed so far; ``labeltrace.rules.BUILT_IN`` is the finished one."""
    return Registry(MappingProxyType(dict(_BUILT_IN)))


def operator_name(target: Any) -> str:
    """The name of an operator: ``torch.ops.aten.add`` or one of its overloads, or a string.

    Raises:
        TypeError: ``target`` is none of these.
    """
    if isinstance(target, str):
        return target
    name = getattr(target, "_qualified_op_name", None) or getattr(target, "_name", None)
    if not isinstance(name, str):
        raise TypeError(
            f"{target!r} names no operator: use one of torch.ops (torch.ops.aten.linear) or its "
            'name ("aten.linear")'
        )
    return name.replace("::", ".")


def _callable(target: Any, rule: Rule) -> Rule:
    if not callable(rule):
        raise TypeError(f"the rule for {operator_name(target)} is not a function: {rule!r}")
    return rule
