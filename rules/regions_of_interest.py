"""Operators of torchvision on boxes: regions of interest of a map, and which boxes are kept.

Boxes say where, not what: they are read when the model runs, and mix the labels of the map.
"""

from labeltrace.errors import LayoutError
from labeltrace.flow import Constant, Flow, LabelView, Operand, Operation, SampleBoxes, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    arrange,
    channel,
    has_positions,
    pure_positions,
    renumbered,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.picked_elements import index_tensor

MAXIMUM = (
    "the maximum of a bin is taken for the mean: which position it comes from depends on the values"
)


@register_rule("torchvision.nms")
def nms(call: Call) -> Flow:
    """The indices of the boxes that are kept."""
    return Constant()


@register_rule("torchvision.roi_align")
def roi_align(call: Call) -> Flow:
    """Samples of a map in the bins of boxes, averaged."""
    return _sampled(call, sampling_ratio=call["sampling_ratio"], aligned=call["aligned"])


@register_rule("torchvision.roi_pool")
def roi_pool(call: Call) -> tuple[Flow, ...]:
    """The largest value in the bins of boxes, and its index."""
    return _sampled(call, approximation=MAXIMUM), Constant()


@register_rule("torchvision.ps_roi_align")
def ps_roi_align(call: Call) -> tuple[Flow, ...]:
    """As `roi_align`, with channels of its own for each bin."""
    return _sampled(call, sampling_ratio=call["sampling_ratio"]), Constant()


@register_rule("torchvision.ps_roi_pool")
def ps_roi_pool(call: Call) -> tuple[Flow, ...]:
    """The mean in the bins of boxes, with channels of its own for each bin."""
    return _sampled(call), Constant()


def _sampled(
    call: Call, *, sampling_ratio: int = 0, aligned: bool = False, approximation: str = ""
) -> Flow:
    source: Operand = call["input"]
    boxes: Operand = call["rois"]
    if not source.traced:
        return Constant()  # the boxes alone come from the image
    maps, channels, rows, columns = source.traced_layout.axes
    count, _, bin_rows, bin_columns = call.output
    result: list[Axis] = [(Factor(count, Kind.POSITION),), channel(call.output[1])]
    result += [(Factor(size, Kind.POSITION),) for size in (bin_rows, bin_columns)]
    layout = renumbered(result)
    if source.is_weights:
        return Weights(layout=layout)
    space = (maps, rows, columns)
    if has_positions(channels) or not all(map(pure_positions, space)):
        raise LayoutError(
            f"boxes are cut out of {source.layout}; they need maps with rows and columns, and "
            "channels apart from them"
        )
    return SampleBoxes(
        operation=Operation.SPATIAL_MIXING,
        layout=layout,
        source=LabelView(source, arrange(source.traced_layout, space)),
        boxes=index_tensor(boxes),
        operator=call.operator.removeprefix("torchvision."),
        size=(bin_rows, bin_columns),
        scale=call["spatial_scale"],
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        has_prior=[factor.kind for factor in maps if factor.size != 1] in ([Kind.BATCH], []),
        approximation=approximation,
    )
