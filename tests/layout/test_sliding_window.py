"""Windows along an axis, against `Tensor.unfold` and indices that are written out."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from labeltrace.layout import SlidingWindow, sliding_windows

WINDOWS = [
    SlidingWindow(kernel, stride, padding, dilation)
    for kernel, stride, padding, dilation in product(
        (1, 2, 3), (1, 2, 4), ((0, 0), (1, 1), (0, 2)), (1, 2)
    )
]


def taps_of(window: SlidingWindow, size: int) -> list[list[int]]:
    """The indices that each window reads; those of the padding are outside `range(size)`."""
    before, after = window.padding
    padded = torch.arange(-before, size + after)
    return padded.unfold(0, window.span, window.stride)[:, :: window.dilation].tolist()


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows_are_those_of_unfold(window: SlidingWindow) -> None:
    for size in (5, 7):
        taps = taps_of(window, size)
        assert window.count(size) == len(taps)
        assert all(len(row) == window.kernel for row in taps)
        read = {index for row in taps for index in row}
        assert window.covers(size) == read.issuperset(range(size))
        every_index = [[index] for index in range(size)]
        assert window.is_identity == (taps == every_index and not window.is_padded)


def test_tiles_follow_each_other() -> None:
    assert SlidingWindow(3, 3).is_tiling
    assert taps_of(SlidingWindow(3, 3), 6) == [[0, 1, 2], [3, 4, 5]]
    others = (SlidingWindow(3, 2), SlidingWindow(3, 3, (1, 0)), SlidingWindow(3, 3, dilation=2))
    assert not any(window.is_tiling for window in others)


def test_padding_is_one_number_or_two() -> None:
    first, second = sliding_windows([3, 2], [1, 2], [1, (0, 1)], [1, 1])
    assert first == SlidingWindow(3, 1, (1, 1), 1)
    assert second == SlidingWindow(2, 2, (0, 1), 1)
    assert first.symmetric_padding == 1
    with pytest.raises(ValueError, match="differs before and after the axis"):
        _ = second.symmetric_padding
