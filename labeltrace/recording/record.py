"""One recorded run of a model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.utils._pytree import TreeSpec, tree_flatten

from labeltrace.capture.capture_lock import capturing
from labeltrace.errors import CaptureError
from labeltrace.recording.hidden_tensors import check_outputs
from labeltrace.recording.recorded_calls import Recording
from labeltrace.recording.recorder import Recorder, output_leaves, refuse_higher_order


@dataclass(frozen=True, eq=False, slots=True)
class Run:
    """A run of a model and what was recorded of it.

    Attributes:
        outputs: what the model returned.
        recording: its calls.
        kept: the tensors that labels may read, by number, with the values that they had when they
            got that number.
        repeats: whether the calls are those of the recording that was followed.
        output_spec: the structure of the outputs.
        module_types: the classes of the modules that were called, by path.
        numbers: what calls gave that is no tensor, by the index of the call.
    """

    outputs: Any
    recording: Recording
    kept: Mapping[int, Tensor]
    repeats: bool
    output_spec: TreeSpec
    module_types: Mapping[str, type]
    numbers: Mapping[int, Any]


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    functions: Mapping[Callable[..., Any], Any] | None = None,
    followed: Recording | None = None,
    reads: frozenset[int] | None = None,
) -> Run:
    """Run a model as it is, with its own autograd, hooks and generators, and record its calls.

    Args:
        model: the model; whatever it changes stays changed.
        args: its positional arguments.
        kwargs: its keyword arguments.
        functions: the Python functions that have a rule; each of their calls is told apart.
        followed: an earlier recording. While the run repeats it, only what `reads` names is kept.
        reads: the numbers of the tensors that the labels of `followed` read.

    Raises:
        CaptureError: the model has run and returns an object that hides tensors; or this is a call
            inside a run that is being recorded.
    """
    refuse_higher_order()
    recorder = Recorder(model, functions or {}, sys._getframe(), followed, reads)
    leaves, _ = tree_flatten((args, dict(kwargs)))
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            recorder.table.add_input(leaf, index)
    inputs = recorder.new_tensors()
    if followed is not None and inputs != followed.inputs:
        recorder.stop_following()
        recorder.table.keep_inputs(leaves)
    with capturing(), _alone(), enable_python_dispatcher(), recorder:
        outputs = model(*args, **kwargs)
    output, spec = tree_flatten(outputs)
    check_outputs(output)
    described, tensors = output_leaves(recorder, output)
    recording = Recording(
        inputs,
        tuple(recorder.calls),
        tuple(recorder.places),
        described,
        tensors,
        tuple(recorder.transformed),
    )
    repeats = recorder.followed is not None and recording == followed
    return Run(
        outputs,
        recording,
        recorder.table.kept,
        repeats,
        spec,
        recorder.module_types,
        recorder.numbers,
    )


_running: list[None] = []


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """The time of a run: a process has one place for such a mode, hence the lock around."""
    if _running:
        raise CaptureError(
            "a model with labels is called inside another one that is being recorded; call the "
            "inner one without labels, and give them to the outer one alone"
        )
    _running.append(None)
    try:
        yield
    finally:
        _running.pop()
