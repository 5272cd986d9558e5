"""Regions: runs of calls that a rule for a module class or function takes as one step."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.capture.call_records import CallKind, CallRecord, ModelCalls
from labeltrace.rule_api.call import Rule
from labeltrace.rule_api.registry import Registry


@dataclass(frozen=True, slots=True)
class Region:
    """One call of a module or function that has a rule of its own.

    Attributes:
        name: the name of the class or function.
        rule: its rule.
        module_path: the module's path; empty for functions.
        calls: the calls inside it, in order.
        inputs: the names of the records that it reads from outside, in the order of reading.
        outputs: the names of its own records that are read outside.
    """

    name: str
    rule: Rule
    module_path: str
    calls: tuple[CallRecord, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def last(self) -> CallRecord:
        """The call after which all values of the region are known."""
        return self.calls[-1]


@dataclass(frozen=True, slots=True)
class _Owner:
    """The module or function whose rule serves a call; `key` is the same for all its calls."""

    key: str
    name: str
    rule: Rule
    module_path: str


def find_regions(calls: ModelCalls, registry: Registry) -> dict[str, Region]:
    """The region of each call that lies in one, by the call's name.

    Of regions inside regions the outermost one counts, and modules come before functions.
    """
    if not registry.modules and not registry.functions:
        return {}
    members: dict[str, list[CallRecord]] = {}
    owners: dict[str, _Owner] = {}
    for call in calls:
        owner = _owner(call, registry)
        if owner is not None:
            owners[owner.key] = owner
            members.setdefault(owner.key, []).append(call)
    regions = (_region(owners[key], inside) for key, inside in members.items())
    return {call.name: region for region in regions for call in region.calls}


def _owner(call: CallRecord, registry: Registry) -> _Owner | None:
    """The outermost module or function around a call that has a rule."""
    if call.kind not in (CallKind.OPERATOR, CallKind.ITEM):
        return None
    for module in call.modules:
        rule = registry.for_module(module.kind) if module.kind is not None else None
        if module.kind is not None and rule is not None:
            return _Owner(module.key, module.kind.__qualname__, rule, module.path)
    if call.function is None:
        return None
    function = call.function.function
    return _Owner(call.function.key, function.__qualname__, registry.functions[function], "")


def _region(owner: _Owner, calls: list[CallRecord]) -> Region:
    inside = {call.name for call in calls}
    read = (name for call in calls for name in call.inputs if name not in inside)
    return Region(
        name=owner.name,
        rule=owner.rule,
        module_path=owner.module_path,
        calls=tuple(calls),
        inputs=tuple(dict.fromkeys(read)),
        outputs=tuple(call.name for call in calls if not inside.issuperset(call.users)),
    )
