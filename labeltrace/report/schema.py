"""The data of a report: immutable, written to the page's JSON field by field."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from labeltrace.report.encoding import EncodedArray


@dataclass(frozen=True, slots=True)
class Module:
    """A module that folds the nodes of its forward pass into one.

    Attributes:
        path: its name in the model.
        kind: name of its class.
        parent: index of the module around it; None at the top.
        open: whether it is initially unfolded, because it contains several blocks.
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
        operator: name of the operator.
        operation: its class, from the factors that it contracts.
        about: what this step does, in a sentence; empty if the operation is explanation enough.
        call: its arguments.
        module: index of the innermost module of the tree around it; None at the top.
        path: path of the module that made the call.
        kind: name of that module's class.
        source: file, line and code.
        rule: the rule of the operator, and its file.
        layout: its axes as text.
        approximation: why it is approximate; empty for exact steps.
        inputs: indices of the nodes that it reads.
        map: index of its label map; None if it carries no labels.
        why: why there is no map; empty if there is one.
        reach: index of the receptive field of its step; None if it moves no labels.
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
    """The labels at one place: the share of the second photograph; the first has the rest.

    Attributes:
        tokens: number of positions.
        rows, columns: of the tokens with a position in the image; zero if they form no map.
        shares: (rows, columns) in levels; larger maps are averaged to one of `MAP_SIDES`.
        mean: mean over all positions, in [0, 1].
        others: the shares of the first few tokens without a position in the image.
        why: why the tokens form no map; empty if they do.
    """

    tokens: int
    rows: int
    columns: int
    shares: EncodedArray | None
    mean: float
    others: tuple[float, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The shares of cells in the sampled tokens of a place.

    Attributes:
        rows, columns: of the tokens' grid; zero if they form no map.
        kept_rows, kept_columns: indices of the sampled rows and columns.
        others: indices of the sampled tokens without a position in the image.
        cells: (T, h, w) in levels: the square root of (a cell's share in a token / the token's
            entry in `peaks`); the tokens of the grid row by row, then the others.
        peaks: the largest share of a cell in each token.
        elsewhere: the share in each token of content without a position in the image.
    """

    rows: int
    columns: int
    kept_rows: tuple[int, ...]
    kept_columns: tuple[int, ...]
    others: tuple[int, ...]
    cells: EncodedArray
    peaks: tuple[float, ...]
    elsewhere: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The tokens that one step reads.

    Attributes:
        sources: the shares of the step's input tokens in its output tokens.
        read: the smallest and the largest number of tokens that a token reads; None if cells
            contain several tokens.
        entering: number of input tokens.
        groups: (rows, columns) over the cells of `sources`: the window or tile of each cell,
            modulo 256; None without windows and tiles.
        windows: number of windows, if every token reads all tokens of its own window and no others;
            zero otherwise.
        tiles: number of tiles, if each tile becomes one token; zero otherwise.
    """

    sources: Sources
    read: tuple[int, int] | None
    entering: int
    groups: EncodedArray | None
    windows: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A stop of the slider.

    Attributes:
        title: its title.
        node: index of the node at its end.
        module: index of the module; None for a node outside the blocks.
        sources: index of the provenance of its tokens; None for the image itself.
    """

    title: str
    node: int
    module: int | None
    sources: int | None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its name, and its file as a `data:` URL."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Report:
    """All data of the page.

    Attributes:
        model: name of the model.
        version: version of labeltrace.
        weights: one sentence about the weights.
        height, width: of the images, in pixels.
        mixed: the mixed image.
        photographs: the two photographs that were mixed: the sources.
        ratio: share of the second photograph in the mixed image, in [0, 1].
        operations: a sentence for each operation in the model.
        cells: rows and columns of the cells of the image for provenance.
        modules: the modules, parents before children.
        nodes: the nodes, in the order of the graph.
        maps: the label maps.
        layers: the stops of the slider, in the order of the graph.
        sources: the provenance of sampled tokens.
        reaches: the receptive fields of steps.
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
    reaches: tuple[ReceptiveField, ...]

    def json(self) -> str:
        """The report as a JSON document."""
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)
