"""A quick look at every place that a survey read: is all of it as it was?"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain, repeat
from operator import is_
from typing import Any

from torch import Tensor

from labeltrace.model_state.kinds import Kind
from labeltrace.model_state.stores import ABSENT, Attributes, ClassAttribute, GlobalName, Store
from labeltrace.model_state.survey import Survey
from labeltrace.model_state.tokens import array_content, tensor_content, tensor_form


class WatchPoints:
    """The places of a survey, arranged so that loops in C compare them with what they held.

    What was held is kept alive, so identities cannot be used again in the meantime.
    """

    def __init__(self, survey: Survey) -> None:
        self._empties = survey.empties
        self._views: list[Collection[Any]] = []
        self._held: list[Any] = []
        self._objects: list[Any] = []  # whose class may be patched
        self._owners: list[Any] = []  # whose __dict__ may be replaced
        self._namespaces: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        self._live: list[Tensor] = []
        self._others: list[tuple[Store, tuple[Any, ...]]] = []
        self._contents: list[tuple[Callable[[Any], Any], Any, Any]] = []
        for node in survey.nodes:
            self._watch_value(node.kind, node.value, survey.live)
            for part in node.parts:
                self._watch_part(part.store, part.labels, part.values)
        self._lengths = list(map(len, self._views))
        self._types = list(map(type, self._objects))
        self._dicts = list(map(vars, self._owners))
        self._forms = list(map(tensor_form, self._live))

    def unchanged(self) -> bool:
        """Whether every place holds what it held, by identity; tensors are of the same form."""
        return (
            not any(self._empties)
            and list(map(len, self._views)) == self._lengths
            and all(map(is_, chain.from_iterable(self._views), self._held))
            and all(map(is_, map(type, self._objects), self._types))
            and all(map(is_, map(vars, self._owners), self._dicts))
            and all(map(is_, self._globals(), self._values))
            and list(map(tensor_form, self._live)) == self._forms
            and all([_same(store.read()[1], held) for store, held in self._others])
            and all([read(value) == content for read, value, content in self._contents])
        )

    def _globals(self) -> Any:
        return map(dict.get, self._namespaces, self._names, repeat(ABSENT))

    def _watch_value(self, kind: Kind, value: Any, live: set[int]) -> None:
        if kind in (Kind.MODULE, Kind.OBJECT):
            self._objects.append(value)
        elif kind is Kind.CLASS:
            attributes = vars(value)
            self._views += (attributes.keys(), attributes.values())
            self._held += (*attributes, *attributes.values())
        elif kind is Kind.TENSOR and id(value) in live:
            self._live.append(value)
        elif kind is Kind.TENSOR:
            self._contents.append((tensor_form, value, tensor_form(value)))
            self._contents.append((tensor_content, value, tensor_content(value)))
        elif kind is Kind.ARRAY:
            self._contents.append((array_content, value, array_content(value)))
        elif kind is Kind.BYTES:
            self._contents.append((bytes, value, bytes(value)))

    def _watch_part(self, store: Store, labels: tuple[Any, ...], values: tuple[Any, ...]) -> None:
        if isinstance(store, GlobalName):
            self._namespaces.append(store.owner)
            self._names.append(store.name)
            self._values.append(values[0])
            return
        if isinstance(store, ClassAttribute):
            return  # the whole class is watched
        if isinstance(store, Attributes):
            self._owners.append(store.owner)
        views = store.views()
        if views is None:
            self._others.append((store, values))
            return
        self._views += views
        if len(views) == 2:
            self._held += labels
        if views:
            self._held += values


def _same(values: tuple[Any, ...], held: tuple[Any, ...]) -> bool:
    return len(values) == len(held) and all(map(is_, values, held))
