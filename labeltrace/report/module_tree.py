"""The tree of modules that contain the nodes of a trace, and which of them are initially open."""

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
class ModuleTree:
    """The modules as a tree.

    Attributes:
        modules: the modules, parents before children.
        index: index in `modules`, by path.
    """

    modules: tuple[Module, ...]
    index: Mapping[str, int]

    def innermost(self, path: str) -> int | None:
        """The index of the innermost module of the tree around a path; None if there is none."""
        return next((self.index[p] for p in _path_and_parents(path) if p in self.index), None)

    def folded_module(self, path: str) -> int | None:
        """The index of the initially folded module that shows a path; None if it is visible."""
        found, outermost = self.innermost(path), None
        while found is not None and not self.modules[found].open:
            found, outermost = self.modules[found].parent, found
        return outermost


def build_module_tree(trace: Trace, model: nn.Module, paths: Iterable[str]) -> ModuleTree:
    """The tree of the modules with these paths; there is one path for each node.

    A block is a module with a residual connection of labels; of nested ones, the outermost. Modules
    that contain blocks are initially open. These modules are not in the tree: plain containers of
    blocks, modules with a single node, and modules with the same nodes as their parent.
    """
    blocks = [path for path in layers_of(trace) if path]
    blocks = [p for p in blocks if not any(p != other and lies_in(p, other) for other in blocks)]
    sizes: dict[str, int] = {}
    for path in paths:
        for parent in _path_and_parents(path):
            sizes[parent] = sizes.get(parent, 0) + 1
    kinds = dict(model.named_modules())
    modules: list[Module] = []
    index: dict[str, int] = {}
    for path in sorted(sizes, key=lambda p: p.count(".")):
        holds = any(block != path and lies_in(block, path) for block in blocks)
        outer = next((index[p] for p in _path_and_parents(path) if p in index), None)
        around = sizes[modules[outer].path] if outer is not None else -1
        plain = isinstance(kinds.get(path), CONTAINERS) and (holds or not blocks)
        if plain or sizes[path] < 2 or (sizes[path] == around and path not in blocks):
            continue
        index[path] = len(modules)
        modules.append(Module(path, _class_name(kinds.get(path)), outer, holds))
    return ModuleTree(tuple(modules), index)


def _path_and_parents(path: str) -> Iterator[str]:
    """A path and the paths of the modules around it, without the model itself."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _class_name(module: nn.Module | None) -> str:
    return "" if module is None else type(module).__name__
