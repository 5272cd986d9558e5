"""Notice when a mixer decides by what is in the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

CONVERSIONS = ("_to_copy", "copy_")


class PixelWatch(TorchDispatchMode):
    """Within this context, remember the first operator that turns pixels into decisions.

    Decisions are numbers in Python, truth values and indices: a box placed by `argmax`, a mask made
    by `>`. Pixels are the images and all that is computed from them.

    Attributes:
        decided_by: name of that operator; None while there is none.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.decided_by: str | None = None
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
                self.decided_by = self.decided_by or str(func)
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
