"""The steps that the replicas share, dense and in float64.

A *label map* is a float64 tensor (B, rows, columns, K), a *token label* tensor is (B, N, K): one
distribution over the K sources for every position. A *mixing matrix* is (outputs, inputs) or
(B, outputs, inputs) with rows that sum to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

ModuleKind = TypeVar("ModuleKind", bound=nn.Module)


def expect(module: object, kind: type[ModuleKind]) -> ModuleKind:
    """Return `module` if it is a `kind`; a replica never guesses what another module would do."""
    if not isinstance(module, kind):
        raise TypeError(f"this replica knows {kind.__name__}, not {type(module).__name__}")
    return module


def inputs_of(modules: Sequence[nn.Module], model: nn.Module, images: Tensor) -> list[Tensor]:
    """Run `model(images)` and return the first argument of each of `modules`, as float64."""
    if model.training:
        raise ValueError("the replicas describe eval mode: call model.eval() first")
    seen: dict[int, Tensor] = {}

    def remember(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen[id(module)] = arguments[0].detach().double()

    handles = [module.register_forward_pre_hook(remember) for module in modules]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [seen[id(module)] for module in modules]


def prior(label_image: Tensor) -> Tensor:
    """Mean label of an image (B, K, H, W) over all its pixels: (B, K)."""
    return label_image.double().mean(dim=(2, 3))


def pixel_labels(label_image: Tensor) -> Tensor:
    """Label image (B, K, H, W) as a label map (B, H, W, K)."""
    return label_image.double().permute(0, 2, 3, 1)


def patch_means(label_map: Tensor, patch_rows: int, patch_columns: int) -> Tensor:
    """Mean label of every whole, non-overlapping patch; pixels beyond the last whole one are lost.

    Spatial aggregation of Table 10: what a patch embedding or a 2x2 down-sampling does.
    """
    rows, columns = label_map.shape[1] // patch_rows, label_map.shape[2] // patch_columns
    means = torch.zeros(label_map.shape[0], rows, columns, label_map.shape[3], dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            top, left = row * patch_rows, column * patch_columns
            patch = label_map[:, top : top + patch_rows, left : left + patch_columns]
            means[:, row, column] = patch.mean(dim=(1, 2))
    return means


def tokens_of(label_map: Tensor) -> Tensor:
    """Label map (B, rows, columns, K) as token labels (B, rows * columns, K), row by row."""
    return label_map.reshape(label_map.shape[0], -1, label_map.shape[3])


def norm(weights: Tensor) -> Tensor:
    """`Norm` of Table 10: absolute values, each row over its sum; a row of zeros is uniform."""
    weights = weights.double().abs()
    total = weights.sum(dim=-1, keepdim=True)
    uniform = torch.full_like(weights, 1 / weights.shape[-1])
    return torch.where(total > 0, weights / total, uniform)


def residual(labels: Tensor, branch: Tensor) -> Tensor:
    """Residual connection, equation 11: the average of the two labels."""
    return (labels + branch) / 2


def mixed_by_kernel(
    label_map: Tensor,
    kernel: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    *,
    ceil_mode: bool = False,
) -> Tensor:
    """Label map mixed by one non-negative kernel (taps down, taps across) at every position.

    The mixing matrix (all outputs by all inputs) is written down tap by tap. Taps outside the map
    carry nothing: what remains of each row is normalized to sum to one. A row that holds nothing
    but zeros falls back to equal weights over its taps inside.
    """
    _, rows, columns, sources = label_map.shape
    out_rows = _outputs(rows, kernel.shape[0], stride[0], padding[0], dilation[0], ceil_mode)
    out_columns = _outputs(columns, kernel.shape[1], stride[1], padding[1], dilation[1], ceil_mode)
    weights = torch.zeros(out_rows, out_columns, rows, columns, dtype=torch.float64)
    inside = torch.zeros_like(weights)
    for row in range(out_rows):
        for column in range(out_columns):
            for tap_row in range(kernel.shape[0]):
                for tap_column in range(kernel.shape[1]):
                    source_row = row * stride[0] - padding[0] + tap_row * dilation[0]
                    source_column = column * stride[1] - padding[1] + tap_column * dilation[1]
                    if 0 <= source_row < rows and 0 <= source_column < columns:
                        weight = kernel[tap_row, tap_column]
                        weights[row, column, source_row, source_column] = weight
                        inside[row, column, source_row, source_column] = 1
    weights, inside = (matrix.reshape(-1, rows * columns) for matrix in (weights, inside))
    weights = torch.where(weights.sum(dim=1, keepdim=True) > 0, weights, inside)
    mixed = norm(weights) @ tokens_of(label_map)
    return mixed.reshape(-1, out_rows, out_columns, sources)


def _outputs(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Number of output positions along one axis, counted by sliding the window to the end."""
    extent = dilation * (kernel - 1) + 1
    count, start = 0, -padding
    while start + extent <= size + padding:
        count, start = count + 1, start + stride
    # With ceil_mode one more window counts that starts inside the map (or the padding before it)
    # and hangs over its end, if there is anything left that no window has reached.
    last_end = start - stride + extent
    if ceil_mode and last_end < size + padding and start < size:
        count += 1
    return count


def through_convolution(label_map: Tensor, convolution: nn.Module) -> Tensor:
    """Label map through a 2d convolution with zero padding.

    Kernel equal to stride without padding is spatial aggregation: a plain mean. All others mix
    with `k[t] = mean_o( sum_i |W[o,i,t]| / sum_{i,t'} |W[o,i,t']| )` over output channels o and
    input channels i. A kernel of one tap has k = 1, so it leaves labels alone or subsamples them.
    """
    convolution = expect(convolution, nn.Conv2d)
    if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        raise TypeError("this replica knows convolutions with explicit zero padding only")
    kernel_size, stride = _pair(convolution.kernel_size), _pair(convolution.stride)
    padding, dilation = _pair(convolution.padding), _pair(convolution.dilation)
    if kernel_size == stride and padding == (0, 0):
        return patch_means(label_map, *kernel_size)
    share_per_output_channel = []
    for weight in convolution.weight.detach().double():  # (input channels of the group, taps, taps)
        share_per_output_channel.append(norm(weight.abs().sum(dim=0).flatten()))
    kernel = torch.stack(share_per_output_channel).mean(dim=0).reshape(kernel_size)
    return mixed_by_kernel(label_map, kernel, stride, padding, dilation)


def through_pooling(label_map: Tensor, pooling: nn.MaxPool2d | nn.AvgPool2d) -> Tensor:
    """Label map through a pooling layer: uniform over the positions inside the image."""
    dilation = _pair(pooling.dilation) if isinstance(pooling, nn.MaxPool2d) else (1, 1)
    return mixed_by_kernel(
        label_map,
        torch.ones(_pair(pooling.kernel_size), dtype=torch.float64),
        _pair(pooling.stride),
        _pair(pooling.padding),
        dilation,
        ceil_mode=pooling.ceil_mode,
    )


def _pair(value: int | Iterable[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, second = value
    return first, second
