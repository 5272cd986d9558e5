"""Instructions: each label step as one call of a function of `labeltrace.label_ops`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    Reindex,
    Repeat,
    Resample,
    Roll,
    SampleBoxes,
    Select,
    Slice,
    Take,
    Unfold,
    Write,
)
from labeltrace.layout import Size, SlidingWindow, infer_dynamic, is_dynamic


class Prior:
    """The prior of the rows that a step reads, as an argument of its instruction.

    `labeltrace.codegen.prior_fields` puts the node that computes it in its place.
    """


PRIOR: Final = Prior()
"""The only instance."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A label function and its arguments.

    Arguments, also those inside lists, can be literals, a `labeltrace.flow.LabelView` (a label
    field), a `labeltrace.flow.Operand` (a tensor of the forward half), `PRIOR`, a
    `labeltrace.layout.BatchSize`, another instruction (what it computes; equal ones are computed
    once), or a node of the graph.

    Attributes:
        function: returns labels; `label_ops.attention_with_labels` alone returns the model's own
            output first.
        arguments: its positional arguments.
        settings: its keyword arguments.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def instruction(flow: LabelStep) -> Instruction | LabelView:
    """What the label graph runs for a step; bare labels if only their order changes.

    Raises:
        TypeError: the step is of an unknown class; add a case for it here.
    """
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
            return _convolve(flow)
        case ConvolveTransposed():
            return _convolve_transposed(flow)
        case Resample():
            return _resample(flow)
        case Pool():
            return Instruction(
                label_ops.pool,
                (flow.source, *_settings_by_axis(flow.windows)),
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
            arguments = (flow.source, list(flow.sizes), *_settings_by_axis(flow.windows))
            return Instruction(label_ops.fold, arguments)
        case Recur():
            return _recur(flow, label_ops.recur)
        case FinalStates():
            return _recur(flow, label_ops.final_states)
        case Reindex():
            return _reindex(flow)
        case Write():
            return _write(flow)
        case SampleBoxes():
            prior = PRIOR if flow.has_prior else None
            return Instruction(
                label_ops.sample_boxes,
                (flow.source, prior, flow.boxes, flow.operator, list(flow.size), flow.scale),
                _non_default(sampling_ratio=flow.sampling_ratio, aligned=flow.aligned),
            )
        case Custom():
            function = label_ops.checked_user_function(flow.function, len(flow.field_sizes))
            return Instruction(function, (flow.source, *flow.tensors))
        case Join():
            pieces = [PRIOR if piece is None else piece for piece in flow.pieces]
            return Instruction(
                label_ops.join,
                (pieces, list(flow.sizes), flow.dim),
            )
    raise TypeError(
        f"no label function serves {type(flow).__name__}; add a case to "
        "labeltrace.codegen.instructions.instruction"
    )


def reads_prior(flow: LabelStep) -> bool:
    """Whether a step adds positions that have the prior as their label."""
    if isinstance(flow, Join):
        return None in flow.pieces
    if isinstance(flow, SampleBoxes):
        return flow.has_prior
    if isinstance(flow, Write):
        return None in flow.pieces
    if isinstance(flow, Unfold):
        return any(window.is_padded for window in flow.windows)
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


def _convolve(flow: Convolve) -> Instruction:
    blocks = [list(factor) for factor in flow.channel_blocks]
    kernel = Instruction(
        label_ops.kernel,
        (flow.weights,),
        _non_default(channel_blocks=blocks, channels_per_sample=flow.channels_per_sample),
    )
    stride = [window.stride for window in flow.windows]
    padding = [list(window.padding) for window in flow.windows]
    dilation = [window.dilation for window in flow.windows]
    return Instruction(label_ops.convolve, (flow.source, kernel, stride, padding, dilation))


def _convolve_transposed(flow: ConvolveTransposed) -> Instruction:
    _, stride, padding, dilation = _settings_by_axis(flow.windows)
    settings = (stride, padding, list(flow.output_padding), dilation)
    groups = flow.groups if flow.groups != 1 else None
    return Instruction(
        label_ops.convolve_transposed,
        (flow.source, flow.weights, *settings),
        _non_default(groups=groups),
    )


def _settings_by_axis(
    windows: Sequence[SlidingWindow],
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, stride, padding and dilation of windows with symmetric padding, as torch has them."""
    return (
        [window.kernel for window in windows],
        [window.stride for window in windows],
        [window.symmetric_padding for window in windows],
        [window.dilation for window in windows],
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
        return Instruction(label_ops.pad, (flow.source, PRIOR, widths))
    return Instruction(label_ops.pad, (flow.source, None, widths, flow.mode))


def _unfold(flow: Unfold) -> Instruction:
    arguments = (list(flow.dims), *_settings_by_axis(flow.windows))
    if not reads_prior(flow):
        return Instruction(label_ops.unfold, (flow.source, None, *arguments))
    settings = _non_default(copies=list(flow.copies))
    return Instruction(label_ops.unfold, (flow.source, PRIOR, *arguments), settings)


def _recur(flow: Recur | FinalStates, function: Callable[..., Tensor]) -> Instruction:
    settings = _non_default(bidirectional=flow.bidirectional, feature_dims=flow.feature_dims)
    return Instruction(function, (flow.source, flow.dim, flow.layers), settings)


def _reindex(flow: Reindex) -> Instruction:
    field = flow.source.arrangement.shape
    sizes, shape = flow.elements.sizes, flow.elements.shape
    settings: dict[str, Any] = {}
    if sizes != field:
        settings["sizes"] = [-1 if a == b else b for a, b in zip(field, sizes, strict=True)]
    if shape != sizes:
        settings["shape"] = _view_sizes(shape)
    arguments = (flow.operator, _lists(flow.arguments))
    if flow.ordered is not None:
        dim, keepdim = flow.order_axis
        if not keepdim:
            settings["keepdim"] = False
        return Instruction(
            label_ops.reindex_by_order,
            (flow.source, flow.ordered, *arguments, dim, list(flow.kept)),
            settings,
        )
    if len(flow.result) != flow.rank:
        settings["result"] = _view_sizes(flow.result)
    return Instruction(label_ops.reindex, (flow.source, *arguments, list(flow.kept)), settings)


def _write(flow: Write) -> Instruction:
    settings: dict[str, Any] = {
        "kept": list(flow.kept),
        "sizes": [list(one.sizes) for one in flow.elements],
        "shapes": [list(one.shape) for one in flow.elements],
        "result": list(flow.result),
    }
    arguments = (list(flow.pieces), PRIOR if None in flow.pieces else None, _lists(flow.places))
    if not any(flow.adds):
        return Instruction(label_ops.overwrite, arguments, settings)
    settings["adds"] = list(flow.adds)
    settings["keeps"] = list(flow.keeps)
    return Instruction(label_ops.add_at, arguments, settings)


def _view_sizes(sizes: Sequence[Size]) -> list[Size]:
    """Sizes for a view; torch infers the only one that depends on the batch."""
    return [*infer_dynamic(sizes)] if sum(map(is_dynamic, sizes)) == 1 else list(sizes)


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _non_default(**settings: Any) -> dict[str, Any]:
    """The settings that differ from their defaults, which are None, False, zero or empty."""
    return {name: value for name, value in settings.items() if value}
