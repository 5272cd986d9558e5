"""The numbers of the tensors of a run, and the values that are kept for labels.

A tensor is known by its identity and its memory. Nothing here keeps a tensor alive unless labels
may read it: a model that runs without gradients frees its activations as it would by itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy

from labeltrace.recording.recorded_calls import Origin, OriginKind, TensorInfo, TensorRef

_RESULT = Origin(OriginKind.RESULT)
_CONSTANT = Origin(OriginKind.CONSTANT)
_REFS: list[TensorRef] = []


class _Entry(NamedTuple):
    """A tensor: `writes` counts the writes to its memory until it was numbered."""

    tensor: weakref.ref[Tensor]
    number: int
    storage: int
    pointer: int
    writes: int


class TensorTable:
    """Numbers tensors as they appear in a run.

    Attributes:
        infos: what is known of each tensor, by number.
        kept: the tensors that labels may read, by number.
        only: the numbers that are worth keeping; None for all.
    """

    def __init__(self, state: Mapping[int, str], only: Collection[int] | None) -> None:
        self.infos: list[TensorInfo] = []
        self.kept: dict[int, Tensor] = {}
        self.only = only
        self._state = state  # qualified names by the identity of the parameter or buffer
        self._entries: dict[int, _Entry] = {}
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self._by_storage: dict[int, list[int]] = {}
        self._writes: dict[int, int] = {}
        self._writes_before: list[int] = []  # how many writes there had been, by number
        self._copied: set[int] = set()

    def add_input(self, tensor: Tensor, leaf: int) -> TensorRef:
        """Number a leaf of the arguments; the same tensor again has its number already."""
        entry = self._entries.get(id(tensor))
        if entry is not None:
            return _ref(entry.number)
        return self._add(tensor, Origin(OriginKind.INPUT, leaf))

    def keep_inputs(self, leaves: Sequence[object]) -> None:
        """Keep the leaves of the arguments, whatever was worth keeping before."""
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        for leaf in tensors:
            self.kept[self._entries[id(leaf)].number] = leaf

    def add_result(self, tensor: Tensor) -> TensorRef:
        """Number a result of a call, also where it is a known tensor that was written to."""
        return self._add(tensor, _RESULT)

    def ref(self, tensor: Tensor) -> TensorRef:
        """The number of a tensor that is read; one that nobody has seen yet gets a new one."""
        entry = self._entries.get(id(tensor))
        if entry is None or entry.tensor() is not tensor:
            return self._unseen(tensor)
        if entry.pointer != _pointer(tensor):  # `.data` was set
            return self._unseen(tensor)
        if entry.writes != self._writes.get(entry.storage, 0):
            return self._add(tensor, Origin(OriginKind.SAME_VALUES, entry.number))
        if self.only is None:  # it may have been numbered when only some were worth keeping
            self.kept.setdefault(entry.number, tensor)
        return _ref(entry.number)

    def before_write(self, tensor: Tensor) -> None:
        """Copy the kept values that a call is about to overwrite."""
        for number in self._by_storage.get(self._storage(tensor), ()):
            if number in self.kept and number not in self._copied:
                self._copied.add(number)
                with torch.no_grad():
                    self.kept[number] = self.kept[number].detach().clone()

    def after_write(self, tensor: Tensor) -> None:
        """Whoever reads this memory from now on reads other values."""
        storage = self._storage(tensor)
        self._writes[storage] = self._writes.get(storage, 0) + 1

    # Numbers.

    def _unseen(self, tensor: Tensor) -> TensorRef:
        """The number of an object that is new here, perhaps of a tensor that is known.

        Torch hands the results of factories out as copies of the object if it is kept, and
        `.data` is another object for the same elements.
        """
        origin = self._origin(tensor)
        storage = self._storage(tensor)
        writes = self._writes.get(storage, 0)
        known = origin.kind is OriginKind.SAME_VALUES
        if not known or self._writes_before[origin.detail] != writes:
            return self._add(tensor, origin)
        self._remember(tensor, origin.detail, storage)
        if self.only is None:
            self.kept.setdefault(origin.detail, tensor)
        return _ref(origin.detail)

    def _remember(self, tensor: Tensor, number: int, storage: int) -> None:
        writes = self._writes.get(storage, 0)
        pointer = _pointer(tensor)
        self._entries[id(tensor)] = _Entry(weakref.ref(tensor), number, storage, pointer, writes)

    def _add(self, tensor: Tensor, origin: Origin) -> TensorRef:
        number = len(self.infos)
        storage = self._storage(tensor)
        strided = _has_memory(tensor)
        self.infos.append(
            TensorInfo(
                tuple(tensor.shape) if strided or tensor.layout is not torch.strided else (),
                tensor.stride() if strided else (),
                int(tensor.storage_offset()) if strided else 0,
                tensor.dtype,
                tensor.device,
                storage,
                origin,
            )
        )
        self._writes_before.append(self._writes.get(storage, 0))
        self._remember(tensor, number, storage)
        self._by_storage.setdefault(storage, []).append(number)
        made_elsewhere = origin.kind is OriginKind.CONSTANT  # the graph of the run holds its values
        if self.only is None or number in self.only or made_elsewhere:
            self.kept[number] = tensor
        return _ref(number)

    def _origin(self, tensor: Tensor) -> Origin:
        name = self._state.get(id(tensor))
        if name is not None:
            return Origin(OriginKind.STATE, name)
        shared = self._by_storage.get(self._storage(tensor))
        if not shared:
            return _CONSTANT
        geometry = (tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.dtype)
        for number in reversed(shared):
            info = self.infos[number]
            if (info.shape, info.strides, info.offset, info.dtype) == geometry:
                return Origin(OriginKind.SAME_VALUES, number)
        return Origin(OriginKind.SAME_MEMORY, shared[-1])

    def _storage(self, tensor: Tensor) -> int:
        if not _has_memory(tensor):
            return -1 - len(self.infos)  # its own: sparse tensors have no views
        storage = tensor.untyped_storage()
        known = self._storages.get(storage._cdata)
        if known is None:  # the weak reference keeps the address from being used again
            known = self._storages[storage._cdata] = StorageWeakRef(storage), len(self._storages)
        return known[1]


def _pointer(tensor: Tensor) -> int:
    return tensor.data_ptr() if _has_memory(tensor) else 0


def _has_memory(tensor: Tensor) -> bool:
    """Whether a tensor is strided, no list of others, no parameter that waits for its shape."""
    return tensor.layout is torch.strided and not tensor.is_nested and not is_lazy(tensor)


def _ref(number: int) -> TensorRef:
    """One object for each number, so that comparing records is quick."""
    while number >= len(_REFS):
        _REFS.append(TensorRef(len(_REFS)))
    return _REFS[number]
