"""Padding: new indices at the ends of axes.

Constants that are added to positions carry the prior (contract, point 3). Reflection, replication
and circular padding copy labels as they copy values.
"""

from collections.abc import Mapping, Sequence

from labeltrace.errors import LayoutError
from labeltrace.flow import Flow, Operand, Operation, Pad, Weights
from labeltrace.layout import (
    Factor,
    Kind,
    axis_text,
    has_positions,
    replace_axis,
)
from labeltrace.rule_api.call import Call, Shape
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.elementwise import relayout, with_layout
from labeltrace.rule_helpers.moved_positions import is_mixed, moved_labels, resized_positions
from labeltrace.rule_helpers.output_facts import with_lower_bound
from labeltrace.rules.concatenation import check_no_samples, join_positions, kind_along

Widths = Mapping[int, tuple[int, int]]
"""How many indices are added (before, after) each padded axis; negative widths crop."""


@register_rule("aten.pad", "aten.constant_pad_nd")
def pad(call: Call) -> Flow:
    """Padding of any mode, as `torch.nn.functional.pad` takes its widths."""
    source: Operand = call["self"]
    flow = _padded(source, call["pad"], call.get("mode", "constant"), call.output)
    return with_lower_bound(flow, min(source.lower_bound, call.get("value", 0)))


@register_rule("aten.reflection_pad1d", "aten.reflection_pad2d", "aten.reflection_pad3d")
def reflection_pad(call: Call) -> Flow:
    """New indices mirror those next to the end."""
    return _padded(call["self"], call["padding"], "reflect", call.output)


@register_rule("aten.replication_pad1d", "aten.replication_pad2d", "aten.replication_pad3d")
def replication_pad(call: Call) -> Flow:
    """New indices repeat the last one."""
    return _padded(call["self"], call["padding"], "replicate", call.output)


def _padded(source: Operand, numbers: Sequence[int], mode: str, output: Shape) -> Flow:
    """Padding, by what each padded axis is made of.

    - Positions get new positions around them.
    - A single index of one label, without channels, between constants becomes one position, and
      the constants are positions around it.
    - Several copies of one label between constants are concatenated with them.
    - Along any other axis no label changes: it gets another size.
    """
    layout = source.traced_layout
    widths = _widths_by_axis(numbers, len(output))
    varying = [dim for dim in widths if has_positions(layout.axes[dim])]
    for dim in varying:
        if is_mixed(layout.axes[dim]):
            raise LayoutError(
                f"padding of an axis of positions and channels: {axis_text(layout.axes[dim])}"
            )
    if mode == "constant":
        between = _axes_between_constants(source, widths)
        if any(source.shape[dim] > 1 for dim in between):  # then no other axis is padded
            return join_positions(_between_constants(source, widths), between[0], output)
        varying += between
    for dim in widths:
        if dim not in varying:
            layout = replace_axis(layout, dim, (kind_along([source], dim, output[dim]),))
    if not varying:
        return relayout(source, layout, operation=Operation.RELAYOUT)
    return _padded_positions(
        with_layout(source, layout), {dim: widths[dim] for dim in varying}, mode, output
    )


def _padded_positions(source: Operand, widths: Widths, mode: str, output: Shape) -> Flow:
    """New positions around those of the axes of `widths`."""
    layout = resized_positions(source.traced_layout, {dim: output[dim] for dim in widths})
    if mode == "constant":
        for dim, (before, after) in widths.items():
            if before > 0 or after > 0:
                check_no_samples(source.traced_layout.axes[dim])
    if source.is_weights:
        return Weights(layout=layout)
    moved = moved_labels(source, widths)
    return Pad(
        layout=layout,
        source=moved.view,
        widths=moved.by_dimension(widths, (0, 0)),
        mode="prior" if mode == "constant" else mode,
    )


def _widths_by_axis(numbers: Sequence[int], rank: int) -> Widths:
    """The widths of each padded axis; torch lists them from the last axis on.

    For an activation of 4 axes `[1, 2, 0, 0, 3, 0]` is `{3: (1, 2), 1: (3, 0)}`.
    """
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return {rank - 1 - index: pair for index, pair in enumerate(pairs) if pair != (0, 0)}


def _axes_between_constants(source: Operand, widths: Widths) -> list[int]:
    """The axes that repeat one label, without channels, and get constants at their ends.

    Raises:
        LayoutError: such an axis is longer than one, and it is not the only padded axis.
    """
    dims = [
        dim
        for dim, width in widths.items()
        if max(width) > 0
        and not has_positions(source.traced_layout.axes[dim])
        and kind_along([source], dim).kind is Kind.REPEATED
    ]
    for dim in dims:
        if source.shape[dim] > 1 and len(widths) > 1:
            raise LayoutError(
                f"several axes are padded at once, one of which repeats a label: axis {dim} of "
                f"{source.layout}; pad them one after the other"
            )
    return dims


def _between_constants(source: Operand, widths: Widths) -> list[Operand]:
    """An activation and the constants that padding puts before and after it along its only axis.

    With the widths (2, -1) an axis of 5 repeats of a label becomes two pieces:

        constant constant | repeat repeat repeat repeat
    """
    ((dim, width),) = widths.items()
    before, after = (
        Operand(("pad",), (*source.shape[:dim], max(number, 0), *source.shape[dim + 1 :]))
        for number in width
    )
    left = source.shape[dim] + sum(min(number, 0) for number in width)
    kept = replace_axis(source.traced_layout, dim, (Factor(left, Kind.REPEATED),))
    return [piece for piece in (before, with_layout(source, kept), after) if piece.shape[dim]]
