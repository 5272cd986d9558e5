"""The recorded engine: the model runs as it is, then labels follow what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_unflatten

from labeltrace.codegen.label_half import LabelHalf, generate_label_half
from labeltrace.errors import LabelTraceError
from labeltrace.recording.record import Run, record
from labeltrace.recording.recorded_calls import Recording, TensorInfo
from labeltrace.recording.recorded_graph import recorded_capture
from labeltrace.rule_api.registry import Registry
from labeltrace.tracing.ablation import Ablation, ablated
from labeltrace.tracing.tensors_read import tensors_read
from labeltrace.tracing.trace import Trace
from labeltrace.tracing.trace_graph import trace_graph

MOST_PROGRAMS: Final = 64
"""How many programs are kept for a model; those used last stay."""


@dataclass(frozen=True, eq=False, slots=True)
class RecordedProgram:
    """The labels of one sequence of calls.

    Attributes:
        recording: the calls.
        trace: what each of them does to labels.
        half: the label program.
        reads: the numbers of the tensors that it takes, in order.
        worth_keeping: the numbers of the tensors that a run with the same first calls may need.
    """

    recording: Recording
    trace: Trace
    half: LabelHalf
    reads: tuple[int, ...]
    worth_keeping: frozenset[int]

    def labels(self, run: Run, label_image: Tensor) -> Any:
        """The labels of the outputs of a run with these calls, in the structure of the outputs.

        Raises:
            LabelTraceError: a tensor that labels need was not kept.
        """
        missing = [number for number in self.reads if number not in run.kept]
        if missing:
            raise LabelTraceError(
                f"the model made other calls than in earlier runs, and {len(missing)} tensors that "
                "its labels need were gone by then; the outputs are lost with this error. This is "
                "a fault of labeltrace; please report the model, and call it again meanwhile"
            )
        with torch.no_grad():
            found = self.half.module(*[run.kept[number] for number in self.reads], label_image)
        return tree_unflatten(list(found), run.output_spec)


class RecordedPrograms:
    """The programs of one model, by what was recorded.

    Args:
        model: the model.
        registry: the rules.
        channel_dim: the channel axis of the input that carries labels.
        ablation: which parts of the alignment to leave out.
    """

    def __init__(
        self, model: nn.Module, registry: Registry, channel_dim: int, ablation: Ablation
    ) -> None:
        self._model = model
        self._registry = registry
        self._channel_dim = channel_dim
        self._ablation = ablation
        self._programs: list[RecordedProgram] = []  # the one used last comes first

    def __len__(self) -> int:
        return len(self._programs)

    @property
    def last(self) -> RecordedProgram | None:
        """The program that was used last."""
        return self._programs[0] if self._programs else None

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Run:
        """Run the model as it is; what labels may need is kept with the run."""
        known = [p for p in self._programs if _fits(p.recording.inputs, args, kwargs)]
        if not known:
            return record(self._model, args, kwargs, functions=self._registry.functions)
        return record(
            self._model,
            args,
            kwargs,
            functions=self._registry.functions,
            followed=known[0].recording,
            reads=frozenset().union(*(program.worth_keeping for program in known)),
        )

    def program(
        self, run: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> RecordedProgram:
        """The program for the calls of a run; it is made if there is none.

        Raises:
            CaptureError: no argument carries labels.
            UnknownOperatorError: operators without a rule.
            LayoutError: positions cannot be followed.
        """
        found = next((p for p in self._programs if p.recording == run.recording), None)
        if found is None:
            found = self._build(run, args, kwargs)
        others = [program for program in self._programs if program is not found]
        self._programs = [found, *others[: MOST_PROGRAMS - 1]]
        return found

    def _build(self, run: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RecordedProgram:
        capture, numbers = recorded_capture(run, self._model, args, kwargs, self._channel_dim)
        trace = ablated(trace_graph(capture, self._registry), self._ablation)
        half = generate_label_half(trace)
        reads = tuple(numbers[name] for name in half.reads)
        worth = frozenset(numbers[name] for name in tensors_read(trace)) | frozenset(reads)
        return RecordedProgram(run.recording, trace, half, reads, worth)


def _fits(inputs: tuple[TensorInfo, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the tensors among the arguments have the shapes and types of a recording's inputs."""
    leaves = torch.utils._pytree.tree_leaves((args, dict(kwargs)))
    given = list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())
    return len(given) == len(inputs) and all(
        tuple(leaf.shape) == known.shape and leaf.dtype == known.dtype
        for leaf, known in zip(given, inputs, strict=True)
    )
