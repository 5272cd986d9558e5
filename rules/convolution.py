"""Convolutions: channel mixing, spatial mixing or spatial aggregation, by the kernel."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from labeltrace.errors import LayoutError
from labeltrace.flow import (
    Convolve,
    ConvolveTransposed,
    Flow,
    Operand,
    Operation,
    Pool,
    Weights,
)
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.layout import (
    Axis,
    Kind,
    Layout,
    axis_size,
    channel,
    has_channels,
    has_positions,
    positions,
    renumbered,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.aggregation import aggregation
from labeltrace.rule_helpers.contraction import contract
from labeltrace.rule_helpers.elementwise import relayout, with_layout
from labeltrace.rules.pooling import per_dimension, resized, spatial_field, without_positions


@register_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def convolution(call: Call) -> Flow:
    """A convolution over the last axes; its class follows from kernel, stride and padding."""
    source: Operand = call["input"]
    weight: Operand = call["weight"]
    count = len(weight.shape) - 2
    if len(source.shape) != count + 2:
        raise LayoutError(
            f"{call.operator} without a batch axis: {source.layout}; keep the batch first"
        )
    if weight.traced:
        return _own_kernels(call, source, weight)
    kernel = weight.shape[2:]
    stride = per_dimension(call["stride"], count)
    dilation = per_dimension(call["dilation"], count)
    padding = _padding(call["padding"], kernel, dilation)
    if all(size == 1 for size in kernel) and not any(a or b for a, b in padding):
        return _one_tap(call, source, weight, stride)
    if source.is_weights:
        return _on_weights(source, weight, call.output)
    return _sliding(call, source, weight, stride, padding, dilation)


@register_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def transposed_convolution(call: Call) -> Flow:
    """A convolution that spreads every position over the kernel."""
    source: Operand = call["input"]
    weight: Operand = call["weight"]
    count = len(weight.shape) - 2
    groups = call["groups"]
    if weight.traced or source.is_weights or has_positions(source.traced_layout.axes[1]):
        raise LayoutError(
            f"{call.operator} needs channels in axis 1 and a constant kernel: {source.layout}"
        )
    field = spatial_field(source, count, call.output)
    channels = channel(weight.shape[1] * groups)
    first = source.traced_layout.axes[0]
    if not field.varies:
        return without_positions(source, count, call.output, weight.shape[1] * groups)
    return ConvolveTransposed(
        layout=renumbered([first, channels, *field.axes[2:]]),
        field_shape=field.result,
        source=field.labels,
        weights=weight,
        stride=per_dimension(call["stride"], count),
        padding=per_dimension(call["padding"], count),
        output_padding=per_dimension(call["output_padding"], count),
        dilation=per_dimension(call["dilation"], count),
        groups=groups,
    )


def _own_kernels(call: Call, source: Operand, weight: Operand) -> Flow:
    """A kernel for each sample, computed from the image: the batch stands among the channels.

    Kernels say how positions are mixed and have no positions of their own: their labels are those
    of gates, and ignored (contract, points 8 and 9).  Used by Yang et al., *CondConv: Conditionally
    Parameterized Convolutions for Efficient Inference*, arXiv:1904.04971.
    """
    first, inner, *space = source.traced_layout.axes
    outer, *taps = weight.traced_layout.axes
    channels, outputs = _behind_batch(inner), _behind_batch(outer)
    groups = call["groups"]
    apart = not any(map(has_positions, (first, *taps)))
    if channels is None or outputs is None or not apart or groups % inner[0].size:
        raise LayoutError(
            f"{call.operator} with a kernel computed from the image, {weight.layout}, slides over "
            f"{source.layout}; it can be followed where the batch stands first among the channels "
            "of both, so that each sample has a kernel of its own"
        )
    samples, own = inner[0].size, axis_size(outputs)
    arguments = {
        **call.arguments,
        "input": with_layout(source, Layout((inner[:1], channels or channel(1), *space))),
        "weight": replace(weight, shape=(own, *weight.shape[1:]), layout=None, field=None),
        "groups": groups // samples,
    }
    output = (samples, own, *call.output[2:])
    flow = convolution(replace(call, arguments=arguments, outputs=(output,)))
    assert flow.layout is not None
    batch, kept, *space = flow.layout.axes
    flow = replace(flow, layout=Layout(((), (*batch, *kept), *space)))
    return replace(flow, channels_per_sample=own) if isinstance(flow, Convolve) else flow


def _behind_batch(axis: Axis) -> Axis | None:
    """The channels behind the batch, where it stands first in an axis; else None."""
    if not axis or axis[0].kind is not Kind.BATCH or has_positions(axis[1:]):
        return None
    return axis[1:]


def _padding(
    value: str | int | Sequence[int], kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """(before, after) a dimension of space."""
    if value == "valid":
        return ((0, 0),) * len(kernel)
    if isinstance(value, str):
        assert value == "same"  # torch takes no third
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    return tuple((p, p) for p in per_dimension(value, len(kernel)))


def _one_tap(call: Call, source: Operand, weight: Operand, stride: tuple[int, ...]) -> Flow:
    """A kernel of one tap contracts channels alone; a stride keeps every n-th position."""
    if any(step != 1 for step in stride):
        return _subsampled(source, stride, call.output, weight.shape[0])
    groups = call["groups"]
    axis = source.traced_layout.axes[1]
    if not has_positions(axis):
        layout = source.traced_layout
        axes = (layout.axes[0], channel(weight.shape[0]), *layout.axes[2:])
        return relayout(source, Layout(axes), operation=Operation.CHANNEL_MIXING)
    if groups == 1 and source.labelled and _holds_channels(source):
        return _merging(source, weight, call.output)
    if groups == 1:
        space = tuple("stuvw"[: len(stride)])
        taps = tuple("lmnop"[: len(stride)])
        equation = ContractionEquation(("b", "i", *space), ("z", "i", *taps), ("b", "z", *space))
        return contract(equation, source, weight, call.output)
    if groups == source.shape[1] == weight.shape[0]:  # a scale for each position
        return relayout(source, source.traced_layout, operation=Operation.POINTWISE)
    raise LayoutError(
        f"a grouped convolution contracts an axis that has positions: {source.layout}"
    )


def _holds_channels(source: Operand) -> bool:
    """Whether the positions in axis 1 are what the convolution has for channels.

    They are beside channels, and where no other axis has channels; else tokens are mixed.
    """
    axes = source.traced_layout.axes
    return has_channels(axes[1]) or not any(map(has_channels, axes))


def _merging(source: Operand, weight: Operand, output: Sequence[int]) -> Flow:
    """Positions that stand for channels are contracted: their mean (contract, point 7)."""
    first, inner, *space = source.traced_layout.axes
    space = [
        axis if axis_size(axis) == size else resized(axis, size)
        for axis, size in zip(space, output[2:], strict=True)
    ]
    kept = [first, channel(weight.shape[0]), *space]
    return aggregation(source, renumbered(kept), kept, [inner])


def _subsampled(
    source: Operand, stride: tuple[int, ...], output: Sequence[int], channels: int
) -> Flow:
    """Every n-th position, and channel mixing: pooling with a window of one."""
    if has_positions(source.traced_layout.axes[1]) or not source.labelled:
        raise LayoutError(f"a strided convolution of one tap over {source.layout}")
    ones = (1,) * len(stride)
    field = spatial_field(source, len(stride), output)
    if not field.varies:
        return without_positions(source, len(stride), output, channels)
    return Pool(
        operation=Operation.CHANNEL_MIXING,
        layout=renumbered([field.axes[0], channel(channels), *field.axes[2:]]),
        field_shape=field.result,
        source=field.labels,
        kernel=ones,
        stride=stride,
        padding=(0,) * len(stride),
        dilation=ones,
    )


def _on_weights(source: Operand, weight: Operand, output: Sequence[int]) -> Flow:
    """A convolution of mixing weights gives mixing weights of the same positions."""
    layout = source.traced_layout
    if tuple(output[2:]) != source.shape[2:]:
        raise LayoutError(f"a convolution changes the positions of mixing weights: {layout}")
    axes = (layout.axes[0], channel(weight.shape[0]), *layout.axes[2:])
    return Weights(layout=renumbered(axes))


def _sliding(
    call: Call,
    source: Operand,
    weight: Operand,
    stride: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> Flow:
    kernel = tuple(weight.shape[2:])
    first, inner, *_ = source.traced_layout.axes
    blocks: tuple[int, ...] = ()
    if has_positions(inner):  # those within a block, as of a space-to-depth stem
        if call["groups"] != 1 or not _holds_channels(source):
            raise LayoutError(
                f"{call.operator} slides over an activation with positions in its channel axis: "
                f"{source.layout}"
            )
        if not any(map(has_positions, source.traced_layout.axes[2:])):
            return _merging(source, weight, call.output)
        source, blocks = _blocks_as_space(source), (prod(f.size for f in positions(inner)),)
    count = len(kernel) + len(blocks)
    if count > 3:
        raise LayoutError(f"{call.operator} over {count} dimensions of positions: {source.layout}")
    ones = tuple(1 for _ in blocks)
    single = zip(kernel, stride, padding, strict=True)
    passed = [len(blocks) + dim for dim, taps in enumerate(single) if taps == (1, 1, (0, 0))]
    field = spatial_field(source, count, (*call.output[:2], *ones, *call.output[2:]), passed)
    if not field.varies:
        return without_positions(source, count, call.output, weight.shape[0])
    layout = renumbered([first, channel(weight.shape[0]), *field.axes[2 + len(blocks) :]])
    outside = any(before or after for before, after in padding)
    if kernel == stride and not outside and all(d == 1 for d in dilation):
        return Pool(
            operation=Operation.SPATIAL_AGGREGATION,
            layout=layout,
            field_shape=field.result,
            source=field.labels,
            kernel=blocks + kernel,
            stride=blocks + stride,
            padding=(0,) * count,
            dilation=(1,) * count,
        )
    return Convolve(
        layout=layout,
        field_shape=field.result,
        source=field.labels,
        weights=weight,
        stride=ones + stride,
        padding=((0, 0),) * len(blocks) + padding,
        dilation=ones + dilation,
        channel_blocks=tuple((f.size, f.is_position) for f in inner) if blocks else (),
    )


def _blocks_as_space(source: Operand) -> Operand:
    """The operand with the positions of its channel axis as the first axis of space."""
    first, inner, *space = source.traced_layout.axes
    return with_layout(source, Layout((first, (), positions(inner), *space)))
