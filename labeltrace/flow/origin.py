"""Origins: the tensors that a value depends on through point-wise steps and statistics alone."""

from __future__ import annotations

from dataclasses import dataclass

from labeltrace.layout import Size

Strides = tuple[tuple[Size, Size], ...]
"""Sizes and strides, outermost first: which entries of one field the indices of another one are."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A tensor of which a value is a point-wise function, or a statistic.

    A value is a point-wise function of itself, and of whatever led to it by steps that treat each
    position alike and by itself. It is a statistic of a tensor if some positions or channels of
    such a function were reduced, all with equal weights. Steps that learn or choose what they
    combine (a linear layer over channels, a convolution, attention, a sum of streams) end both.

    Attributes:
        tensor: the call that computed the tensor, and the index among its outputs.
        strides: None for a point-wise function. For a statistic: where the dimensions of its label
            field lie in that of the tensor. A stride of zero is a copy.
        negative: whether the value falls where the tensor rises, as far as the steps between spell
            it out: a negation, a subtraction, a negative number. Constants count as positive.
    """

    tensor: tuple[str, int]
    strides: Strides | None = None
    negative: bool = False

    @property
    def is_statistic(self) -> bool:
        """Whether the value is a statistic of the tensor, and no point-wise function."""
        return self.strides is not None
