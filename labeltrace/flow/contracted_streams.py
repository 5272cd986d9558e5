"""The streams that mixing weights were computed from, for when the weights end as content."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.flow.named_operand import NamedOperand


@dataclass(frozen=True, slots=True)
class ContractedStreams:
    """Streams whose product, or whose own values, are mixing weights.

    Attributes:
        sides: the streams with their axes by letter: queries and keys, or what a softmax was of.
        result: the letters of the weights. All others are contracted.
    """

    sides: tuple[NamedOperand, ...]
    result: tuple[str, ...]
