"""How far alignment moves targets: Figure 3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from labeltrace.aligned import AlignedModule, align
from labeltrace.errors import LabelError
from labeltrace.inspection.label_program import evaluating
from labeltrace.mixing import MixedBatch
from labeltrace.progress import tracked


def target_rmse(models: Mapping[str, nn.Module], batches: Iterable[MixedBatch]) -> dict[str, float]:
    """The root mean square error between original and aligned targets, Figure 3.

    Over all images and sources: ``sqrt(mean((aligned - mixing ratio) ** 2))``.  With two sources
    that is the RMSE of the mixing ratio lambda; shares lie in [0, 1].

    Args:
        models: classifiers by name, aligned or plain; all of them see every batch.
        batches: mixed batches, once through; memory does not grow with their number.

    Raises:
        LabelError: there are no models or no batches, or a model does not return logits alone.
    """
    if not models:
        raise LabelError("target_rmse needs at least one model, by name")
    aligned = {
        name: model if isinstance(model, AlignedModule) else align(model)
        for name, model in models.items()
    }
    squares = dict.fromkeys(models, 0.0)
    count = 0
    for batch in tracked(batches, "aligned targets"):
        count += batch.mixing_ratio.numel()
        for name, model in aligned.items():
            squares[name] += _squared_change(name, model, batch)
    if not count:
        raise LabelError("target_rmse got no batches; an iterator can be gone through only once")
    return {name: (total / count) ** 0.5 for name, total in squares.items()}


def _squared_change(name: str, model: AlignedModule, batch: MixedBatch) -> float:
    with evaluating(model), torch.no_grad():
        _, labels = model(batch.images, batch.labels)
    original = batch.mixing_ratio
    if not isinstance(labels, Tensor) or labels.shape != original.shape:
        raise LabelError(
            f"{name} does not return logits (B, classes) alone, so that its output has no labels "
            f"of shape {tuple(original.shape)}; wrap it in a module that returns the logits"
        )
    return float((labels.double() - original.double()).square().sum())
