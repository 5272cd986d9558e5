"""Tags on the nodes of `torch.utils.checkpoint` calls.

An export runs the checkpointed function and records its nodes like all others.  Activations that
the model recomputes would then be stored.  Each call therefore tags its nodes, and its settings are
kept, so that the generated module can checkpoint these nodes again.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import torch.utils.checkpoint as torch_checkpoint
from torch.fx import Node, traceback

CHECKPOINT_TAG = "labeltrace_checkpoint"

# Keyword arguments of torch.utils.checkpoint.checkpoint that differ from its defaults.
Settings = Mapping[str, Any]

# `checkpoint`, its decorator and `checkpoint_sequential` all call one of these two.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)
_REENTRANT = "CheckpointFunction"
_SETTINGS = ("preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop")


@contextlib.contextmanager
def tag_checkpoint_calls() -> Iterator[dict[str, Settings]]:
    """Tag the nodes of every checkpointed call; yields the settings by tag, which fill up.

    A call inside another call belongs to the outer one.
    """
    calls = _Calls()
    names = [name for name in _GENERATORS if hasattr(torch_checkpoint, name)]
    originals = {name: getattr(torch_checkpoint, name) for name in (*names, _REENTRANT)}
    try:
        for name in names:
            setattr(torch_checkpoint, name, calls.generator(originals[name]))
        setattr(torch_checkpoint, _REENTRANT, calls)
        yield calls.settings
    finally:
        for name, original in originals.items():
            setattr(torch_checkpoint, name, original)


def checkpoint_tag(node: Node) -> str | None:
    """The tag of the checkpointed call that a node belongs to."""
    return (node.meta.get("custom") or {}).get(CHECKPOINT_TAG)


class _Calls:
    """The calls so far; replaces both implementations of torch."""

    def __init__(self) -> None:
        self.settings: dict[str, Settings] = {}
        self._numbers = itertools.count()
        self._inside = False

    def generator(self, original: Callable[..., Any]) -> Callable[..., Generator[None, None, None]]:
        """A generator that torch runs to its `yield` before the function, and to its end after."""
        signature = inspect.signature(original)

        def tagging(*args: Any, **kwargs: Any) -> Generator[None, None, None]:
            given = signature.bind(*args, **kwargs).arguments
            settings = {name: given[name] for name in _SETTINGS if name in given}
            defaults = signature.parameters
            with self._tagged({k: v for k, v in settings.items() if v != defaults[k].default}):
                yield

        return tagging

    def apply(self, function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        """Run the function as the reentrant variant does, without its gradient."""
        with self._tagged({} if preserve_rng_state else {"preserve_rng_state": False}):
            return function(*args)

    @contextlib.contextmanager
    def _tagged(self, settings: Settings) -> Iterator[None]:
        if self._inside:
            yield
            return
        tag = f"checkpoint#{next(self._numbers)}"
        self.settings[tag] = settings
        self._inside = True
        try:
            with traceback.preserve_node_meta(), traceback.annotate({CHECKPOINT_TAG: tag}):
                yield
        finally:
            self._inside = False
