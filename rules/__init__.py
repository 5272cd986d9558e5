"""What each operator does to positions and channels: one file per kind of step.

A rule is a plain function from a :class:`labeltrace.rule_api.call.Call` to a flow.  Importing this package
files all of them; ``BUILT_IN`` is the table that holds them.
"""

from labeltrace.rule_api.registry import current
from labeltrace.rules import (
    attention,
    constant,
    contraction,
    convolution,
    folding,
    joining,
    maxima,
    pointwise,
    pooling,
    product,
    recurrence,
    reduction,
    repetition,
    resampling,
    residual,
    selection,
    view,
)

BUILT_IN = current()

__all__ = [
    "BUILT_IN",
    "attention",
    "constant",
    "contraction",
    "convolution",
    "folding",
    "joining",
    "maxima",
    "pointwise",
    "pooling",
    "product",
    "recurrence",
    "reduction",
    "repetition",
    "resampling",
    "residual",
    "selection",
    "view",
]
