"""Windows that slide along an axis: those of convolutions, pooling, unfold and fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labeltrace.layout.batch_size import Size, fixed_size


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """How a window slides along one axis. A step over several axes has one for each of them.

    Attributes:
        kernel: the number of taps, the indices that one window reads.
        stride: the distance between the first taps of neighboring windows.
        padding: how many indices are added (before, after) the axis.
        dilation: the distance between neighboring taps of one window.

    A window of 3 with stride 2 and padding (1, 1) on an axis of size 6; the indices -1 and 6 are
    padding:

        index      -1  0  1  2  3  4  5  6
        window 0    x  x  x
        window 1          x  x  x
        window 2                x  x  x

    >>> SlidingWindow(3, stride=2, padding=(1, 1)).count(6)
    3
    """

    kernel: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1

    @property
    def span(self) -> int:
        """The number of indices from the first tap to the last tap, both included."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def is_padded(self) -> bool:
        """Whether indices are added to the axis."""
        return any(self.padding)

    @property
    def is_identity(self) -> bool:
        """Whether there is one window for each index, and it reads this index only."""
        return self.kernel == 1 and self.stride == 1 and not self.is_padded

    @property
    def is_tiling(self) -> bool:
        """Whether windows follow each other without gap, overlap or padding."""
        return self.kernel == self.stride and not self.is_padded and self.dilation == 1

    @property
    def symmetric_padding(self) -> int:
        """The padding on either side.

        Raises:
            ValueError: the padding before and after the axis differ.
        """
        before, after = self.padding
        if before != after:
            raise ValueError(
                f"padding {self.padding} differs before and after the axis; only a convolution "
                "can have such windows"
            )
        return before

    def count(self, size: Size) -> int:
        """The number of windows on an axis of `size` indices."""
        return (fixed_size(size) + sum(self.padding) - self.span) // self.stride + 1

    def covers(self, size: Size) -> bool:
        """Whether each of `size` indices is a tap of some window."""
        first = -self.padding[0]
        starts = range(first, first + self.count(size) * self.stride, self.stride)
        taps = range(0, self.span, self.dilation)
        return {start + tap for start in starts for tap in taps}.issuperset(range(fixed_size(size)))


def sliding_windows(
    kernel: Iterable[int],
    stride: Iterable[int],
    padding: Iterable[int | Sequence[int]],
    dilation: Iterable[int],
) -> tuple[SlidingWindow, ...]:
    """One window for each axis, from settings that have one entry for each axis.

    An entry of `padding` is one number for both sides, or (before, after).

    >>> first, second = sliding_windows([3, 2], [1, 2], [1, (0, 1)], [1, 1])
    >>> first
    SlidingWindow(kernel=3, stride=1, padding=(1, 1), dilation=1)
    >>> second
    SlidingWindow(kernel=2, stride=2, padding=(0, 1), dilation=1)
    """
    return tuple(
        SlidingWindow(taps, step, _both_sides(added), spacing)
        for taps, step, added, spacing in zip(kernel, stride, padding, dilation, strict=True)
    )


def _both_sides(padding: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(padding, int):
        return padding, padding
    before, after = padding
    return before, after
