"""What each operator does to positions and channels: one file per kind of step.

A rule is a plain function from a :class:`labeltrace.rule_api.call.Call` to a flow.  Importing this package
files all of them; ``BUILT_IN`` is the table that holds them.
"""

from labeltrace.rule_api.registry import current
from labeltrace.rules import (
    attention,
    concatenation,
    convolution,
    indexing,
    matmul,
    maxima,
    metadata_only,
    multiplication,
    pointwise,
    pooling,
    recurrence,
    reduction,
    repetition,
    resampling,
    residual,
    sliding_windows,
    view,
)

BUILT_IN = current()

__all__ = [
    "BUILT_IN",
    "attention",
    "concatenation",
    "convolution",
    "indexing",
    "matmul",
    "maxima",
    "metadata_only",
    "multiplication",
    "pointwise",
    "pooling",
    "recurrence",
    "reduction",
    "repetition",
    "resampling",
    "residual",
    "sliding_windows",
    "view",
]
