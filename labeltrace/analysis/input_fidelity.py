"""Fidelity: whether provenance ranks input cells as gradients and occlusion do.

Provenance says where content comes from, gradients and occlusion what an output depends on.  The
two need not agree: a token may be made of cells to which the output does not react.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labeltrace.analysis.input_provenance import cell_of, provenance
from labeltrace.errors import LabelError
from labeltrace.inspection.label_program import evaluating
from labeltrace.progress import tracked


@dataclass(frozen=True, eq=False, slots=True)
class Fidelity:
    """Rank correlations (Spearman) over an image's cells with their share in the model's output.

    Attributes:
        gradient: (B,) in [-1, 1], with the norm of the output's Jacobian in each cell.
        occlusion: (B,) in [-1, 1], with how far the output moves where a cell is made grey.
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
    """How well provenance ranks input cells against gradients and against occlusion.

    Args:
        models: models by name, each of which returns one tensor (B, ...).
        images: (B, C, H, W).
        grid: rows and columns of cells, two cells at least.
        probes: random directions of the output from which the Jacobian's norm is estimated.
        generator: source of those directions; torch's default where None.

    Raises:
        LabelError: the grid does not fit, or a model returns something else than a tensor.
    """
    if grid[0] * grid[1] < 2:
        raise LabelError("one cell has no rank; take a grid of at least two")
    found: dict[str, Fidelity] = {}
    for name, model in models.items():
        shares = provenance(model, images, grid)["output"].shares.mean(1).flatten(1)
        with evaluating(model):
            gradients = jacobian_norms(model, images, grid, probes=probes, generator=generator)
            moved = occlusion_effects(model, images, grid)
        found[name] = Fidelity(
            rank_correlation(shares, gradients.flatten(1)),
            rank_correlation(shares, moved.flatten(1)),
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

    Estimated: the expected square of a random direction's gradient is that of the norm
    (Hutchinson, 1990).
    """
    cells = cell_of(grid, images)
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        output = _tensor(model(images))
    squares = torch.zeros_like(images)
    for _ in range(probes):
        direction = torch.randn(output.shape, generator=generator).to(output)
        (gradient,) = torch.autograd.grad(output, images, direction, retain_graph=True)
        squares += gradient.square()
    sums = squares.new_zeros(len(images), grid[0] * grid[1])
    sums.index_add_(1, cells.flatten(), squares.sum(1).flatten(1))
    return (sums / probes).sqrt().unflatten(1, grid)


def occlusion_effects(model: nn.Module, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far the output moves (Euclidean) with a cell in the image's mean colour: (B, h, w)."""
    cells = cell_of(grid, images)
    grey = images.mean((2, 3), keepdim=True)
    moved: list[Tensor] = []
    with torch.no_grad():
        whole = _tensor(model(images)).flatten(1)
        for cell in tracked(range(grid[0] * grid[1]), "occlusion"):
            output = _tensor(model(torch.where(cells == cell, grey, images)))
            moved.append((output.flatten(1) - whole).norm(dim=1))
    return torch.stack(moved, 1).unflatten(1, grid)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of each row of (B, M): (B,); 0 for a row that is constant.

    Equal values share the mean of their ranks.
    """
    ranks = [_ranks(values.double()) for values in (first, second)]
    centred = [values - values.mean(1, keepdim=True) for values in ranks]
    covariance = (centred[0] * centred[1]).sum(1)
    spread = (centred[0].square().sum(1) * centred[1].square().sum(1)).sqrt()
    return torch.where(spread > 0, covariance / spread, 0.0).float()


def _ranks(values: Tensor) -> Tensor:
    """The mean rank of each entry in its row, ties included."""
    below = torch.searchsorted(values.sort(1).values, values.contiguous())
    up_to = torch.searchsorted(values.sort(1).values, values.contiguous(), right=True)
    return (below + up_to - 1).double() / 2


def _tensor(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise LabelError(
            f"the model returns {type(output).__name__}; wrap it in a module that returns one "
            "tensor, such as its logits"
        )
    return output
