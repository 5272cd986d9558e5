"""Detect a mixer whose decisions depend on pixel values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

CONVERSIONS = ("_to_copy", "copy_")


class PixelDependenceMode(TorchDispatchMode):
    """Inside this context, record the first operator that turns pixels into a decision.

    Decisions are Python numbers, booleans and indices: a box placed by `argmax`, a mask computed
    with `>`. Pixels are the images and everything computed from them.

    Attributes:
        deciding_operator: name of that operator; None if there was none so far.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.deciding_operator: str | None = None
        self._pixels = WeakTensorKeyDictionary({images: True})

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read = [leaf for leaf in tree_leaves((args, kwargs)) if self._is_pixels(leaf)]
        name = func.overloadpacket.__name__
        if not read or _takes_shape_only(name):
            return result
        converts = name in CONVERSIONS
        for leaf in tree_leaves(result):
            if not converts and _is_decision(leaf, {pixels.dtype for pixels in read}):
                self.deciding_operator = self.deciding_operator or str(func)
            elif isinstance(leaf, Tensor):
                self._pixels[leaf] = True
        return result

    def _is_pixels(self, leaf: object) -> bool:
        return isinstance(leaf, Tensor) and leaf in self._pixels


def _takes_shape_only(name: str) -> bool:
    return name.endswith("_like") or name.startswith("new_")


def _is_decision(result: object, dtypes: set[torch.dtype]) -> bool:
    if isinstance(result, Tensor):
        return not result.is_floating_point() and result.dtype not in dtypes
    return result is not None
