"""Calls of ``torch.utils.checkpoint`` while a model is captured: their nodes are tagged, not lost.

An export runs the function that is checkpointed and records its nodes like all others; what should
have been recomputed would then be stored.  Here each call leaves a tag on its nodes and is
remembered with its settings, so that the generated module can checkpoint those nodes again.
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

# Keyword arguments of torch.utils.checkpoint.checkpoint, where they are not its defaults.
Settings = Mapping[str, Any]

# The two ways in which `checkpoint`, its decorator and `checkpoint_sequential` all end.
_GENERATORS = (
    "_checkpoint_without_reentrant_generator",
    "_checkpoint_without_reentrant_generator_impl",
)
_REENTRANT = "CheckpointFunction"
_SETTINGS = ("preserve_rng_state", "context_fn", "determinism_check", "debug", "early_stop")


@contextlib.contextmanager
def tag_checkpoint_calls() -> Iterator[dict[str, Settings]]:
    """Tag the nodes of every checkpointed call; yields the settings by tag, as calls come in.

    Calls inside of other calls belong to the outermost one.
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
    """The calls so far; stands in for torch's own two implementations."""

    def __init__(self) -> None:
        self.settings: dict[str, Settings] = {}
        self._numbers = itertools.count()
        self._inside = False

    def generator(self, original: Callable[..., Any]) -> Callable[..., Generator[None, None, None]]:
        """What torch runs up to its ``yield`` before the function, and from there on after it."""
        signature = inspect.signature(original)

        def tagging(*args: Any, **kwargs: Any) -> Generator[None, None, None]:
            given = signature.bind(*args, **kwargs).arguments
            settings = {name: given[name] for name in _SETTINGS if name in given}
            defaults = signature.parameters
            with self._tagged({k: v for k, v in settings.items() if v != defaults[k].default}):
                yield

        return tagging

    def apply(self, function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        """Run the function as the reentrant variant would, but for its gradient."""
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
