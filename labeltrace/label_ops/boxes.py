"""Labels of the bins of boxes on a map, as torchvision's operators for regions of interest have."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labeltrace.label_ops.arithmetic import label_arithmetic


@label_arithmetic
def sample_boxes(
    labels: Tensor,
    prior: Tensor | None,
    boxes: Tensor,
    operator: str,
    size: Sequence[int],
    scale: float,
    sampling_ratio: int = 0,
    aligned: bool = False,
) -> Tensor:
    """The mean label of what each bin of each box sees.

    Args:
        labels: (maps, rows, columns, K), float32.
        prior: (maps, K), for bins that see nothing; None for the mean of the map.
        boxes: (boxes, 5): the number of the map, then x1, y1, x2, y2.
        operator: `"roi_align"` or `"ps_roi_align"`, which take samples between pixels;
            `"ps_roi_pool"`, the mean of a bin; `"roi_pool"`, whose maximum is taken for the mean.
        size: the rows and columns of bins.
        scale: by which boxes are multiplied.
        sampling_ratio: the samples of a bin along each axis; 0 for one in each pixel.
        aligned: of `"roi_align"`: whether boxes are moved by half a pixel.

    Returns:
        (boxes, *size, K).
    """
    boxes = boxes.detach().to(torch.float32)
    rows, columns = size
    maps = labels.movedim(-1, 1)
    if operator == "roi_pool":
        seen = _means_of_bins(labels, boxes, rows, columns, scale)
    elif operator == "roi_align":
        seen = torch.ops.torchvision.roi_align(
            maps, boxes, scale, rows, columns, sampling_ratio, aligned
        ).movedim(1, -1)
    else:  # the channel of each bin is another one: copies of one label
        copies = maps.repeat_interleave(rows * columns, 1)
        settings = (scale, rows, columns)
        if operator == "ps_roi_align":
            found = torch.ops.torchvision.ps_roi_align(copies, boxes, *settings, sampling_ratio)
        else:
            found = torch.ops.torchvision.ps_roi_pool(copies, boxes, *settings)
        seen = found[0].movedim(1, -1)
    total = seen.sum(-1, keepdim=True)
    rest = labels.flatten(1, 2).mean(1) if prior is None else prior
    rest = rest[boxes[:, 0].long()][:, None, None]
    return torch.where(total > 0, seen / total.clamp(min=torch.finfo(total.dtype).tiny), rest)


def _means_of_bins(labels: Tensor, boxes: Tensor, rows: int, columns: int, scale: float) -> Tensor:
    """The sums over the whole pixels of each bin, as `roi_pool` rounds its borders."""
    height, width = labels.shape[1:3]
    x1, y1, x2, y2 = _rounded(boxes[:, 1:] * scale).unbind(1)
    top, bottom = _bins(y1, y2, rows, height)
    left, right = _bins(x1, x2, columns, width)
    summed = torch.zeros(
        labels.shape[0], height + 1, width + 1, labels.shape[-1], device=labels.device
    ).double()
    summed[:, 1:, 1:] = labels.double().cumsum(1).cumsum(2)
    number = boxes[:, 0].long()[:, None, None]

    def until(y: Tensor, x: Tensor) -> Tensor:
        return summed[number, y[:, :, None], x[:, None, :]]

    found = until(bottom, right) - until(top, right) - until(bottom, left) + until(top, left)
    inside = ((bottom > top)[:, :, None] & (right > left)[:, None, :])[..., None]
    return torch.where(inside, found.clamp(min=0), 0.0).to(labels.dtype)


def _rounded(values: Tensor) -> Tensor:
    """Rounded to the nearest number, halves away from zero."""
    return values.sign() * (values.abs() + 0.5).floor()


def _bins(start: Tensor, end: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """The first pixel of each bin of each box, and the one after its last."""
    length = (end - start + 1).clamp(min=1) / count
    index = torch.arange(count, device=start.device, dtype=start.dtype)
    first = (index * length[:, None]).floor() + start[:, None]
    last = ((index + 1) * length[:, None]).ceil() + start[:, None]
    return first.clamp(0, size).long(), last.clamp(0, size).long()
