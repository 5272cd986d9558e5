"""Capture: a model as a graph of ATen operators.

The model is exported with a dynamic batch.  Where that fails, it is exported with the batch as it
is, and the reason is kept.  Parameters and buffers stay placeholders of the graph, so that a caller
reads them from the live model at every call.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from labeltrace.capture.batch import (
    BATCH_OF_ONE_DIFFERS,
    SMALLEST_DYNAMIC_BATCH,
    BatchPolicy,
    dynamic_batch,
    fixed_batch,
    recorded_calls,
    same_graph,
)
from labeltrace.capture.capture_lock import capturing
from labeltrace.capture.captured import CallTags, Capture
from labeltrace.capture.checkpoint_tags import tag_checkpoint_calls
from labeltrace.capture.export import export_dynamic, export_fixed
from labeltrace.capture.export_errors import first_lines
from labeltrace.capture.function_tags import Function, tag_function_calls
from labeltrace.capture.inputs import checked_channel_dim, first_tensor
from labeltrace.capture.isolation import restore_side_effects, suppress_rnn_warnings
from labeltrace.capture.model_kinds import check_parameters
from labeltrace.capture.read_program import read_program
from labeltrace.errors import CaptureError

_SECONDS_BEFORE_MESSAGE = 2.0


def capture_model(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    channel_dim: int = 1,
    whole: Iterable[Function] = (),
) -> Capture:
    """Capture `model(*args, **kwargs)`.

    The model, its mode, its buffers and the random state stay as they are.

    Args:
        model: any module that `torch.export` can follow.
        args: its positional arguments.  The first tensor among all arguments carries labels, and
            its axis 0 is the batch.
        kwargs: its keyword arguments.
        channel_dim: the channel axis of that tensor.
        whole: functions whose calls are tagged, so that a rule can take each call as one step.

    Raises:
        CaptureError: the model cannot be exported, its inputs do not fit it, or this call is part
            of another export.
    """
    _check_not_exporting(model)
    kwargs = dict(kwargs or {})
    leaf, image = first_tensor(args, kwargs)
    check_parameters(model, image)
    channel_dim = checked_channel_dim(image, channel_dim)
    with capturing(), _recording(model, whole) as tags:
        program, batch = _export(model, args, kwargs, image.shape[0])
    return read_program(program, model, leaf, channel_dim, batch, tags)


def extend_to_single_sample(
    dynamic: Capture,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    whole: Iterable[Function] = (),
) -> Capture:
    """Capture a call with a batch of one, where larger batches have been captured already.

    Args:
        dynamic: the capture of such a call with a dynamic batch from two up.
        model: the captured model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        whole: functions whose calls are tagged, as in `capture_model`.

    Returns:
        `dynamic` with a batch from one up where one sample has the same graph, otherwise a capture
        for one sample only.

    Raises:
        CaptureError: as in `capture_model`.
    """
    _check_not_exporting(model)
    kwargs = dict(kwargs or {})
    leaf, _ = first_tensor(args, kwargs)
    with capturing(), _recording(model, whole) as tags:
        program = export_fixed(model, args, kwargs)
    if same_graph(recorded_calls(program), dynamic.calls):
        return replace(dynamic, batch=dynamic.batch.from_one())
    batch = fixed_batch(1, BATCH_OF_ONE_DIFFERS)
    return read_program(program, model, leaf, dynamic.channel_dim, batch, tags)


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], size: int
) -> tuple[ExportedProgram, BatchPolicy]:
    """Export with a dynamic batch if the model allows one, otherwise for this size."""
    program, reason = _try_dynamic(model, args, kwargs, size)
    if program is None:
        return export_fixed(model, args, kwargs), fixed_batch(size, reason)
    batch = dynamic_batch(program, max(size, SMALLEST_DYNAMIC_BATCH))
    if size != 1:
        return program, batch
    single = export_fixed(model, args, kwargs)
    same = same_graph(recorded_calls(single), recorded_calls(program))
    if same and batch.may_start_at_one:
        return program, batch.from_one()
    return single, fixed_batch(1, BATCH_OF_ONE_DIFFERS)


def _try_dynamic(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], size: int
) -> tuple[ExportedProgram | None, str]:
    """The program with a dynamic batch, or None and the reason."""
    try:
        return export_dynamic(model, args, kwargs, size), ""
    except CaptureError:
        raise  # a call that the model does not take
    except Exception as error:  # whatever stops a dynamic batch may yet pass with a fixed one
        return None, first_lines(error, 3)


@contextlib.contextmanager
def _recording(model: nn.Module, whole: Iterable[Function]) -> Iterator[CallTags]:
    """The setting in which a model is exported; yields the tags, which fill up as calls come in."""
    with (
        _slow_capture_message(model),
        suppress_rnn_warnings(),
        restore_side_effects(model),
        tag_function_calls(whole) as functions,
        tag_checkpoint_calls() as checkpoints,
    ):
        yield CallTags(functions, checkpoints)


def _check_not_exporting(model: nn.Module) -> None:
    """One export inside another leaves the outer one without its state."""
    if torch.compiler.is_exporting():
        raise CaptureError(
            f"an aligned {type(model).__name__} is being exported with labels before it was "
            "captured for such inputs, and one export cannot run within another; in the mode to be "
            "exported, call the aligned model once with images and labels of these sizes, or pass "
            "the images to align as its example, then export it"
        )


@contextlib.contextmanager
def _slow_capture_message(model: nn.Module) -> Iterator[None]:
    """Print to stderr that a capture is under way, once it takes more than two seconds."""
    line = f"labeltrace: capturing {type(model).__name__} (once for each mode and input size) ..."
    timer = threading.Timer(_SECONDS_BEFORE_MESSAGE, print, [line], {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
