"""The two engines of one aligned model, and which of them serves a call.

The first call of a form is the plain model's own run, which is recorded. What the run shows, and
what it changed in the model, tells whether a graph can hold it. If so, the graph is made and
proves itself: run on the same inputs in the same state, it must do what the model did. Later calls
of that form, with the model in that state, run the graph. All others are recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves

from labeltrace.capture.capture_lock import capturing, wait_for_captures
from labeltrace.capture.export_errors import first_lines
from labeltrace.capture.inputs import first_tensor
from labeltrace.capture.model_kinds import check_devices
from labeltrace.errors import CaptureError, LabelError, LabelTraceError, callers_level
from labeltrace.model_state.difference import Difference, DifferenceKind
from labeltrace.model_state.differences import differences
from labeltrace.model_state.snapshot import Snapshot, take_snapshot
from labeltrace.model_state.state_key import StateWatch
from labeltrace.recording.record import Run
from labeltrace.rule_api.registry import Registry
from labeltrace.runtime.cache_key import call_key
from labeltrace.runtime.capture_proof import difference_of_labels, difference_of_outputs
from labeltrace.runtime.changing_line import changing_line
from labeltrace.runtime.engine_choice import Engine, EngineChoice, EngineName, EngineWarning
from labeltrace.runtime.graph_cache import GraphCache
from labeltrace.runtime.recorded_programs import RecordedPrograms
from labeltrace.runtime.run_reasons import Reason, has_fast_path, reason_of_run
from labeltrace.tracing.ablation import Ablation
from labeltrace.tracing.trace import Trace

LOOKS_IN_A_ROW: Final = 4
"""After so many calls of one form, each with the model in a new state, it is recorded for good."""

LOOKS_WITH_CHANGES: Final = 2
"""So often a model may change its own state in calls of one form: the first may be special."""


@dataclass(slots=True)
class _Form:
    """What has been found out about calls of one form.

    Attributes:
        looks: calls in a row that found the model in a state that was new.
        changes: calls that changed the state of the model.
        settled: the reason why such calls are recorded, whatever the state.
        has_fast_path: whether the model takes torch's fused paths, which no rule can follow.
    """

    looks: int = 0
    changes: int = 0
    settled: Reason | None = None
    has_fast_path: bool = False


@dataclass(slots=True)
class _Verdicts:
    """The engine by form, state and size of the batch: a graph's number, or why there is none."""

    graphs: dict[Hashable, int] = field(default_factory=dict)
    refused: dict[Hashable, Reason] = field(default_factory=dict)
    forms: dict[Hashable, _Form] = field(default_factory=dict)
    choices: dict[Hashable, EngineChoice] = field(default_factory=dict)


