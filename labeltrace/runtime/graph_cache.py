"""The label graphs of a model: each capture with its trace and generated module, built once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from labeltrace.capture.capture import capture_model, extend_to_single_sample
from labeltrace.capture.captured import Capture, live_state
from labeltrace.capture.inputs import first_tensor
from labeltrace.codegen.generate import Generated, generate
from labeltrace.codegen.restore_modes import modes_kept
from labeltrace.model_state.snapshot import take_snapshot
from labeltrace.model_state.state_key import StateWatch
from labeltrace.rule_api.registry import Registry
from labeltrace.runtime.cache_key import call_key, plain_state
from labeltrace.tracing.ablation import Ablation, ablated
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.trace_graph import trace_graph

LIVE_CACHES: WeakValueDictionary[int, GraphCache] = WeakValueDictionary()
"""Every `GraphCache` that exists, by its identity."""


@dataclass(frozen=True, slots=True)
class LabelGraph:
    """One capture with its trace and its generated module."""

    capture: Capture
    trace: Trace
    generated: Generated

    def with_capture(self, extended: Capture) -> LabelGraph:
        """The same graph for other sizes of the batch."""
        return replace(self, capture=extended, trace=replace(self.trace, capture=extended))

    def run(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: Tensor
    ) -> tuple[Any, Any]:
        """The model's outputs and their labels; parameters and buffers are the model's own."""
        leaves, _ = tree_flatten((args, dict(kwargs)))
        state = live_state(model, self.capture)
        device = labels.device.type
        with modes_kept(device) if self.capture.switches_modes else nullcontext():
            results = self.generated.module(*state, *leaves, labels)
        spec = self.capture.output_spec
        outputs, found = results[: spec.num_leaves], results[spec.num_leaves :]
        return tree_unflatten(list(outputs), spec), tree_unflatten(list(found), spec)


class GraphCache:
    """The label graphs of one model: a call finds its graph here, or has it built.

    Attributes:
        graphs: the graphs by number, in the order in which they were built.  `torch.compile` is
            the reason for the numbers: what is computed while it traces a call must be a constant
            for it, which an integer is and a graph is not.
    """

    def __init__(
        self,
        model: nn.Module,
        registry: Registry,
        channel_dim: int,
        ablation: Ablation,
        state_watch: StateWatch,
    ) -> None:
        self.model = model
        self.state_watch = state_watch
        self.registry = registry
        self.channel_dim = channel_dim
        self.ablation = ablation
        self.graphs: dict[int, LabelGraph] = {}
        self.check_true: Callable[[tuple[Any, ...], Mapping[str, Any]], None] | None = None
        self._numbers: dict[tuple[Any, ...], tuple[int, ...]] = {}  # by key
        LIVE_CACHES[id(self)] = self

    def graph(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LabelGraph:
        """The graph for a call; the errors are those of `find_or_build`."""
        return self.graphs[self.find_or_build(args, kwargs)]

    def find_or_build(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """The number of the graph for a call; the graph is built if there is none.

        Raises:
            CaptureError: the model cannot be captured on these inputs.
            UnknownOperatorError: operators without a rule.
            LayoutError: positions cannot be followed.
        """
        key, batch = self._key(args, kwargs)
        known = self._numbers.get(key, ())
        for number in known:
            if self.graphs[number].capture.batch.holds_for(batch):
                return number
        dynamic = next((n for n in known if self.graphs[n].capture.batch.dynamic), None)
        if dynamic is None or not self._may_extend(dynamic, batch):
            return self._add(key, self._capture(args, kwargs))
        extended = self._extend(dynamic, args, kwargs)
        if extended.graph is not self.graphs[dynamic].capture.graph:
            return self._add(key, extended)
        self.graphs[dynamic] = self.graphs[dynamic].with_capture(extended)
        return dynamic

    def matching(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """The numbers of the graphs that have been built for such a call with any batch."""
        key, _ = self._key(args, kwargs)
        return self._numbers.get(key, ())

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, int]:
        _, image = first_tensor(args, kwargs)
        batch = image.shape[0]
        state = self.state_watch.key if not torch.compiler.is_exporting() else self._plain_state
        return (call_key(args, kwargs, batch), state()), batch

    def _plain_state(self) -> tuple[Any, ...]:
        return plain_state(self.model)

    def _may_extend(self, dynamic: int, batch: int) -> bool:
        """Whether a call with one sample may share a graph that starts at two."""
        return batch == 1 and self.graphs[dynamic].capture.batch.may_start_at_one

    def _capture(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Capture:
        functions = self.registry.functions
        before = take_snapshot(self.model)
        try:
            return capture_model(
                self.model, args, kwargs, channel_dim=self.channel_dim, whole=functions
            )
        finally:
            before.restore()  # an export runs the model's code, which may fill a cache

    def _extend(self, dynamic: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Capture:
        found = self.graphs[dynamic].capture
        functions = self.registry.functions
        before = take_snapshot(self.model)
        try:
            return extend_to_single_sample(found, self.model, args, kwargs, whole=functions)
        finally:
            before.restore()

    def _add(self, key: tuple[Any, ...], found: Capture) -> int:
        """Trace a capture, generate its module, and keep both under a new number."""
        number = len(self.graphs)
        trace = ablated(trace_graph(found, self.registry), self.ablation)
        self.graphs[number] = LabelGraph(found, trace, generate(trace))
        for known_by in (key, (key[0], self._plain_state())):
            self._numbers[known_by] = (*self._numbers.get(known_by, ()), number)
        return number
