"""The outputs of a model: which label each has (contract, point 10)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from labeltrace.errors import LayoutError
from labeltrace.flow import ValueRef
from labeltrace.layout import shape_text
from labeltrace.rule_api.registry import Registry
from labeltrace.tracing.content_reading import ContentReading
from labeltrace.tracing.diagnostics import Diagnostics
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.problems import Problem
from labeltrace.tracing.traced_node import TracedNode
from labeltrace.tracing.values import Failed, PositionsUnknown, Value

WITHOUT_LABEL = "the model returns mixing weights that it computed from the image"

OTHER_SHAPE = "the label of an output has another shape than the output"


class OutputReader:
    """Reads the values that a model returns, after all of its calls."""

    def __init__(
        self, environment: Environment, registry: Registry, diagnostics: Diagnostics
    ) -> None:
        self._environment = environment
        self._diagnostics = diagnostics
        self._content = ContentReading(environment, registry)

    def value(self, leaf: Any) -> Value | None:
        """What is known of a leaf of the output; None for what does not come from the image."""
        if not isinstance(leaf, ValueRef) or self._environment.states([leaf.name], Failed):
            return None
        value = self._environment.value(leaf.name)
        unlabeled = value is not None and value.field is None
        if unlabeled or self._environment.states([leaf.name], PositionsUnknown):
            value = self._as_content(leaf.name) or value
        self._check_shape(leaf.name, value)
        return value

    def with_content(self, nodes: Iterable[TracedNode]) -> list[TracedNode]:
        """The nodes, with those as content whose results nobody reads as weights."""
        alone = self._content.content_alone()
        for name in alone:
            self._environment.assign(name, self._content.state(name))
        return [self._content.nodes[x.name] if x.name in alone else x for x in nodes]

    def _as_content(self, name: str) -> Value | None:
        try:
            return self._content.value(name)
        except LayoutError as error:
            if self._environment.states([name], PositionsUnknown):
                self._diagnostics.add_unknown_positions([name], self._environment)
                return None
            record = self._environment.calls[name]
            message = f"{WITHOUT_LABEL}: {error}"
            self._diagnostics.add([Problem(record, record.operator, message)])
            return None

    def _check_shape(self, name: str, value: Value | None) -> None:
        """Check that the label of an output will have that output's shape."""
        record = self._environment.calls[name]
        shapes = [tensor.shape for tensor in record.tensors]
        if value is None or value.field is None or value.layout.shape in shapes:
            return
        message = f"{OTHER_SHAPE}: {value.layout} for an output of {shape_text(shapes[0])}"
        self._diagnostics.add([Problem(record, record.operator, message)])
