"""The two checks of one model that a worker runs: structural, and with real numbers."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

import labeltrace
from labeltrace.capture.capture import capture_model
from labeltrace.codegen.generate import generate
from labeltrace.errors import CheckError
from labeltrace.models_zoo import load
from labeltrace.rule_api.registry import current
from labeltrace.tracing.trace_graph import trace_graph
from labeltrace.zoo_sweep.records import Check, Task

BATCHES = (2, 3)
ROW_TOLERANCE = 1e-5
SOURCES = (5, 7, 11, 13, 17, 19)  # numbers of sources; one that is no size of an output is used


@dataclass
class _CpuTimer:
    """Processor seconds of each stage, without other processes of the machine."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.process_time() - start, 4)


def structural(task: Task) -> dict[str, Any]:
    """Capture and trace the model in eval mode on the meta device, and generate its label graph.

    Returns:
        Input size, number of parameters and nodes, nodes by operation, approximate nodes by reason,
        those that are approximate with `labeltrace.FOLLOW_MAXIMA`, the smallest and largest batch
        (None for any), why the batch is fixed (empty if it is not), and processor seconds:
        building, capturing (mostly `torch.export`), tracing and generating.

    Raises:
        LabelTraceError: the model cannot be built, captured or traced.
    """
    timer = _CpuTimer()
    with timer("build"):
        loaded = load(task.model, image_size=task.image_size, device="meta")
    registry = current()
    with timer("capture"):
        captured = capture_model(loaded.model.eval(), (loaded.example(),), whole=registry.functions)
    with timer("trace"):
        trace = trace_graph(captured, registry)
    with timer("generate"):
        generate(trace)
    followed = trace_graph(captured, registry.with_overrides(labeltrace.FOLLOW_MAXIMA))
    generate(followed)
    batch = captured.batch
    return {
        "input_size": list(loaded.input_size),
        "parameters": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "nodes": len(trace.nodes),
        "counts": trace.counts(),
        "approximations": _count_reasons(trace),
        "approximations_following_maxima": _count_reasons(followed),
        "batch": [batch.smallest, None if math.isinf(batch.largest) else int(batch.largest)],
        "fixed_batch_reason": batch.fixed_reason,
        "seconds": timer.seconds,
    }


def _count_reasons(trace: labeltrace.Trace) -> dict[str, int]:
    """The number of approximate nodes, by reason."""
    return dict(Counter(node.approximation for node in trace.approximate))


def numeric(task: Task) -> dict[str, Any]:
    """Run the real model with labels, in eval and train mode, with two batch sizes each.

    Returns:
        Input size; the largest distance of a row's sum from one; for each mode, whether both batch
        sizes used the same trace; processor seconds for building and for each mode.

    Raises:
        CheckError: a number contradicts the contract.
        LabelTraceError: the model cannot be built, captured or traced.
    """
    timer = _CpuTimer()
    torch.manual_seed(0)
    with timer("build"):
        loaded = load(task.model, image_size=task.image_size)
        with torch.no_grad():  # models that store tables for an image size create them now
            loaded.model.eval()(loaded.example())
    aligned = labeltrace.align(loaded.model)
    row_error = 0.0
    one_trace: dict[str, bool] = {}
    for mode in ("eval", "train"):
        aligned.train(mode == "train")
        with timer(mode):
            traces = []
            for batch in BATCHES:
                images = torch.randn(loaded.example(batch).shape)
                where = f"{mode} mode, batch {batch}"
                row_error = max(row_error, _check_call(aligned, images, where))
                traces.append(aligned.trace(images))
        one_trace[mode] = traces[0] is traces[1]
        if traces[0].capture.batch.dynamic and not one_trace[mode]:
            raise CheckError(
                f"{mode} mode: the batch is dynamic, yet a second size was captured; see why "
                f"the first capture was not used"
            )
    return {
        "input_size": list(loaded.input_size),
        "row_error": row_error,
        "one_trace": one_trace,
        "seconds": timer.seconds,
    }


