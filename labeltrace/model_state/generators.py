"""Random generators: which there are, their states, and how to put a state back."""

from __future__ import annotations

import random
import sys
from collections.abc import Hashable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class GeneratorState:
    """The state of one generator at one moment.

    Attributes:
        name: `"random"`, `"torch"`, `"numpy.random"`, or the path of the attribute that holds it.
        generator: the generator itself.
        state: what the generator gave as its state.
    """

    name: str
    generator: Any
    state: Any

    @classmethod
    def of(cls, name: str, generator: Any) -> GeneratorState:
        """The present state of a generator."""
        return cls(name, generator, _read(generator))

    def restore(self) -> None:
        """Put the state back."""
        _write(self.generator, self.state)

    @property
    def content(self) -> Hashable:
        """The state as something that can be compared."""
        return _content(self.state)


def global_generators(devices: Iterable[torch.device]) -> dict[str, Any]:
    """The generators that belong to nobody, by name.

    numpy's is among them if numpy has been imported; it is not imported for that.
    """
    found: dict[str, Any] = {"torch": torch.default_generator, "random": random._inst}
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        found["numpy.random"] = numpy.mtrand._rand
    for device in {*devices, *_present_device()}:
        generators = getattr(getattr(torch, device.type, None), "default_generators", ())
        if device.index is not None and device.index < len(generators):
            found[f"torch.{device.type}:{device.index}"] = generators[device.index]
    return found


def _present_device() -> tuple[torch.device, ...]:
    """The CUDA device that is used, if any has been used at all."""
    if not torch.cuda.is_initialized():
        return ()
    return (torch.device("cuda", torch.cuda.current_device()),)


def _read(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.SystemRandom):
        return None  # it has none
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "get_state"):  # numpy's RandomState
        return deepcopy(generator.get_state(legacy=False))
    return deepcopy(_bits(generator).state)


def _write(generator: Any, state: Any) -> None:
    if state is None:
        return
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        _bits(generator).state = state


def _bits(generator: Any) -> Any:
    """The source of bits of a numpy generator, which may be one itself."""
    return getattr(generator, "bit_generator", generator)


def _content(state: Any) -> Hashable:
    if isinstance(state, torch.Tensor):
        return bytes(state.tolist())
    if isinstance(state, dict):
        return tuple([(key, _content(value)) for key, value in state.items()])
    if hasattr(state, "tobytes"):
        return bytes(state.tobytes())
    return state if isinstance(state, Hashable) else repr(state)
