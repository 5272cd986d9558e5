"""Folding: which modules hold the nodes of a trace, and which of them stay open at first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from labeltrace.capture.module_paths import lies_in
from labeltrace.report.schema import Module
from labeltrace.tracing.ablation import layers_of
from labeltrace.tracing.trace import Trace

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, slots=True)
class Folding:
    """The modules as a tree.

    Attributes:
        modules: parents before children.
        index: a module's place in it, by path.
    """

    modules: tuple[Module, ...]
    index: Mapping[str, int]

    def innermost(self, path: str) -> int | None:
        """The index of the innermost folding module around a path."""
        return next((self.index[p] for p in _upwards(path) if p in self.index), None)

    def unit(self, path: str) -> int | None:
        """The index of the folded module that a path is seen as at first; None: it is not."""
        found, outermost = self.innermost(path), None
        while found is not None and not self.modules[found].open:
            found, outermost = self.modules[found].parent, found
        return outermost


def folding_of(trace: Trace, model: nn.Module, paths: Iterable[str]) -> Folding:
    """The folding of nodes with these module paths, one for each node.

    A block is a module with a residual connection of labels, the outermost one where they are
    nested.  What holds blocks is open at first; a plain container of them is left out, as is a
    module with a single node or with no other nodes than the module inside it.
    """
    blocks = [path for path in layers_of(trace) if path]
    blocks = [p for p in blocks if not any(p != other and lies_in(p, other) for other in blocks)]
    sizes: dict[str, int] = {}
    for path in paths:
        for part in _upwards(path):
            sizes[part] = sizes.get(part, 0) + 1
    kinds = dict(model.named_modules())
    modules: list[Module] = []
    index: dict[str, int] = {}
    for path in sorted(sizes, key=lambda p: p.count(".")):
        holds = any(block != path and lies_in(block, path) for block in blocks)
        outer = next((index[p] for p in _upwards(path) if p in index), None)
        around = sizes[modules[outer].path] if outer is not None else -1
        plain = isinstance(kinds.get(path), CONTAINERS) and (holds or not blocks)
        if plain or sizes[path] < 2 or (sizes[path] == around and path not in blocks):
            continue
        index[path] = len(modules)
        modules.append(Module(path, _kind(kinds.get(path)), outer, holds))
    return Folding(tuple(modules), index)


def _upwards(path: str) -> Iterator[str]:
    """A path and those of the modules around it, the model itself left out."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _kind(module: nn.Module | None) -> str:
    return "" if module is None else type(module).__name__
