"""Tensors that a model returns inside objects which torch cannot look into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from labeltrace.errors import CaptureError

_WITHOUT_TENSORS = (
    bool | int | float | complex | str | bytes | None | type | nn.Module | ModuleType | FunctionType
)
_WITHOUT_TENSORS |= BuiltinFunctionType | MethodType


def check_outputs(leaves: Sequence[Any]) -> None:
    """Check that every tensor among the outputs is a leaf of its own, which can have a label.

    Raises:
        CaptureError: an output is an object that holds tensors, or a generator.
    """
    for leaf in leaves:
        if isinstance(leaf, Tensor | _WITHOUT_TENSORS):
            continue
        if _holds_a_tensor(leaf):
            name = type(leaf).__qualname__
            raise CaptureError(
                f"the model returns an object of class {name} ({type(leaf).__module__}) that holds "
                "tensors; torch.utils._pytree does not look into it, so their labels would have "
                "no place. Return tensors in a list, tuple, dict or named tuple, or register the "
                "class once: torch.utils._pytree.register_dataclass or register_pytree_node"
            )


def _holds_a_tensor(value: Any) -> bool:
    waiting, seen = [value], {id(value)}
    while waiting:
        for part in _parts(waiting.pop()):
            if isinstance(part, Tensor | GeneratorType):
                return True
            if id(part) not in seen and not isinstance(part, _WITHOUT_TENSORS):
                seen.add(id(part))
                waiting.append(part)
    return False


def _parts(value: Any) -> Iterator[Any]:
    """What an object consists of; a generator is taken for one that gives tensors."""
    if isinstance(value, GeneratorType):
        yield value
        return
    if isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    yield from getattr(value, "__dict__", {}).values()
    for kind in type(value).__mro__:
        names = kind.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(value, name):
                yield getattr(value, name)
