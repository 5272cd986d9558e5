"""Instructions: each flow as one call of a function of the label algebra."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor

from labeltrace import label_ops
from labeltrace.flow import (
    AdaptivePool,
    Aggregate,
    Attend,
    Average,
    Convolve,
    ConvolveTransposed,
    Custom,
    FinalStates,
    Flip,
    Fold,
    Join,
    LabelStep,
    LabelView,
    LinearMix,
    Mix,
    Pad,
    Pool,
    Rearrange,
    Recur,
    Repeat,
    Resample,
    Roll,
    Select,
    Slice,
    Take,
    Unfold,
)


class Prior:
    """Stands for the prior, (B, K), among the arguments of an instruction."""


PRIOR: Final = Prior()


@dataclass(frozen=True, slots=True)
class Instruction:
    """A label function and its arguments.

    ``label_ops.attention_with_labels`` returns the model's own output before the labels; all others return
    labels alone.

    Among them, lists included, :class:`~labeltrace.flow.Labels` stand for label fields,
    :class:`~labeltrace.flow.Operand` for tensors of the forward half, ``PRIOR`` for the prior and
    instructions for what they compute: equal ones are computed once.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def instruction(flow: LabelStep) -> Instruction | LabelView:
    """What the label graph runs for a flow; bare labels where only their order changes."""
    match flow:
        case Rearrange():
            return flow.source
        case Mix():
            equation = flow.equation
            settings = _non_default(normalized=flow.rows_sum_to_one) | dict(equation.sizes)
            return Instruction(label_ops.mix, (flow.source, flow.weights, str(equation)), settings)
        case Attend():
            return _attend(flow)
        case LinearMix():
            return Instruction(
                label_ops.mix_linear,
                (flow.source, flow.query, flow.key, str(flow.equation)),
                _non_default(heads="".join(flow.equation.heads)) | dict(flow.equation.sizes),
            )
        case Convolve():
            padding = [list(pair) for pair in flow.padding]
            sliding = (list(flow.stride), padding, list(flow.dilation))
            blocks = [list(factor) for factor in flow.channel_blocks]
            kernel = Instruction(
                label_ops.kernel,
                (flow.weights,),
                _non_default(channel_blocks=blocks, channels_per_sample=flow.channels_per_sample),
            )
            return Instruction(label_ops.convolve, (flow.source, kernel, *sliding))
        case ConvolveTransposed():
            window = (flow.stride, flow.padding, flow.output_padding, flow.dilation)
            arguments = (flow.source, flow.weights, *map(list, window))
            groups = flow.groups if flow.groups != 1 else None
            return Instruction(
                label_ops.convolve_transposed, arguments, _non_default(groups=groups)
            )
        case Resample():
            return _resample(flow)
        case Pool():
            window = (flow.kernel, flow.stride, flow.padding, flow.dilation)
            return Instruction(
                label_ops.pool,
                (flow.source, *map(list, window)),
                _non_default(ceil_mode=flow.ceil_mode),
            )
        case AdaptivePool():
            return Instruction(label_ops.adaptive_pool, (flow.source, list(flow.output_size)))
        case Aggregate():
            return Instruction(label_ops.aggregate, (flow.source, flow.count))
        case Average():
            shares = list(flow.shares) if len(set(flow.shares)) > 1 else None
            return Instruction(
                label_ops.average, (list(flow.sources),), _non_default(shares=shares)
            )
        case Slice():
            step = flow.step if flow.step != 1 else None
            bounds = (flow.source, flow.dim, flow.start, flow.end)
            return Instruction(label_ops.cut, bounds, _non_default(step=step))
        case Select():
            return Instruction(label_ops.select, (flow.source, flow.dim, flow.index))
        case Repeat():
            return Instruction(label_ops.repeat, (flow.source, list(flow.counts), flow.interleave))
        case Roll():
            return Instruction(label_ops.roll, (flow.source, list(flow.shifts), list(flow.dims)))
        case Flip():
            return Instruction(label_ops.flip, (flow.source, list(flow.dims)))
        case Take():
            return Instruction(label_ops.take, (flow.source, flow.dim, flow.index))
        case Pad():
            return _pad(flow)
        case Unfold():
            return _unfold(flow)
        case Fold():
            window = (flow.kernel, flow.stride, flow.padding, flow.dilation)
            return Instruction(label_ops.fold, (flow.source, list(flow.sizes), *map(list, window)))
        case Recur():
            return _recur(flow, label_ops.recur)
        case FinalStates():
            return _recur(flow, label_ops.final_states)
        case Custom():
            function = label_ops.checked(flow.function, len(flow.field_sizes))
            return Instruction(function, (flow.source, *flow.tensors))
        case Join():
            pieces = [PRIOR if piece is None else piece for piece in flow.pieces]
            return Instruction(
                label_ops.join,
                (pieces, list(flow.sizes), flow.dim),
                _non_default(batch_dim=flow.batch_dim),
            )
    raise TypeError(f"no label function serves {type(flow).__name__}")


def reads_prior(flow: LabelStep) -> bool:
    """Whether a flow brings in positions that carry the prior."""
    if isinstance(flow, Join):
        return None in flow.pieces
    if isinstance(flow, Unfold):
        return any(flow.padding)
    return isinstance(flow, Pad) and flow.mode == "prior"


def _attend(flow: Attend) -> Instruction:
    if flow.joint:
        operands = (flow.query, flow.key, flow.value)
        settings = _non_default(scale=flow.scale) | dict(flow.equation.sizes)
        return Instruction(
            label_ops.attention_with_labels, (flow.source, *operands, str(flow.equation)), settings
        )
    return Instruction(
        label_ops.attend,
        (flow.source, flow.query, flow.key, str(flow.equation)),
        _non_default(
            mask=flow.mask,
            is_causal=flow.is_causal,
            scale=flow.scale,
            grouped_heads=flow.grouped_heads,
        )
        | dict(flow.equation.sizes),
    )


def _resample(flow: Resample) -> Instruction:
    scales = list(flow.scales) if any(flow.scales) else None
    settings = _non_default(
        scales=scales, align_corners=flow.align_corners, antialias=flow.antialias
    )
    return Instruction(label_ops.resample, (flow.source, list(flow.sizes), flow.mode), settings)


def _pad(flow: Pad) -> Instruction:
    widths = [list(pair) for pair in flow.widths]
    if flow.mode == "prior":
        settings = _non_default(batch_dim=flow.batch_dim)
        return Instruction(label_ops.pad, (flow.source, PRIOR, widths), settings)
    return Instruction(label_ops.pad, (flow.source, None, widths, flow.mode))


def _unfold(flow: Unfold) -> Instruction:
    window = (flow.dims, flow.kernel, flow.stride, flow.padding, flow.dilation)
    if not any(flow.padding):
        return Instruction(label_ops.unfold, (flow.source, None, *map(list, window)))
    settings = _non_default(batch_dim=flow.batch_dim, copies=list(flow.copies))
    return Instruction(label_ops.unfold, (flow.source, PRIOR, *map(list, window)), settings)


def _recur(flow: Recur | FinalStates, function: Callable[..., Tensor]) -> Instruction:
    settings = _non_default(bidirectional=flow.bidirectional, feature_dims=flow.feature_dims)
    return Instruction(function, (flow.source, flow.dim, flow.layers), settings)


def _non_default(**settings: Any) -> dict[str, Any]:
    """The settings that differ from their defaults, which are None, False or zero."""
    return {name: value for name, value in settings.items() if value}
