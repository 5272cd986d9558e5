"""Convolutions: channel mixing, spatial mixing or spatial aggregation, by kernel and stride.

A kernel of one tap mixes channels. Windows that follow each other without overlap or padding are
aggregated (contract, point 7). Any other kernel mixes positions (point 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    Size,
    SlidingWindow,
    axis_size,
    channel,
    fixed_size,
    has_channels,
    has_positions,
    positions,
    renumbered,
    sliding_windows,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.aggregation import aggregation
from labeltrace.rule_helpers.contraction import contract
from labeltrace.rule_helpers.elementwise import relayout, with_layout
from labeltrace.rule_helpers.spatial import (
    per_dimension,
    resized_axis,
    spatial_field,
    without_positions,
)

Windows = tuple[SlidingWindow, ...]


@register_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(call: Call) -> Flow:
    """A convolution over the last axes; its operation follows from kernel, stride and padding."""
    source: Operand = call["input"]
    weight: Operand = call["weight"]
    count = len(weight.shape) - 2
    if len(source.shape) != count + 2:
        raise LayoutError(
            f"{call.operator} without a batch axis: {source.layout}; keep the batch first"
        )
    if weight.traced:
        return _one_kernel_per_sample(call, source, weight)
    windows = _windows(call, weight.shape[2:])
    if all(window.kernel == 1 and not window.is_padded for window in windows):
        return _one_tap(call, source, weight, windows)
    if source.is_weights:
        return _on_weights(source, weight, call.output)
    return _sliding(call, source, weight, windows)


@register_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(call: Call) -> Flow:
    """A transposed convolution: a result mixes all positions whose kernel reaches it."""
    source: Operand = call["input"]
    weight: Operand = call["weight"]
    count = len(weight.shape) - 2
    groups = call["groups"]
    if weight.traced or source.is_weights or has_positions(source.traced_layout.axes[1]):
        raise LayoutError(
            f"{call.operator} needs channels in axis 1 and a constant kernel: {source.layout}"
        )
    field = spatial_field(source, count, call.output)
    channels = weight.shape[1] * groups
    first = source.traced_layout.axes[0]
    if not field.varies:
        return without_positions(source, count, call.output, channels)
    return ConvolveTransposed(
        layout=renumbered([first, channel(channels), *field.axes[2:]]),
        field_shape=field.result,
        source=field.labels,
        weights=weight,
        windows=sliding_windows(
            [fixed_size(taps) for taps in weight.shape[2:]],
            *(per_dimension(call[name], count) for name in ("stride", "padding", "dilation")),
        ),
        output_padding=per_dimension(call["output_padding"], count),
        groups=groups,
    )


def _windows(call: Call, kernel: Sequence[Size]) -> Windows:
    """How a kernel of these sizes slides, from the arguments of a convolution."""
    taps = [fixed_size(size) for size in kernel]
    count = len(taps)
    dilation = per_dimension(call["dilation"], count)
    padding = call["padding"]
    widths: Sequence[int | Sequence[int]]
    if padding == "valid":
        widths = (0,) * count
    elif isinstance(padding, str):
        assert padding == "same"  # torch takes no other
        added = [spacing * (size - 1) for size, spacing in zip(taps, dilation, strict=True)]
        widths = [(total // 2, total - total // 2) for total in added]
    else:
        widths = per_dimension(padding, count)
    return sliding_windows(taps, per_dimension(call["stride"], count), widths, dilation)


def _one_kernel_per_sample(call: Call, source: Operand, weight: Operand) -> Flow:
    """A kernel for each sample, computed from the image; the batch is part of the channel axis.

    The input is (1, N * C, *space), the weight (N * out, C, *kernel), and there are N * g groups.
    It is seen as N samples (N, C, *space) with g groups. Kernels say how positions are mixed and
    have no positions: their labels are those of gates, which are ignored (contract, points 8 and
    9). Used by Yang et al., *CondConv: Conditionally Parameterized Convolutions for Efficient
    Inference*, arXiv:1904.04971.
    """
    first, inner, *space = source.traced_layout.axes
    outer, *taps = weight.traced_layout.axes
    channels, outputs = _channels_after_batch(inner), _channels_after_batch(outer)
    groups = call["groups"]
    batch_is_elsewhere = any(map(has_positions, (first, *taps)))
    if channels is None or outputs is None or batch_is_elsewhere or groups % inner[0].size:
        raise LayoutError(
            f"{call.operator} with a kernel computed from the image, {weight.layout}, slides over "
            f"{source.layout}; it can be followed if the batch comes first in the channel axes of "
            "both, so that each sample has its own kernel"
        )
    samples, channels_per_sample = inner[0].size, axis_size(outputs)
    shape = (channels_per_sample, *weight.shape[1:])
    arguments = {
        **call.arguments,
        "input": with_layout(source, Layout((inner[:1], channels or channel(1), *space))),
        "weight": replace(weight, shape=shape, layout=None, field=None),
        "groups": groups // samples,
    }
    output = (samples, channels_per_sample, *call.output[2:])
    flow = conv(replace(call, arguments=arguments, outputs=(output,)))
    assert flow.layout is not None
    batch, kept, *space = flow.layout.axes
    flow = replace(flow, layout=Layout(((), (*batch, *kept), *space)))
    if isinstance(flow, Convolve):
        return replace(flow, channels_per_sample=fixed_size(channels_per_sample))
    return flow


def _channels_after_batch(axis: Axis) -> Axis | None:
    """The channels of an axis that starts with the batch, as `B * 8 channel`; else None."""
    if not axis or axis[0].kind is not Kind.BATCH or has_positions(axis[1:]):
        return None
    return axis[1:]


def _one_tap(call: Call, source: Operand, weight: Operand, windows: Windows) -> Flow:
    """A kernel of one tap contracts channels only; with a stride it keeps every n-th position."""
    if any(window.stride != 1 for window in windows):
        return _subsampled(source, windows, call.output, weight.shape[0])
    groups = call["groups"]
    axis = source.traced_layout.axes[1]
    if not has_positions(axis):
        layout = source.traced_layout
        axes = (layout.axes[0], channel(weight.shape[0]), *layout.axes[2:])
        return relayout(source, Layout(axes), operation=Operation.CHANNEL_MIXING)
    if groups == 1 and source.labeled and _serve_as_channels(source):
        return _aggregated_channels(source, weight, call.output)
    if groups == 1:
        space = tuple("stuvw"[: len(windows)])
        taps = tuple("lmnop"[: len(windows)])
        equation = ContractionEquation(("b", "i", *space), ("z", "i", *taps), ("b", "z", *space))
        return contract(equation, source, weight, call.output)
    if groups == source.shape[1] == weight.shape[0]:  # a scale for each position
        return relayout(source, source.traced_layout, operation=Operation.POINTWISE)
    raise LayoutError(
        f"a grouped convolution contracts an axis that has positions: {source.layout}"
    )


def _serve_as_channels(source: Operand) -> bool:
    """Whether the positions in axis 1 are what the convolution has for channels.

    - (B, 4 position * 3 channel, 7, 7): yes, blocks of a space-to-depth stem.
    - (B, 49 position, 7, 7) without channels elsewhere: yes, there is nothing else.
    - (B, 49 position, 8 channel): no, tokens are mixed.
    """
    axes = source.traced_layout.axes
    return has_channels(axes[1]) or not any(map(has_channels, axes))


def _aggregated_channels(source: Operand, weight: Operand, output: Sequence[Size]) -> Flow:
    """The positions in the channel axis are contracted: their mean (contract, point 7)."""
    first, inner, *space = source.traced_layout.axes
    space = [
        axis if axis_size(axis) == size else resized_axis(axis, size)
        for axis, size in zip(space, output[2:], strict=True)
    ]
    kept = [first, channel(weight.shape[0]), *space]
    return aggregation(source, renumbered(kept), kept, [inner])


def _subsampled(source: Operand, windows: Windows, output: Sequence[Size], channels: Size) -> Flow:
    """Every n-th position, and channel mixing: pooling with windows of one tap."""
    if has_positions(source.traced_layout.axes[1]) or not source.labeled:
        raise LayoutError(f"a strided convolution of one tap over {source.layout}")
    field = spatial_field(source, len(windows), output)
    if not field.varies:
        return without_positions(source, len(windows), output, channels)
    return Pool(
        operation=Operation.CHANNEL_MIXING,
        layout=renumbered([field.axes[0], channel(channels), *field.axes[2:]]),
        field_shape=field.result,
        source=field.labels,
        windows=tuple(replace(window, dilation=1) for window in windows),
    )


def _on_weights(source: Operand, weight: Operand, output: Sequence[Size]) -> Flow:
    """A convolution of mixing weights gives mixing weights of the same positions."""
    layout = source.traced_layout
    if tuple(output[2:]) != source.shape[2:]:
        raise LayoutError(f"a convolution changes the positions of mixing weights: {layout}")
    axes = (layout.axes[0], channel(weight.shape[0]), *layout.axes[2:])
    return Weights(layout=renumbered(axes))


def _sliding(call: Call, source: Operand, weight: Operand, windows: Windows) -> Flow:
    """A kernel that slides over positions: spatial mixing, or aggregation if it tiles the image."""
    first, inner, *space = source.traced_layout.axes
    blocks = _Blocks()
    if has_positions(inner):
        if call["groups"] != 1 or not _serve_as_channels(source):
            raise LayoutError(
                f"{call.operator} slides over an activation with positions in its channel axis: "
                f"{source.layout}"
            )
        if not any(map(has_positions, space)):
            return _aggregated_channels(source, weight, call.output)
        source, blocks = _blocks_as_space(source)
    count = len(blocks.windows) + len(windows)
    if count > 3:
        raise LayoutError(f"{call.operator} over {count} dimensions of positions: {source.layout}")
    all_windows = blocks.windows + windows
    index_by_index = [dim for dim, window in enumerate(all_windows) if window.is_identity]
    sizes = (*call.output[:2], *(1 for _ in blocks.windows), *call.output[2:])
    field = spatial_field(source, count, sizes, index_by_index)
    if not field.varies:
        return without_positions(source, count, call.output, weight.shape[0])
    kept = field.axes[2 + len(blocks.windows) :]
    layout = renumbered([first, channel(weight.shape[0]), *kept])
    if all(window.is_tiling for window in windows):
        return Pool(
            operation=Operation.SPATIAL_AGGREGATION,
            layout=layout,
            field_shape=field.result,
            source=field.labels,
            windows=tuple(replace(window, stride=window.kernel) for window in all_windows),
        )
    return Convolve(
        layout=layout,
        field_shape=field.result,
        source=field.labels,
        weights=weight,
        windows=all_windows,
        channel_blocks=blocks.factors,
    )


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Positions in the channel axis, as the first dimension of space; empty without any.

    Attributes:
        windows: one window that reads a whole block.
        factors: the factors of the channel axis: (size, whether it is a position).
    """

    windows: Windows = ()
    factors: tuple[tuple[int, bool], ...] = ()


def _blocks_as_space(source: Operand) -> tuple[Operand, _Blocks]:
    """The operand with the positions of its channel axis as the first axis of space.

    A space-to-depth stem, where one window reads all positions of a block:

        (B, 4 position * 3 channel, 7 position, 7 position)
        (B, 1, 4 position, 7 position, 7 position)      and a first window of 4 taps
    """
    first, inner, *space = source.traced_layout.axes
    block = positions(inner)
    size = axis_size(block)
    blocks = _Blocks(
        (SlidingWindow(fixed_size(size)),),
        tuple((fixed_size(f.size), f.is_position) for f in inner),
    )
    return with_layout(source, Layout((first, (), block, *space))), blocks
