"""The two engines of one aligned model, and which of them serves a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from labeltrace.rule_api.registry import Registry
from labeltrace.runtime.engine_choice import EngineChoice, EngineName
from labeltrace.runtime.graph_cache import GraphCache
from labeltrace.runtime.recorded_programs import RecordedPrograms
from labeltrace.tracing.ablation import Ablation
from labeltrace.tracing.trace import Trace


class Engines:
    """Runs a model with labels on the engine that is true to it."""

    def __init__(
        self,
        model: nn.Module,
        registry: Registry,
        channel_dim: int,
        ablation: Ablation,
        engine: EngineName,
    ) -> None:
        self.model = model
        self.channel_dim = channel_dim
        self.engine = engine
        self.graphs = GraphCache(model, registry, channel_dim, ablation)
        self.programs = RecordedPrograms(model, registry, channel_dim, ablation)

    def __len__(self) -> int:
        return len(self.graphs.graphs) + len(self.programs)

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: Tensor) -> Any:
        if self.engine == "recorded":
            run = self.programs.run(args, kwargs)
            return run.outputs, self.programs.program(run, args, kwargs).labels(run, labels)
        return self.graphs.graph(args, kwargs).run(self.model, args, kwargs, labels)

    def trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
        if self.engine == "recorded":
            return self.programs.program(self.programs.run(args, kwargs), args, kwargs).trace
        return self.graphs.graph(args, kwargs).trace

    def label_code(self) -> str:
        return self.graphs.label_code()

    def report(self) -> tuple[EngineChoice, ...]:
        return ()