def _check_call(aligned: labeltrace.AlignedModule, images: Tensor, where: str) -> float:
    """Compare one call with the plain model; return the largest error of a row's sum."""
    model = aligned.module
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    expected = _record_call(model, lambda: model(images))
    sizes = {size for tensor in _tensors(expected.outputs) for size in tensor.shape}
    sources = next(number for number in SOURCES if number not in sizes)
    labels = torch.rand(len(images), sources, *images.shape[2:])
    labels /= labels.sum(1, keepdim=True)
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, buffers[name]):
            buffer.copy_(buffers[name])
    found = _record_call(model, lambda: aligned(images, labels))
    outputs, rows = found.outputs
    _check_same(_CallRecord(outputs, found.buffers, found.random), expected, where)
    return _check_labels(outputs, rows, sources, where)


@dataclass(frozen=True)
class _CallRecord:
    """The outputs of a call, and the buffers and random state after it."""

    outputs: Any
    buffers: Mapping[str, Tensor]
    random: Tensor


def _record_call(model: nn.Module, forward: Callable[[], Any]) -> _CallRecord:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        outputs = forward()
        random = torch.get_rng_state()
    return _CallRecord(outputs, {name: b.clone() for name, b in model.named_buffers()}, random)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def _check_same(found: _CallRecord, expected: _CallRecord, where: str) -> None:
    """Compare outputs, buffers and random state, bit for bit."""
    ours, theirs = _tensors(found.outputs), _tensors(expected.outputs)
    if len(ours) != len(theirs):
        raise CheckError(f"{where}: {len(ours)} output tensors, the plain model has {len(theirs)}")
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        _check_equal(one, other, f"{where}: output {index}")
        if not bool(other.isfinite().all()):
            raise CheckError(f"{where}: output {index} of the plain model is not finite")
    for name, buffer in expected.buffers.items():
        _check_equal(found.buffers[name], buffer, f"{where}: buffer {name}")
    if not torch.equal(found.random, expected.random):
        raise CheckError(f"{where}: the random state is not that of the plain model")


def _check_equal(one: Tensor, other: Tensor, what: str) -> None:
    if one.dtype != other.dtype or one.shape != other.shape:
        raise CheckError(
            f"{what} is {one.dtype} {tuple(one.shape)}, the plain model's "
            f"{other.dtype} {tuple(other.shape)}"
        )
    if not torch.equal(one, other):
        distance = (one.double() - other.double()).abs().max().item()
        raise CheckError(f"{what} differs from the plain model's by up to {distance:.3g}")


def _check_labels(outputs: Any, labels: Any, sources: int, where: str) -> float:
    """Check that labels are distributions along each output's channels (contract, points 1, 10)."""
    pairs = zip(tree_flatten(outputs)[0], _leaves(labels), strict=True)
    labeled = [(output, label) for output, label in pairs if label is not None]
    if not labeled:
        raise CheckError(f"{where}: no output has a label")
    errors = []
    for output, label in labeled:
        axis = _class_axis(output, label, sources, where)
        errors.append((label.sum(axis) - 1).abs().max().item())
        if label.dtype != torch.float32 or label.requires_grad:
            raise CheckError(f"{where}: a label is {label.dtype}, or requires a gradient")
        if not label.min().item() >= 0:
            raise CheckError(f"{where}: a label's smallest entry is {label.min().item():.3g}")
        if not errors[-1] <= ROW_TOLERANCE:
            raise CheckError(f"{where}: row sums of a label differ from one by {errors[-1]:.3g}")
    return max(errors)


def _leaves(labels: Any) -> list[Any]:
    return tree_flatten(labels)[0]


def _class_axis(output: Tensor, label: Tensor, sources: int, where: str) -> int:
    """The axis of the sources: the only one where the label's shape differs from the output's."""
    sizes = enumerate(zip(output.shape, label.shape, strict=False))
    axes = [axis for axis, (size, labels) in sizes if size != labels]
    if output.dim() != label.dim() or len(axes) != 1 or label.shape[axes[0]] != sources:
        raise CheckError(
            f"{where}: a label of {sources} sources has shape {tuple(label.shape)}, its output "
            f"{tuple(output.shape)}"
        )
    return axes[0]


CHECKS: Mapping[Check, Callable[[Task], dict[str, Any]]] = {
    Check.STRUCTURAL: structural,
    Check.NUMERIC: numeric,
}
