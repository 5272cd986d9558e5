"""What goes wrong during a walk, collected until its end so that one error names all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labeltrace.capture.call_records import CallRecord, ModelCalls, TensorRecord
from labeltrace.layout import Layout, has_positions
from labeltrace.rule_api.call import Shape
from labeltrace.tracing.environment import Environment
from labeltrace.tracing.operands import output_shapes, values_in
from labeltrace.tracing.problems import CallGraph, Problem, Unknown, problems_error
from labeltrace.tracing.regions import Region
from labeltrace.tracing.rule_stubs import UnknownCall
from labeltrace.tracing.values import Failed, PositionsUnknown

INDICES = ("index", "indices", "mask", "condition", "boundaries", "offsets", "lengths")
"""Words in the names of arguments that say which values are meant, if they are no numbers."""


class Diagnostics:
    """The problems and the calls without a rule that were found so far."""

    def __init__(self) -> None:
        self._problems: dict[Problem, None] = {}  # in order, each once
        self._unknown: list[Unknown] = []

    def add(self, problems: Iterable[Problem]) -> None:
        """Add problems that are not there yet."""
        self._problems.update(dict.fromkeys(problems))

    def add_unknown_positions(self, names: Iterable[str], environment: Environment) -> None:
        """Add what is in the way where something reads labels whose positions are not known."""
        for state in environment.states(names, PositionsUnknown).values():
            self.add(state.problems)

    def add_unknown(self, unknown: Unknown) -> None:
        """Add a call of an operator without a rule."""
        self._unknown.append(unknown)

    def raise_any(self, calls: ModelCalls, regions: Mapping[str, Region]) -> None:
        """Raise one error that names every call that could not be traced, if there are any.

        Raises:
            UnknownOperatorError: some operators have no rule.
            LayoutError: positions cannot be followed through some calls.
        """
        if self._problems or self._unknown:
            problems = sorted(self._problems, key=lambda problem: problem.call.index)
            merged = {name: region.last.name for name, region in regions.items()}
            raise problems_error(problems, self._unknown, CallGraph(calls, merged))


def unknown_operator(record: CallRecord, input_layout: Layout, environment: Environment) -> Unknown:
    """A call without a rule, with what the stub of a rule is written from.

    The stub moves the label of one operand: one that may carry labels and has the shape of an
    output, if there is one. Indices and masks say which values are meant and are none themselves.
    """
    calls = environment.calls
    outputs = output_shapes(record, calls)
    candidates = [
        (tensor, path, name)
        for path, name in values_in(record.arguments)
        if environment.comes_from_image(name) and (tensor := calls[name].tensor) is not None
    ]
    tensor, path, source = min(
        candidates,
        key=lambda candidate: (
            _is_index(candidate[1], candidate[0]),
            not candidate[0].is_floating,
            not _may_carry_labels(candidate[2], environment),
            candidate[0].shape not in outputs,
        ),
    )
    shape = tensor.shape
    if _is_index(path, tensor):
        outputs = ()  # nothing but an index comes from the image: no label to move
    channels = _known_channels(source, environment)
    if channels is None:
        channels = (calls.channel_dim,) if len(shape) == len(input_layout.axes) else ()
    stub = UnknownCall(record.operator, tuple(record.arguments), path, shape, channels, outputs)
    return Unknown(record, _operand_shapes(record, calls), stub)


def reads_tensor(record: CallRecord, environment: Environment) -> bool:
    """Whether a call reads a tensor that comes from the image, and not only sizes of one."""
    return any(
        environment.comes_from_image(name) and environment.calls[name].tensor is not None
        for _, name in values_in(record.arguments)
    )


def _is_index(path: str, tensor: TensorRecord) -> bool:
    """Whether an argument is an index or a mask, by its type and the name of its place."""
    return not tensor.is_floating and any(word in path for word in INDICES)


def _operand_shapes(record: CallRecord, calls: ModelCalls) -> tuple[Shape, ...]:
    tensors = (calls[name].tensor for name in record.inputs)
    return tuple(tensor.shape for tensor in tensors if tensor is not None)


def _may_carry_labels(name: str, environment: Environment) -> bool:
    if isinstance(environment.state(name), (Failed, PositionsUnknown)):
        return True
    value = environment.value(name)
    return value is not None and value.field is not None


def _known_channels(name: str, environment: Environment) -> tuple[int, ...] | None:
    """The axes of a tensor without positions; None where its layout is not known."""
    value = None
    if not isinstance(environment.state(name), Failed):
        value = environment.value(name)
    if value is None:
        return None
    return tuple(dim for dim, axis in enumerate(value.layout.axes) if not has_positions(axis))
