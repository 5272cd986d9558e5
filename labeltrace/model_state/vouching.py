"""A caller's word that a model's state does not change, which saves looking."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from labeltrace.model_state.state_key import StateWatch


@contextlib.contextmanager
def assume_unchanged(watched: Any) -> Iterator[None]:
    """Within the context, take it that nothing changes on which the model's forward depends.

    The first key inside is computed, all later ones are that one: no attribute, hook, mode or
    global is looked at.  What changes nevertheless is not noticed, and a capture made for another
    state may run.  Parameters and buffers may change by value.

    Contexts nest, and hold for all threads: the word is given for the model, not for a thread.
    The last one that ends forgets the key.

    Args:
        watched: a `StateWatch`, or an object that has one as its `state_watch`.

    Raises:
        TypeError: there is no watch.

    Examples:
        >>> import torch
        >>> watch = StateWatch(torch.nn.ReLU())
        >>> with assume_unchanged(watch):
        ...     before = watch.key()
        ...     watch.model.inplace = True
        ...     watch.key() == before
        True
        >>> watch.key() == before
        False
    """
    watch = watched if isinstance(watched, StateWatch) else getattr(watched, "state_watch", None)
    if not isinstance(watch, StateWatch):
        raise TypeError(
            f"assume_unchanged takes an aligned module or a StateWatch, not "
            f"{type(watched).__name__}; align the model first"
        )
    with watch.lock:
        watch.vouched += 1
    try:
        yield
    finally:
        with watch.lock:
            watch.vouched -= 1
            if not watch.vouched:
                watch.trusted = None
