"""Fused attention: `softmax(q k^T) v` in one operator."""

from string import ascii_lowercase

from labeltrace.flow import Attend, Constant, Flow, NamedOperand, Operand, Operation, Weights
from labeltrace.layout import (
    Axis,
    Factor,
    Kind,
    Layout,
    Size,
    channel,
    has_positions,
    renumbered,
)
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.axis_names import name_axes
from labeltrace.rule_helpers.elementwise import relayout
from labeltrace.rule_helpers.matrix_mixing import plan_mixing
from labeltrace.rule_helpers.result_layouts import kind_of_new_axis

_BATCH_LETTERS = [letter for letter in ascii_lowercase if letter not in "hqkde"]


@register_rule("aten.scaled_dot_product_attention")
def scaled_dot_product_attention(call: Call) -> Flow:
    """Spatial mixing if the keys are positions, channel mixing if they are channels."""
    query: Operand = call["query"]
    key: Operand = call["key"]
    value: Operand = call["value"]
    batch = _batch_letters(len(call.output) - 2)
    result = (*batch, "q", "e")
    sizes: dict[str, Size] = dict(zip(result, call.output, strict=True)) | {"k": value.shape[-2]}
    values = name_axes(value, (*batch, "k", "e"), sizes)
    probabilities = _probabilities(query, key, batch, sizes)
    if not value.labeled:
        axes = (
            *(probabilities.axes.get(letter, ()) for letter in (*batch, "q")),
            channel(sizes["e"]),
        )
        layout = renumbered(
            [axis or channel(sizes[x]) for axis, x in zip(axes, result, strict=True)]
        )
        return Weights(layout=layout) if value.traced or probabilities.positions else Constant()
    if not values.has_positions("k"):
        new = kind_of_new_axis(values, result)
        kept = tuple(values.axes.get(letter, (Factor(sizes[letter], new),)) for letter in result)
        return relayout(value, Layout(kept), operation=Operation.CHANNEL_MIXING)
    plan = plan_mixing(values, probabilities, result, sizes)
    return Attend(
        layout=plan.layout,
        field_shape=plan.field_shape,
        source=plan.labels,
        query=query,
        key=key,
        value=value,
        mask=call.get("attn_mask"),
        is_causal=call["is_causal"],
        scale=call.get("scale"),
        grouped_heads=call["enable_gqa"],
        equation=plan.equation,
    )


def _batch_letters(count: int) -> tuple[str, ...]:
    """Letters for the leading axes; the last of them is the heads."""
    return (*_BATCH_LETTERS[: count - 1], "h") if count else ()


def _probabilities(
    query: Operand, key: Operand, batch: tuple[str, ...], sizes: dict[str, Size]
) -> NamedOperand:
    """The attention map as a matrix operand: rows are queries, always positions."""
    sizes = sizes | {"d": query.shape[-1]}
    queries = name_axes(query, (*batch, "q", "d"), sizes)
    keys = name_axes(key, (*batch, "k", "d"), sizes)
    axes: dict[str, Axis] = {}
    for letter in batch:
        found = [side.axes[letter] for side in (queries, keys) if letter in side.axes]
        varying = [axis for axis in found if has_positions(axis)]
        axes[letter] = next(iter(varying or found), channel(sizes[letter]))
    row = queries.axes.get("q", ())
    axes["q"] = row if has_positions(row) else (Factor(sizes["q"], Kind.POSITION),)
    axes["k"] = channel(sizes["k"])
    return NamedOperand(query, (*batch, "q", "k"), axes)
