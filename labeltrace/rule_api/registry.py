"""Which rule serves which operator, module class or Python function.

Operators are filed by name: `"aten.linear"`, or one of its overloads, `"aten.pad.default"`; the
overload is looked up first, and an in-place operator is served by the rule of its functional twin.
Rules reach a trace in three ways, the nearest wins: given to `align(model, rules=...)`, within
`using_rules`, or filed for good with `rule`.  A second rule for a target is an error.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import nn

from labeltrace.rule_api.call import Rule

Function = Callable[..., Any]
AnyRule = TypeVar("AnyRule", bound=Rule)


@dataclass(frozen=True, slots=True)
class Registry:
    """A table of rules: by operator name, by module class, by Python function.

    It is never changed; one with other rules over it is a new one.
    """

    operators: Mapping[str, Rule] = field(default_factory=dict)
    modules: Mapping[type[nn.Module], Rule] = field(default_factory=dict)
    functions: Mapping[Function, Rule] = field(default_factory=dict)

    def find(self, names: tuple[str, ...]) -> Rule | None:
        """The rule filed under the first of `names` that has one."""
        for name in names:
            if name in self.operators:
                return self.operators[name]
        return None

    def for_module(self, kind: type) -> Rule | None:
        """The rule of a module class, or of the nearest of its bases that has one."""
        return next((self.modules[base] for base in kind.__mro__ if base in self.modules), None)

    def with_overrides(self, rules: Mapping[Any, Rule] | None) -> Registry:
        """This table with `rules` over it.

        Raises:
            TypeError: a key is no operator, module class or function, or a rule cannot be called.
        """
        table = self
        for target, rule in (rules or {}).items():
            table = table._with(target, rule)
        return table

    def get(self, target: Any) -> Rule | None:
        """The rule filed under exactly this target."""
        part, key = _table_and_key(target)
        return getattr(self, part).get(key)

    def _with(self, target: Any, rule: Rule) -> Registry:
        if not callable(rule):
            raise TypeError(f"the rule for {describe(target)} is not a function: {rule!r}")
        part, key = _table_and_key(target)
        return replace(self, **{part: {**getattr(self, part), key: rule}})


_registered = Registry()
_overrides: ContextVar[tuple[Mapping[Any, Rule], ...]] = ContextVar("labeltrace_rules", default=())


def register_rule(*targets: Any, override: bool = False) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for the whole process: `@labeltrace.register_rule(torch.ops.mine.blur)`.

    Args:
        *targets: operators (an overload, a packet, a `torch.library` custom operator, or a name
            such as `"aten.linear"`), `nn.Module` classes, or Python functions that models call.
        override: replace a rule that is there already.

    Raises:
        ValueError: a target has a rule already.
        TypeError: a target is none of these.

    Examples:
        >>> import torch
        >>> from labeltrace import register_rule, trace
        >>> from labeltrace.rule_helpers import carry
        >>> class Sharpen(torch.nn.Module):
        ...     def forward(self, images):
        ...         return 2 * images - torch.nn.functional.avg_pool2d(images, 3, 1, 1)
        >>> @register_rule(Sharpen)
        ... def sharpen(call):
        ...     return carry(call["input0"], call.output)  # every position keeps its label
        >>> model = torch.nn.Sequential(Sharpen())
        >>> [node.operator for node in trace(model, torch.rand(2, 3, 8, 8)).nodes]
        ['Sharpen']
    """

    def register(function: AnyRule) -> AnyRule:
        global _registered
        for target in targets:
            present = _registered.get(target)
            if present is not None and not override:
                raise ValueError(
                    f"{describe(target)} is served by {rule_name(present)} already; "
                    f"{rule_name(function)} can replace it with register_rule(..., override=True)"
                )
            _registered = _registered._with(target, function)
        return function

    return register


@contextlib.contextmanager
def using_rules(rules: Mapping[Any, Rule]) -> Iterator[None]:
    """Rules for every `align` and `trace` inside the `with`; inner ones win over outer ones.

    Raises:
        TypeError: a key is no operator, module class or function, or a rule cannot be called.

    Examples:
        >>> import torch
        >>> from labeltrace import FOLLOW_MAXIMA, trace, using_rules
        >>> model, images = torch.nn.MaxPool2d(2), torch.rand(2, 3, 8, 8)
        >>> trace(model, images).nodes[0].exact  # max pooling averages labels by default
        False
        >>> with using_rules(FOLLOW_MAXIMA):
        ...     trace(model, images).nodes[0].exact
        True
    """
    Registry().with_overrides(rules)
    token = _overrides.set((*_overrides.get(), dict(rules)))
    try:
        yield
    finally:
        _overrides.reset(token)


def current() -> Registry:
    """All rules filed for good, with those of the surrounding `using_rules` over them."""
    table = _registered
    for rules in _overrides.get():
        table = table.with_overrides(rules)
    return table


def operator_name(target: Any) -> str | None:
    """The name of an operator: one of `torch.ops`, a custom operator, or a string; else None."""
    if isinstance(target, str):
        return target
    for attribute in ("_qualified_op_name", "_qualname", "_name"):
        name = getattr(target, attribute, None)
        if isinstance(name, str) and "::" in name:
            return name.replace("::", ".")
    return None


def describe(target: Any) -> str:
    """A target as a person names it."""
    return operator_name(target) or str(getattr(target, "__qualname__", repr(target)))


def rule_name(rule: Rule) -> str:
    """A rule's name, file and line."""
    code = getattr(inspect.unwrap(rule), "__code__", None)
    where = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
    return f"{getattr(rule, '__qualname__', rule)}{where}"


def _table_and_key(target: Any) -> tuple[str, Any]:
    """The part of a registry in which a target is filed, and its key there."""
    if isinstance(target, type) and issubclass(target, nn.Module):
        return "modules", target
    name = operator_name(target)
    if name is not None:
        return "operators", name
    if inspect.isfunction(target):
        return "functions", target
    raise TypeError(
        f"{target!r} can have no rule: use an operator (torch.ops.aten.linear, or its name "
        '"aten.linear"), a subclass of nn.Module, or a Python function'
    )
