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
        self._copied: set[int] = set()

    def add_input(self, tensor: Tensor, leaf: int) -> TensorRef:
        """Number a leaf of the arguments."""
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
            return self._add(tensor, self._origin(tensor))
        if entry.pointer != _pointer(tensor):  # `.data` was set
            return self._add(tensor, self._origin(tensor))
        if entry.writes != self._writes.get(entry.storage, 0):
            return self._add(tensor, Origin(OriginKind.SAME_VALUES, entry.number))
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

    def _add(self, tensor: Tensor, origin: Origin) -> TensorRef:
        number = len(self.infos)
        storage = self._storage(tensor)
        strided = tensor.layout is torch.strided
        self.infos.append(
            TensorInfo(
                tuple(tensor.shape),
                tensor.stride() if strided else (),
                tensor.storage_offset() if strided else 0,
                tensor.dtype,
                tensor.device,
                storage,
                origin,
            )
        )
        writes = self._writes.get(storage, 0)
        pointer = _pointer(tensor)
        self._entries[id(tensor)] = _Entry(weakref.ref(tensor), number, storage, pointer, writes)
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
        if tensor.layout is not torch.strided:
            return -1 - len(self.infos)  # its own memory: sparse tensors have no views
        storage = tensor.untyped_storage()
        known = self._storages.get(storage._cdata)
        if known is None:  # the weak reference keeps the address from being used again
            known = self._storages[storage._cdata] = StorageWeakRef(storage), len(self._storages)
        return known[1]


def _pointer(tensor: Tensor) -> int:
    return tensor.data_ptr() if tensor.layout is torch.strided else 0


def _ref(number: int) -> TensorRef:
    """One object for each number, so that comparing records is quick."""
    while number >= len(_REFS):
        _REFS.append(TensorRef(len(_REFS)))
    return _REFS[number]
