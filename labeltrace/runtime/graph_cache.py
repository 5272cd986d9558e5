"""Label graphs: a model's captures with their generated modules, made once for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from labeltrace.capture.export import Capture, capture, first_tensor, live_state
from labeltrace.codegen.generate import Generated, generate
from labeltrace.codegen.restore_modes import modes_kept
from labeltrace.errors import LabelError
from labeltrace.rule_api.registry import Registry
from labeltrace.runtime.cache_key import call_settings, settings_of
from labeltrace.tracing.ablation import Ablation, ablated
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.trace_graph import trace_graph

LIVE_CACHES: WeakValueDictionary[int, GraphCache] = WeakValueDictionary()
"""Every :class:`GraphCache` there is, by its identity."""


@dataclass(frozen=True, slots=True)
class LabelGraph:
    """One capture with its trace and its generated module.

    ``modules`` keeps alive the modules whose identities are among the graph's settings.
    """

    capture: Capture
    trace: Trace
    generated: Generated
    modules: tuple[nn.Module, ...]

    def with_batch_range(self, found: Capture) -> LabelGraph:
        """The same graph for another range of the batch."""
        return replace(self, capture=found, trace=replace(self.trace, capture=found))

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
    """The label graphs of one model; a call finds its own here, or has it made.

    ``made`` has them by number, in the order in which they were made.
    """

    def __init__(
        self, model: nn.Module, registry: Registry, channel_dim: int, ablation: Ablation
    ) -> None:
        self.model = model
        self.registry = registry
        self.channel_dim = channel_dim
        self.ablation = ablation
        self.graphs: dict[int, LabelGraph] = {}
        self._numbers: dict[tuple[Any, ...], tuple[int, ...]] = {}
        LIVE_CACHES[id(self)] = self

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy makes its own graphs: they belong to a model's parameters.
        return GraphCache, (self.model, self.registry, self.channel_dim, self.ablation)

    def graph(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LabelGraph:
        """The graph that serves a call; the errors are those of :meth:`number`."""
        return self.graphs[self.find_or_build(args, kwargs)]

    def find_or_build(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """The number of the graph that serves a call; it is made if there is none.

        Raises:
            CaptureError: the model cannot be captured on these inputs.
            UnknownOperatorError: operators without a rule.
            LayoutError: positions cannot be followed.
        """
        key, batch = self._key(args, kwargs)
        known = self._numbers.get(key, ())
        for number in known:
            if self.graphs[number].capture.holds_for(batch):
                return number
        dynamic = next((n for n in known if self.graphs[n].capture.dynamic_batch), None)
        found = self._captured(args, kwargs, dynamic)
        if dynamic is not None and found.graph is self.graphs[dynamic].capture.graph:
            self.graphs[dynamic] = self.graphs[dynamic].with_batch_range(found)
            return dynamic
        number = len(self.graphs)
        self.graphs[number] = self._made(found)
        self._numbers[key] = (*known, number)
        return number

    def matching(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
        """The numbers of the graphs that have been made for such a call with any batch."""
        key, _ = self._key(args, kwargs)
        return self._numbers.get(key, ())

    def _key(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, int]:
        _, image = first_tensor(args, kwargs)
        batch = image.shape[0]
        return (call_settings(args, kwargs, batch), settings_of(self.model)), batch

    def _captured(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic: int | None
    ) -> Capture:
        """A capture for a call; ``dynamic`` has the graph for such calls with other batches."""
        return capture(
            self.model,
            args,
            kwargs,
            channel_dim=self.channel_dim,
            whole=self.registry.functions,
            dynamic=None if dynamic is None else self.graphs[dynamic].capture,
        )

    def _made(self, found: Capture) -> LabelGraph:
        trace = ablated(trace_graph(found, self.registry), self.ablation)
        return LabelGraph(found, trace, generate(trace), tuple(self.model.modules()))

    def label_code(self) -> str:
        """The label half of the last module that was made.

        Raises:
            LabelError: none has been made yet.
        """
        if not self.graphs:
            raise LabelError(
                "no label graph yet: call the module with labels once, or pass an example to align"
            )
        return self.graphs[len(self.graphs) - 1].generated.label_code
