"""A slow, obvious computation of the labels of every operator that has a built-in rule.

Each file is named as the file of ``rules/`` whose operators it calls. It has `CASES`, and may have
`REFUSED`, code that cannot be followed, and `UNREACHABLE`, names that no capture brings, each with
the reason.
"""

from collections.abc import Mapping

from tests.rules.cases import (
    attention,
    concatenation,
    convolution,
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
from tests.rules.cases.case import Fault, Refusal, RuleCase, fault_of

FILES = (
    attention,
    metadata_only,
    matmul,
    convolution,
    sliding_windows,
    concatenation,
    padding,
    pointwise,
    pooling,
    multiplication,
    recurrence,
    reduction,
    repetition,
    resampling,
    residual,
    indexing,
    indexing_by_tensors,
    ordering,
    losses,
    regions_of_interest,
    view,
    writing,
)

CASES: tuple[RuleCase, ...] = tuple(case for file in FILES for case in file.CASES)
REFUSED: tuple[Refusal, ...] = tuple(
    refusal for file in FILES for refusal in getattr(file, "REFUSED", ())
)
UNREACHABLE: Mapping[str, str] = {
    name: reason for file in FILES for name, reason in getattr(file, "UNREACHABLE", {}).items()
}

__all__ = [
    "CASES",
    "REFUSED",
    "UNREACHABLE",
    "Fault",
    "Refusal",
    "RuleCase",
    "fault_of",
]
