"""Fidelity: whether provenance ranks input cells in the same order as gradients and occlusion.

Provenance says where content comes from; gradients and occlusion say what an output depends on. The
two may differ: a token may consist of cells that the output does not depend on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labeltrace.analysis.input_provenance import pixel_cells, provenance
from labeltrace.errors import LabelError
from labeltrace.inspection.label_program import eval_mode
from labeltrace.progress import tracked


@dataclass(frozen=True, eq=False, slots=True)
class Fidelity:
    """Rank correlations (Spearman) of the cells' shares in the model's output, over an image.

    Attributes:
        gradient: (B,) in [-1, 1], with the norm of the output's Jacobian in each cell.
        occlusion: (B,) in [-1, 1], with the change of the output when a cell is replaced with gray.
    """

    gradient: Tensor
    occlusion: Tensor


def fidelity(
    models: Mapping[str, nn.Module],
    images: Tensor,
    grid: tuple[int, int],
    *,
    probes: int = 16,
    generator: torch.Generator | None = None,
) -> dict[str, Fidelity]:
    """Rank correlations of provenance with gradients and with occlusion.

    Args:
        models: models by name; each returns one tensor (B, ...).
        images: (B, C, H, W).
        grid: rows and columns of cells, at least two cells.
        probes: random directions of the output from which the Jacobian's norm is estimated.
        generator: source of the random directions; None for torch's default.

    Raises:
        LabelError: the grid does not fit the images, or a model does not return a tensor.

    Examples:
        >>> import torch
        >>> from labeltrace.analysis import fidelity
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.AvgPool2d(2), torch.nn.Flatten()
        ... )
        >>> found = fidelity({"small": model}, torch.rand(2, 3, 16, 16), grid=(2, 2), probes=4)
        >>> found["small"].gradient.shape, found["small"].occlusion.shape
        (torch.Size([2]), torch.Size([2]))
    """
    if grid[0] * grid[1] < 2:
        raise LabelError(f"a grid of {grid} has no two cells to rank; choose a larger grid")
    found: dict[str, Fidelity] = {}
    for name, model in models.items():
        shares = provenance(model, images, grid)["output"].shares.mean(1).flatten(1)
        with eval_mode(model):
            gradients = jacobian_norms(model, images, grid, probes=probes, generator=generator)
            effects = occlusion_effects(model, images, grid)
        found[name] = Fidelity(
            rank_correlation(shares, gradients.flatten(1)),
            rank_correlation(shares, effects.flatten(1)),
        )
    return found


def jacobian_norms(
    model: nn.Module,
    images: Tensor,
    grid: tuple[int, int],
    *,
    probes: int = 16,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The Frobenius norm of the output's Jacobian in each cell of the input: (B, h, w).

    Estimated from random directions of the output: the expected square of their gradients is the
    square of the norm (Hutchinson, 1990).
    """
    cells = pixel_cells(grid, images)
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        output = _require_tensor(model(images))
    squares = torch.zeros_like(images)
    for _ in range(probes):
        direction = torch.randn(output.shape, generator=generator).to(output)
        (gradient,) = torch.autograd.grad(output, images, direction, retain_graph=True)
        squares += gradient.square()
    sums = squares.new_zeros(len(images), grid[0] * grid[1])
    sums.index_add_(1, cells.flatten(), squares.sum(1).flatten(1))
    return (sums / probes).sqrt().unflatten(1, grid)


def occlusion_effects(model: nn.Module, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """The change of the output (Euclidean) with a cell in the image's mean color: (B, h, w)."""
    cells = pixel_cells(grid, images)
    gray = images.mean((2, 3), keepdim=True)
    changes: list[Tensor] = []
    with torch.no_grad():
        unchanged = _require_tensor(model(images)).flatten(1)
        for cell in tracked(range(grid[0] * grid[1]), "occlusion"):
            output = _require_tensor(model(torch.where(cells == cell, gray, images)))
            changes.append((output.flatten(1) - unchanged).norm(dim=1))
    return torch.stack(changes, 1).unflatten(1, grid)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each row of (B, M): (B,); 0 for a constant row.

    Equal values share the mean of their ranks.
    """
    ranks = [_ranks(values.double()) for values in (first, second)]
    centered = [values - values.mean(1, keepdim=True) for values in ranks]
    covariance = (centered[0] * centered[1]).sum(1)
    norms = (centered[0].square().sum(1) * centered[1].square().sum(1)).sqrt()
    return torch.where(norms > 0, covariance / norms, 0.0).float()


def _ranks(values: Tensor) -> Tensor:
    """The mean rank of each entry in its row, ties included."""
    below = torch.searchsorted(values.sort(1).values, values.contiguous())
    up_to = torch.searchsorted(values.sort(1).values, values.contiguous(), right=True)
    return (below + up_to - 1).double() / 2


def _require_tensor(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise LabelError(
            f"the model returns {type(output).__name__}; wrap it in a module that returns one "
            "tensor, such as its logits"
        )
    return output
