"""Resampling: the upsample operators, which `torch.nn.functional.interpolate` calls.

Every position of the result mixes positions of the input by the weights of the interpolation. The
interpolation is separable: there is one matrix for each axis of space.
"""

from labeltrace.flow import Flow, Resample, Weights
from labeltrace.layout import renumbered
from labeltrace.rule_api.call import Call
from labeltrace.rule_api.registry import register_rule
from labeltrace.rule_helpers.spatial import spatial_field, without_positions

MODES = {
    "upsample_nearest1d": "nearest",
    "upsample_nearest2d": "nearest",
    "upsample_nearest3d": "nearest",
    "_upsample_nearest_exact1d": "nearest-exact",
    "_upsample_nearest_exact2d": "nearest-exact",
    "_upsample_nearest_exact3d": "nearest-exact",
    "upsample_linear1d": "linear",
    "upsample_bilinear2d": "linear",
    "upsample_trilinear3d": "linear",
    "upsample_bicubic2d": "cubic",
    "_upsample_bilinear2d_aa": "linear",
    "_upsample_bicubic2d_aa": "cubic",
}


@register_rule(*(f"aten.{name}" for name in MODES))
def upsample(call: Call) -> Flow:
    """Interpolation to another size."""
    (source,) = call.operands
    name = call.operator.removeprefix("aten.")
    count = len(source.shape) - 2
    field = spatial_field(source, count, call.output)
    if not field.varies:  # all positions have one label
        return without_positions(source, count, call.output)
    layout = renumbered(field.axes)
    if source.is_weights:
        return Weights(layout=layout)
    return Resample(
        layout=layout,
        field_shape=field.result,
        source=field.labels,
        sizes=tuple(call.output[2:]),
        scales=_factors(call, count),
        mode=MODES[name],
        align_corners=bool(call.get("align_corners", False)),
        antialias=name.endswith("_aa"),
    )


def _factors(call: Call, count: int) -> tuple[float | None, ...]:
    """The factor that the model gives for each axis of space, or None.

    The `vec` overloads, which `torch.nn.functional.interpolate` calls, have them in a list.
    """
    if "scale_factors" in call.arguments:
        return tuple(call["scale_factors"] or (None,) * count)
    names = ("scales",) if count == 1 else ("scales_d", "scales_h", "scales_w")[-count:]
    return tuple(call[name] for name in names)
