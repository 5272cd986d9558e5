"""What a run of a model shows that no graph can hold."""

from __future__ import annotations

import linecache
from collections.abc import Iterable
from types import CodeType
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from labeltrace.capture.node_info import signature
from labeltrace.model_state.unwatched import unwatched
from labeltrace.recording.record import Run
from labeltrace.recording.recorded_calls import OriginKind, RecordedCall, refs_in

READS_VALUES: Final = frozenset(
    {
        "aten.item",
        "aten._local_scalar_dense",
        "aten.is_nonzero",
        "aten.equal",
        "aten.allclose",
        "aten.nonzero",
        "aten.nonzero_numpy",
        "aten.masked_select",
        "aten.unique",
        "aten._unique2",
        "aten.unique_dim",
        "aten.unique_consecutive",
        "aten.resolve_neg",
        "aten.resolve_conj",
    }
)
"""Operators whose result, or its size, is a number that depends on values.

The last two show that values leave torch: `x.tolist()` and `x.numpy()` call them.
"""

FAST_PATHS: Final = frozenset(
    {
        "aten._native_multi_head_attention",
        "aten._transformer_encoder_layer_fwd",
        "aten._nested_tensor_from_mask",
    }
)
"""Fused operators of torch's transformer layers, in eval mode without gradients."""


HOOKING_NAMES: Final = frozenset(
    {
        "register_hook",
        "register_prehook",
        "register_multi_grad_hook",
        "register_post_accumulate_grad_hook",
        "save_on_cpu",
        "saved_tensors_hooks",
    }
)
"""What code that changes the backward pass calls; no autograd graph shows that it was called."""


class Reason(NamedTuple):
    """Why a model is recorded.

    Attributes:
        text: in words.
        line: the model's line that is the reason; empty if unknown.
        subject: what the reason is about, where its words change from call to call.
    """

    text: str
    line: str = ""
    subject: str = ""


def reason_of_run(run: Run, model: nn.Module) -> Reason | None:
    """The first thing in a run that a graph of it would lose."""
    return _hooks(model) or _unseen(model) or _calls(run) or _tensors(run) or _code(run)


def has_fast_path(run: Run) -> bool:
    """Whether a run went through fused operators of torch's transformer layers."""
    return any(signature(call.operator).names[-1] in FAST_PATHS for call in run.recording.calls)


def line_text(line: tuple[Any, int] | None) -> str:
    """`file:line: code` of a recorded call."""
    if line is None:
        return ""
    code, number = line
    return f"{code.co_filename}:{number}: {linecache.getline(code.co_filename, number).strip()}"


def _hooks(model: nn.Module) -> Reason | None:
    for name, module in model.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            return Reason(f"{name or 'the model itself'} has a backward hook")
    registered = nn.modules.module
    if registered._global_backward_hooks or registered._global_backward_pre_hooks:
        return Reason("a backward hook is registered for all modules")
    return None


def _unseen(model: nn.Module) -> Reason | None:
    found = unwatched(model)
    return Reason(f"its state cannot be watched: {found[0]}") if found else None


def _code(run: Run) -> Reason | None:
    """Whether the code around a call registers hooks of autograd."""
    lines = dict.fromkeys(call.line for call in run.recording.calls if call.line is not None)
    seen: set[CodeType] = set()
    for code, number in lines:
        if code not in seen:
            seen.add(code)
            names = HOOKING_NAMES.intersection(_names_in(code))
            if names:
                text = f"its code calls {min(names)}, which changes the backward pass"
                return Reason(text, line_text((code, number)))
    return None


def _names_in(code: CodeType) -> set[str]:
    """The attributes and globals that a function names, inner functions included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _calls(run: Run) -> Reason | None:
    tensors = run.recording.tensors
    fresh = {
        tensors[ref.number].storage
        for call in run.recording.calls
        if call.operator is torch.ops.aten.lift_fresh.default  # `torch.tensor` in the forward
        for ref in refs_in(call.arguments)
    }
    outside = {
        info.storage: info.origin
        for info in tensors
        if info.origin.kind in (OriginKind.INPUT, OriginKind.CONSTANT) and info.storage not in fresh
    }
    parameters = {
        info.storage
        for number, info in enumerate(tensors)
        if info.origin.kind is OriginKind.STATE and isinstance(run.kept.get(number), nn.Parameter)
    }
    for call in run.recording.calls:
        name = signature(call.operator).names[-1]
        if name in READS_VALUES:
            return Reason(f"it reads values of tensors ({name})", line_text(call.line))
        if name in FAST_PATHS:
            return Reason(f"it takes torch's fused path {name}", line_text(call.line))
        for storage in written_storages(call, tensors):
            if storage in outside:
                what = (
                    "its input"
                    if outside[storage].kind is OriginKind.INPUT
                    else "a tensor it keeps"
                )
                return Reason(f"it writes to {what} ({name})", line_text(call.line))
            if storage in parameters:
                return Reason(f"it writes to a parameter ({name})", line_text(call.line))
    return None


def written_storages(call: RecordedCall, tensors: tuple[Any, ...]) -> Iterable[int]:
    """The memory that a recorded call writes to."""
    found = signature(call.operator)
    if not found.written:
        return ()
    given = {**dict(zip(found.defaults, call.arguments, strict=False)), **dict(call.keywords)}
    refs = refs_in([given.get(name) for name in found.written])
    return [tensors[ref.number].storage for ref in refs]


def _tensors(run: Run) -> Reason | None:
    for number, tensor in run.kept.items():
        info = run.recording.tensors[number]
        if info.origin.kind is OriginKind.CONSTANT and tensor.requires_grad:
            return Reason("a parameter that is not registered under the model takes part")
        if info.origin.kind is OriginKind.RESULT and torch.is_tensor(tensor):
            if tensor._backward_hooks:
                return Reason("a hook is registered on a tensor", _line_of(run, number))
            if tensor.requires_grad and not tensor.is_leaf and tensor.retains_grad:
                return Reason("the gradient of an activation is retained", _line_of(run, number))
    return None


def _line_of(run: Run, number: int) -> str:
    for call in run.recording.calls:
        if any(ref.number == number for ref in refs_in([call.results])):
            return line_text(call.line)
    return ""
