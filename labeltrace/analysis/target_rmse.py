"""The change of targets by alignment: Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from labeltrace.aligned import AlignedModule, align
from labeltrace.errors import LabelError
from labeltrace.inspection.label_program import eval_mode
from labeltrace.mixing import MixedBatch
from labeltrace.progress import tracked


def target_rmse(models: Mapping[str, nn.Module], batches: Iterable[MixedBatch]) -> dict[str, float]:
    """The root mean square error between original and aligned targets: Figure 3.

    It is `sqrt(mean((aligned - mixing ratio) ** 2))` over all images and sources. With two sources
    this is the RMSE of the mixing ratio lambda, in [0, 1].

    Args:
        models: classifiers by name, aligned or plain; every batch is passed to all of them.
        batches: mixed batches; iterated once, so memory does not grow with their number.

    Returns:
        The error of each model, by name.

    Raises:
        LabelError: there are no models or no batches, or a model returns more than logits.

    Examples:
        >>> import torch
        >>> from labeltrace import CutMix
        >>> from labeltrace.analysis import target_rmse
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Flatten(), torch.nn.Linear(32, 5)
        ... )
        >>> batch = CutMix()(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
        >>> 0 <= target_rmse({"small": model}, [batch])["small"] < 1
        True
    """
    if not models:
        raise LabelError("target_rmse needs at least one model; pass {name: model}")
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
        raise LabelError(
            "target_rmse got no batches; pass a list, or a new iterator: an iterator can be used "
            "only once"
        )
    return {name: (total / count) ** 0.5 for name, total in squares.items()}


def _squared_change(name: str, model: AlignedModule, batch: MixedBatch) -> float:
    with eval_mode(model), torch.no_grad():
        _, labels = model(batch.images, batch.labels)
    original = batch.mixing_ratio
    if not isinstance(labels, Tensor) or labels.shape != original.shape:
        raise LabelError(
            f"{name} does not return only logits (B, classes), so the labels of its output are not "
            f"of shape {tuple(original.shape)}; wrap it in a module that returns the logits"
        )
    return float((labels.double() - original.double()).square().sum())
