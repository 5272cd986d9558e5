"""Losses that a model computes itself, as detectors do in train mode: means over all positions.

The targets are constants. A loss for each position is point-wise; the class axis is of channels.
"""

from labeltrace.errors import LayoutError
from labeltrace.flow import Constant, Flow, Operand, Operation, Weights
from labeltrace.layout import Axis, Layout, has_positions, renumbered
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.aggregation import aggregation
from labeltrace.rule_helpers.elementwise import relayout

NO_REDUCTION = 0


@register_rule(
    "aten.binary_cross_entropy",
    "aten.binary_cross_entropy_with_logits",
    "aten.huber_loss",
    "aten.l1_loss",
    "aten.mse_loss",
    "aten.smooth_l1_loss",
    "aten.soft_margin_loss",
)
def loss_of_values(call: Call) -> Flow:
    """A loss of each value."""
    return _loss(call, ())


@register_rule("aten.cross_entropy_loss", "aten.nll_loss", "aten.nll_loss_nd", "aten.nll_loss2d")
def loss_of_classes(call: Call) -> Flow:
    """A loss of each distribution over classes, whose axis is the second one, or the only one."""
    source: Operand = call["self"]
    return _loss(call, (min(1, len(source.shape) - 1),))


def _loss(call: Call, classes: tuple[int, ...]) -> Flow:
    source: Operand = call["self"]
    if call["target"].labeled:
        raise LayoutError("the target of a loss comes from the image; compare outside the model")
    if not source.traced:
        return Constant()
    axes = source.traced_layout.axes
    reduced = range(len(axes)) if call["reduction"] != NO_REDUCTION else classes
    kept: list[Axis] = [axis for dim, axis in enumerate(axes) if dim not in reduced]
    gone = [axis for dim, axis in enumerate(axes) if dim in reduced]
    if source.is_weights:
        return Weights(layout=renumbered(kept))
    if not any(map(has_positions, gone)):
        return relayout(source, Layout(tuple(kept)), operation=Operation.CHANNEL_MIXING)
    return aggregation(source, renumbered(kept), kept, gone)
