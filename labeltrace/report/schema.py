"""What a report holds: plain immutable data, which becomes the page's JSON field by field."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from labeltrace.report.encoding import Packed


@dataclass(frozen=True, slots=True)
class Module:
    """A module that folds the nodes of its forward pass into one.

    Attributes:
        path: its name in the model.
        kind: its class.
        parent: the index of the module around it; None at the top.
        open: whether it is unfolded at first, since it holds several blocks.
    """

    path: str
    kind: str
    parent: int | None
    open: bool


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the label flow.

    Attributes:
        name: its name in the captured graph.
        operator: the operator's name.
        operation: what it does, by the factors that it contracts.
        about: what this step does, in a sentence; empty where the operation says all.
        call: its arguments.
        module: the index of the innermost folding module; None at the top.
        path: the module that made the call.
        kind: that module's class.
        source: file, line and code.
        rule: the rule that says so, and its file.
        layout: its axes in words.
        approximation: why it is approximate; empty for exact steps.
        inputs: indices of the nodes that it reads.
        map: the index of its label map; None where it carries no labels.
        why: why there is no map; empty where there is one.
        reach: the index of what its own step reads; None where it moves no labels.
    """

    name: str
    operator: str
    operation: str
    about: str = ""
    call: str = ""
    module: int | None = None
    path: str = ""
    kind: str = ""
    source: str = ""
    rule: str = ""
    layout: str = ""
    approximation: str = ""
    inputs: tuple[int, ...] = ()
    map: int | None = None
    why: str = ""
    reach: int | None = None


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The labels at one place: the second photograph's share, the first has the rest.

    Attributes:
        tokens: how many positions there are.
        rows, columns: of the tokens that lie in the image; zero where they form no map.
        shares: (rows, columns) in levels, at most `MAP_SIDE` a side: means of neighbours then.
        mean: over all positions, in [0, 1].
        others: the shares of tokens without a place in the image, the first few.
        why: why the tokens form no map; empty where they do.
    """

    tokens: int
    rows: int
    columns: int
    shares: Packed | None
    mean: float
    others: tuple[float, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Sources:
    """What chosen tokens of a place are made of.

    Attributes:
        rows, columns: of the tokens' own grid; zero where they form no map.
        kept_rows, kept_columns: which of them have data here.
        others: tokens without a place in the image that have data here, by their index.
        cells: (T, h, w) in levels: the root of each cell's share in each token by the token's
            `peaks`; the tokens of the grid row by row, then the others.
        peaks: the largest share of a cell in each token.
        elsewhere: the share in each token of what has no place in the image.
    """

    rows: int
    columns: int
    kept_rows: tuple[int, ...]
    kept_columns: tuple[int, ...]
    others: tuple[int, ...]
    cells: Packed
    peaks: tuple[float, ...]
    elsewhere: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """What one step alone reads.

    Attributes:
        sources: which tokens right before the step make up those right after it.
        read: the smallest and the largest number of tokens that a token reads; None where cells
            stand for several tokens.
        entering: how many tokens enter the step.
        groups: (rows, columns) over the cells of `sources`: which window or tile each is in,
            modulo 256; None where there are none.
        windows: how many windows there are, such that every token reads the whole of its own one
            and no other; zero where it is not so.
        tiles: how many tiles there are, such that each becomes one token; likewise.
    """

    sources: Sources
    read: tuple[int, int] | None
    entering: int
    groups: Packed | None
    windows: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A stop of the slider.

    Attributes:
        title: what it is called.
        node: the index of the node at its end.
        module: the index of the module; None for a node outside the blocks.
        sources: the index of what its tokens are made of; None for the image itself.
    """

    title: str
    node: int
    module: int | None
    sources: int | None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its name, and the file as a `data:` address."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows.

    Attributes:
        model: its name.
        version: labeltrace's.
        weights: one sentence on where the weights come from.
        height, width: of the images, in pixels.
        mixed: the mixed image.
        photographs: the two that it is made of; their labels are the sources.
        ratio: the second one's share of the mixed image, in [0, 1].
        operations: a sentence for each operation that occurs.
        cells: rows and columns of the cells that provenance tells apart in the image.
        modules: parents before children.
        nodes: in the order of the graph.
        maps: by index.
        layers: in the order of the graph.
        sources: by index.
        reaches: by index.
    """

    model: str
    version: str
    weights: str
    height: int
    width: int
    mixed: Picture
    photographs: tuple[Picture, Picture]
    ratio: float
    operations: dict[str, str]
    cells: tuple[int, int]
    modules: tuple[Module, ...]
    nodes: tuple[Node, ...]
    maps: tuple[LabelMap, ...]
    layers: tuple[Layer, ...]
    sources: tuple[Sources, ...]
    reaches: tuple[Reach, ...]

    def json(self) -> str:
        """The report as one JSON document."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)