class Engines:
    """Runs a model with labels on the engine that is true to it.

    Attributes:
        model: the model.
        channel_dim: the channel axis of the input that carries labels.
        engine: what the caller asked for.
        state_watch: watches the state of the model.
        graphs: the captures.
        programs: the recorded programs.
    """

    def __init__(
        self,
        model: nn.Module,
        registry: Registry,
        channel_dim: int,
        ablation: Ablation,
        engine: EngineName,
    ) -> None:
        if engine not in ("auto", "captured", "recorded"):
            raise ValueError(f"engine={engine!r}; it is one of 'auto', 'captured', 'recorded'")
        self.model = model
        self.channel_dim = channel_dim
        self.engine = engine
        self.state_watch = StateWatch(model)
        self.graphs = GraphCache(model, registry, channel_dim, ablation, self.state_watch)
        self.programs = RecordedPrograms(model, registry, channel_dim, ablation)
        self.graphs.check_true = self.check_true
        self._arguments = (model, registry, channel_dim, ablation, engine)
        self._verdicts = _Verdicts()
        self._told: set[str] = set()
        self._last: Callable[[], str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy finds out for itself: what is known here is about this model's parameters.
        return Engines, self._arguments

    def __len__(self) -> int:
        return len(self.graphs.graphs) + len(self.programs)

    # Calls.

    def run(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: Tensor) -> Any:
        """The model's outputs and their labels.

        Raises:
            CaptureError: the model cannot be captured truly, and `engine` is "captured".
            UnknownOperatorError: operators without a rule.
            LayoutError: positions cannot be followed.
        """
        wait_for_captures()
        form = self._form(args, kwargs)
        if self.engine == "recorded" or self._settled(form):
            return self._recorded(args, kwargs, labels, form)
        key = (form, self.state_watch.key())
        number = self._verdicts.graphs.get(key)
        if number is not None:
            self._verdicts.forms[form].looks = 0
            return self._captured(number, args, kwargs, labels)
        if key in self._verdicts.refused:
            return self._recorded(args, kwargs, labels, form)
        with capturing():
            return self._first_call(key, args, kwargs, labels)

    def trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
        """What a call would do to labels; the model's state stays as it is.

        Raises:
            LabelTraceError: as `run`.
        """
        wait_for_captures()
        form = self._form(args, kwargs)
        if self.engine == "recorded" or self._settled(form):
            return self._recorded_trace(args, kwargs)
        try:
            graph = self.graphs.graph(args, kwargs)
        except LabelTraceError as error:
            if self.engine == "captured":
                raise
            try:
                trace = self._recorded_trace(args, kwargs)
            except Exception as other:  # the model fails itself, or neither engine follows it
                raise error from other
            self._refuse(form, (form, self.state_watch.key()), _capture_reason(error))
            return trace
        self._last = lambda: graph.generated.label_code
        return graph.trace

    def _recorded_trace(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
        with capturing():
            before = take_snapshot(self.model)
            try:
                run = self.programs.run(args, kwargs)
            finally:
                before.restore()
            program = self.programs.program(run, args, kwargs)
        self._last = lambda: program.half.label_code
        return program.trace

    def label_code(self) -> str:
        """The label half of the program that was used last.

        Raises:
            LabelError: there is none yet.
        """
        if self._last is None:
            raise LabelError(
                "no label graph yet: call the module with labels once, or pass an example to align"
            )
        return self._last()

    def report(self) -> tuple[EngineChoice, ...]:
        """The engine for each form of call so far."""
        return tuple(self._verdicts.choices.values())

    def check_true(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Check that a graph is true to the model, whose state is put back.

        Raises:
            CaptureError: it is not, or it cannot be captured at all.
        """
        key = (self._form(args, kwargs), self.state_watch.key())
        if key in self._verdicts.graphs:
            return
        _, image = first_tensor(args, kwargs)
        sizes = [1] * (image.dim() - 2)
        labels = torch.ones(image.shape[0], 1, *sizes, device=image.device)
        with capturing():
            before = take_snapshot(self.model)
            try:
                run = self.programs.run(args, kwargs)
                reason = self._reason(run, before, take_snapshot(self.model), args, kwargs, labels)
            finally:
                before.restore()
        if reason is not None:
            raise CaptureError(
                f"a graph would not be true to {type(self.model).__name__}: {reason.text}"
                f"{_at(reason.line)}; torch.compile takes captured models alone: call the aligned "
                "model without it, which records the model as it runs"
            )

    def _reason(
        self,
        run: Run,
        before: Snapshot,
        after: Snapshot,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
    ) -> Reason | None:
        reason = reason_of_run(run, self.model)
        reason = reason or _reason_of_changes(self.model, differences(before, after))
        return reason or self._prove(run, before, after, args, kwargs, labels).reason

    # The engines.

    def _captured(
        self, number: int, args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: Tensor
    ) -> Any:
        graph = self.graphs.graphs[number]
        self._last = lambda: graph.generated.label_code
        return graph.run(self.model, args, kwargs, labels)

    def _recorded(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
        form: Hashable,
    ) -> Any:
        known = self._verdicts.forms.get(form)
        if known is None:
            return self._first_recorded(args, kwargs, labels, form)
        if not known.has_fast_path:
            run = self.programs.run(args, kwargs)
            return run.outputs, self._labels_of(run, args, kwargs, labels)
        before = take_snapshot(self.model)
        found = self._labels_without_fast_paths(before, args, kwargs, labels)
        return self.model(*args, **kwargs), found

    def _first_recorded(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
        form: Hashable,
    ) -> Any:
        """The first call of a form where the recorded engine was asked for."""
        check_devices(self.model, first_tensor(args, kwargs)[1])
        known = _Form()
        before = take_snapshot(self.model)
        run = self.programs.run(args, kwargs)
        try:
            found = self._labels_of_first(run, before, known, args, kwargs, labels)
        except LabelTraceError:
            before.restore()  # the call gives nothing, so it leaves nothing behind
            raise
        self._verdicts.forms[form] = known
        self._choose(form, Reason("engine='recorded' was asked for"))
        return run.outputs, found

    def _labels_of_first(
        self,
        run: Run,
        before: Snapshot,
        known: _Form,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
    ) -> Any:
        known.has_fast_path = has_fast_path(run)
        if not known.has_fast_path:
            return self._labels_of(run, args, kwargs, labels)
        after = take_snapshot(self.model)
        before.restore()
        try:
            return self._labels_without_fast_paths(before, args, kwargs, labels)
        finally:
            after.restore()

    def _labels_without_fast_paths(
        self,
        before: Snapshot,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
    ) -> Any:
        """Labels by a run of the model on the written-out paths; its state is put back then."""
        enabled = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            run = self.programs.run(args, kwargs)
        finally:
            torch.backends.mha.set_fastpath_enabled(enabled)
            before.restore()
        return self._labels_of(run, args, kwargs, labels)

    def _labels_of(
        self, run: Run, args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: Tensor
    ) -> Any:
        program = self.programs.program(run, args, kwargs)
        self._last = lambda: program.half.label_code
        return program.labels(run, labels)

    # The choice.

    def _first_call(
        self, key: Hashable, args: tuple[Any, ...], kwargs: Mapping[str, Any], labels: Tensor
    ) -> Any:
        """Run the model as it is, find its engine, and give the labels of that engine."""
        check_devices(self.model, first_tensor(args, kwargs)[1])
        before = take_snapshot(self.model)
        run = self.programs.run(args, kwargs)
        try:
            return self._chosen(key, before, run, args, kwargs, labels)
        except LabelTraceError:
            before.restore()  # the call gives nothing, so it leaves nothing behind
            raise

    def _chosen(
        self,
        key: Hashable,
        before: Snapshot,
        run: Run,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
    ) -> Any:
        """The outputs of the first run, and labels by the engine that is chosen for such calls."""
        form: Hashable = key[0]  # type: ignore[index]
        after = take_snapshot(self.model)
        changes = differences(before, after)
        reason = reason_of_run(run, self.model) or _reason_of_changes(self.model, changes)
        proof: _Proof | None = None
        if reason is None:
            proof = self._prove(run, before, after, args, kwargs, labels)
            reason = proof.reason
        if reason is None:
            assert proof is not None
            self._accept(form, key, proof.number)
            graph = self.graphs.graphs[proof.number]
            self._last = lambda: graph.generated.label_code
            return run.outputs, proof.labels
        self._refuse(form, key, reason, changed=bool(_of_python(changes)))
        if self.engine == "captured":
            raise CaptureError(
                f"a graph would not be true to {type(self.model).__name__}: {reason.text}"
                f"{_at(reason.line)}; use engine='auto' or engine='recorded'"
            )
        known = self._verdicts.forms[form]
        try:
            found = self._labels_of_first(run, before, known, args, kwargs, labels)
        except LabelTraceError as other:
            if proof is not None and proof.error is not None:
                raise proof.error from other  # its sizes are open where the batch is
            raise
        return run.outputs, found

    def _prove(
        self,
        run: Run,
        before: Snapshot,
        after: Snapshot,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
    ) -> _Proof:
        """Capture the model as it was before the run, and compare what the graph does."""
        try:
            before.restore()
            try:
                number = self.graphs.find_or_build(args, kwargs)
            except LabelTraceError as error:  # a graph may lack sizes that a record has
                return _Proof(_capture_reason(error), error=error)
            before.restore()
            graph = self.graphs.graphs[number]
            try:
                outputs, found = graph.run(self.model, args, kwargs, labels)
            except Exception as error:  # whatever the graph raises, the model did not
                return _Proof(Reason(f"its graph fails: {first_lines(error)}"))
            reason = self._compare(run, after, outputs, found, args, kwargs, labels)
            return _Proof(reason, number, found)
        finally:
            after.restore()

    def _compare(
        self,
        run: Run,
        after: Snapshot,
        outputs: Any,
        found: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        labels: Tensor,
    ) -> Reason | None:
        text = difference_of_outputs(tree_flatten(run.outputs), tree_flatten(outputs))
        if not text:
            changes = differences(after, take_snapshot(self.model), rebound=False)
            text = f"its graph leaves another state: {changes[0].text}" if changes else ""
        if text:
            return Reason(text)
        try:
            recorded = self.programs.program(run, args, kwargs).labels(run, labels)
        except LabelTraceError:
            return None  # the recorded engine cannot follow it, so nothing can be compared
        text = difference_of_labels(_leaves(recorded), _leaves(found))
        return Reason(text) if text else None

    def _accept(self, form: Hashable, key: Hashable, number: int) -> None:
        self._verdicts.graphs[key] = number
        self._count_look(form)
        self._choose(form, None)

    def _refuse(self, form: Hashable, key: Hashable, reason: Reason, changed: bool = False) -> None:
        known = self._count_look(form)
        if changed:
            known.changes += 1
        if not changed:
            self._verdicts.refused[key] = reason
        elif known.changes >= LOOKS_WITH_CHANGES:
            known.settled = reason
        self._choose(form, reason)

    def _count_look(self, form: Hashable) -> _Form:
        known = self._verdicts.forms.setdefault(form, _Form())
        known.looks += 1
        if known.looks > LOOKS_IN_A_ROW and known.settled is None:
            known.settled = Reason(
                f"the state of the model was another one in each of {known.looks} calls"
            )
        return known

    def _settled(self, form: Hashable) -> bool:
        known = self._verdicts.forms.get(form)
        return known is not None and known.settled is not None

    def _choose(self, form: Hashable, reason: Reason | None) -> None:
        """Keep the choice for the report, and tell the user once why a model is recorded."""
        engine = Engine.CAPTURED if reason is None else Engine.RECORDED
        text, line, subject = reason or Reason("")
        inputs, training = form[-2:]  # type: ignore[index]
        self._verdicts.choices[form] = EngineChoice(engine, inputs, training, text, line)
        told = subject or text
        if reason is None or self.engine != "auto" or told in self._told:
            return
        self._told.add(told)
        warnings.warn(
            f"{type(self.model).__name__} is recorded, which is slower than a captured graph: "
            f"{text}{_at(line)}",
            EngineWarning,
            stacklevel=callers_level(),
        )

    def _form(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """What a choice depends on, apart from the state of the model."""
        _, image = first_tensor(args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        return (
            call_key(args, kwargs, image.shape[0]),
            tuple(tensor.requires_grad for tensor in tensors),
            torch.is_inference_mode_enabled(),
            tuple(tuple(tensor.shape) for tensor in tensors),
            self.model.training,
        )


@dataclass(frozen=True, slots=True)
class _Proof:
    """The outcome: why no graph is true to the model, or the number and labels of one that is."""

    reason: Reason | None
    number: int = -1
    labels: Any = None
    error: LabelTraceError | None = None


def _leaves(labels: Any) -> list[Any]:
    """The labels of outputs, None for those without one."""
    return tree_leaves(labels, is_leaf=lambda leaf: leaf is None)


def _of_python(changes: tuple[Difference, ...]) -> tuple[Difference, ...]:
    """The changes of state that a graph does not make."""
    return tuple(change for change in changes if not _is_in_graph(change))


def _is_in_graph(change: Difference) -> bool:
    """Whether a graph makes such changes too: of buffers, parameters and torch's generators."""
    if change.kind is DifferenceKind.GENERATOR:
        return change.path == "torch" or change.path.startswith("torch.")
    return change.kind in (DifferenceKind.BUFFER, DifferenceKind.PARAMETER)


def _reason_of_changes(model: nn.Module, changes: tuple[Difference, ...]) -> Reason | None:
    found = _of_python(changes)
    if not found:
        return None
    text = f"its forward changes state beside the graph: {found[0].text}"
    return Reason(text, changing_line(model, found[0].path), found[0].path)


def _capture_reason(error: LabelTraceError) -> Reason:
    first = str(error).splitlines()
    if not isinstance(error, CaptureError):
        return Reason(f"a graph of it cannot be followed: {' '.join(first[1:2]).strip()}")
    line = next((text.strip() for text in first if text.strip().startswith("stopped at")), "")
    what = first[2 if line else 1].strip() if len(first) > 2 else first[0]
    return Reason(f"torch.export stops: {what}", line.removeprefix("stopped at "))


def _at(line: str) -> str:
    return f" ({line})" if line else ""
