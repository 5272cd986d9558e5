"""The built-in rules: what each operator does to positions and channels.

A rule is a plain function from a `labeltrace.rule_api.call.Call` to a flow, named after the ATen
operator that it serves. Each file has one kind of operators. Importing this package registers all
rules; `BUILT_IN` is the table of them.
"""

from labeltrace.rule_api.registry import current
from labeltrace.rules import (
    attention,
    concatenation,
    convolution,
    follow_maxima,
    indexing,
    indexing_by_tensors,
    losses,
    matmul,
    metadata_only,
    multiplication,
    ordering,
    padding,
    pointwise,
    pooling,
    recurrence,
    reduction,
    regions_of_interest,
    repetition,
    resampling,
    residual,
    sliding_windows,
    view,
    writing,
)

BUILT_IN = current()

__all__ = [
    "BUILT_IN",
    "attention",
    "concatenation",
    "convolution",
    "follow_maxima",
    "indexing",
    "indexing_by_tensors",
    "losses",
    "matmul",
    "metadata_only",
    "multiplication",
    "ordering",
    "padding",
    "pointwise",
    "pooling",
    "recurrence",
    "reduction",
    "regions_of_interest",
    "repetition",
    "resampling",
    "residual",
    "sliding_windows",
    "view",
    "writing",
]
