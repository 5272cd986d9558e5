"""A key of a model's state, equal as long as nothing changed that a captured graph relies on."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

from labeltrace.model_state.survey import Survey
from labeltrace.model_state.tokens import Tokens
from labeltrace.model_state.torch_settings import torch_settings
from labeltrace.model_state.watch_points import WatchPoints


class StateKey:
    """All state of one moment, compared by content; see `StateWatch.key`.

    A key holds weak references to the objects whose identities it contains: none of these
    identities is used again while the key exists, and nothing large is kept alive.
    """

    __slots__ = ("_hash", "_kept", "_tokens")

    def __init__(self, tokens: tuple[Any, ...], kept: tuple[Any, ...]) -> None:
        self._tokens = tokens
        self._kept = kept
        self._hash = hash(tokens)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, StateKey):
            return NotImplemented
        return self._hash == other._hash and self._tokens == other._tokens

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"StateKey({self._hash & 0xFFFFFFFF:08x})"


class StateWatch:
    """Watches all Python state that the forward pass of a model depends on.

    That is: attributes of all modules, containers and plain objects in them, however deep; plain
    tensors and numpy arrays; functions with their closures, defaults and partial arguments; hooks,
    modes, classes and patched methods; globals that the methods and the user's functions read; the
    form (shape, strides, dtype, device, `requires_grad`) of parameters and buffers, and which of
    them are one tensor.  The values of registered parameters and buffers do not count.

    What cannot be seen: writes to an array or plain tensor of more than 16 kB past its version
    counter (`numpy` in place, `.data`), the position of an iterator, the inside of an extension's
    objects, and a global or attribute whose name the code computes.  `unwatched` of a survey lists
    arrays and iterators (`labeltrace.model_state.unwatched`).

    Equal state gives an equal key, so a key that came back finds what was kept for it.

    Threads: several may ask for a key at once.  The state must not change while a key is computed:
    the key of such a moment may be that of before or after.  `vouched` counts for all threads.

    Attributes:
        model: the model that is watched.
        vouched: how many `assume_unchanged` contexts are open; see there.

    Examples:
        >>> import torch
        >>> layer = torch.nn.Conv2d(3, 8, 3)
        >>> watch = StateWatch(layer)
        >>> before = watch.key()
        >>> layer.stride = (2, 2)
        >>> watch.key() == before
        False
        >>> layer.stride = (1, 1)
        >>> watch.key() == before
        True
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.vouched = 0
        self.trusted: Hashable | None = None
        self.lock = threading.Lock()
        self._known: tuple[WatchPoints, Hashable, StateKey] | None = None

    def key(self) -> Hashable:
        """The key of the model's present state, compared by `==`.

        While the caller vouches that nothing changes, the first key of that time is returned.
        """
        if self.vouched:
            trusted = self.trusted
            if trusted is None:
                trusted = self.trusted = self._present_key()
            return trusted
        return self._present_key()

    def keep_alive(self) -> object:
        """What must live as long as a key is in use: the key itself, which holds what it needs."""
        known = self._known
        return None if known is None else known[2]

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy watches the copied model; identities of this one mean nothing there.
        return StateWatch, (self.model,)

    def _present_key(self) -> StateKey:
        settings = torch_settings()
        with torch._C.DisableTorchFunction():
            known = self._known
            if known is not None and known[1] == settings and known[0].unchanged():
                return known[2]
            survey = Survey(self.model)
            points = WatchPoints(survey)
            written = Tokens(survey)
        key = StateKey((settings, *written.tokens), tuple(written.kept))
        if known is not None and key == known[2]:
            key = known[2]
        self._known = (points, settings, key)
        return key
