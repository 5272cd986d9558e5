"""Each kind of product by a small example, and the examples next to it that are of another kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from labeltrace.flow import KeyValueProduct, LabelField, NamedOperand, Operand, ValueFacts
from labeltrace.index_notation.contraction_equation import ContractionEquation
from labeltrace.layout import Axis, Factor, Kind, renumbered
from labeltrace.rule_helpers.axis_names import axis_sizes, name_axes
from labeltrace.rule_helpers.product_flows import FLOWS
from labeltrace.rule_helpers.product_kinds import (
    ProductKind,
    classify_product,
    is_inner_product,
    is_score_matrix,
    stream_first,
)

PAGE = Path(__file__).parents[2] / "docs" / "products.md"

KINDS = {"b": Kind.BATCH, "p": Kind.POSITION, "c": Kind.CHANNEL, "r": Kind.REPEATED}


def axis(text: str) -> Axis:
    """`"5p*3c"`: five positions times three channels; `"1"`: an axis of size one, of nothing."""
    if text == "1":
        return ()
    return tuple(Factor(int(part[:-1]), KINDS[part[-1]]) for part in text.split("*"))


def stream(*axes: str, name: str = "x") -> Operand:
    """A tensor with labels; `name` is that of its label field."""
    layout = renumbered([axis(text) for text in axes])
    return Operand((name,), layout.shape, layout, field=LabelField(name))


def weights(*axes: str, product: KeyValueProduct | None = None) -> Operand:
    """Mixing weights: from the image, without labels."""
    layout = renumbered([axis(text) for text in axes])
    facts = ValueFacts(key_value_product=product)
    return Operand(("w",), layout.shape, layout, facts=facts)


def constant(*shape: int) -> Operand:
    return Operand(("c",), shape)


@dataclass(frozen=True)
class Product:
    equation: str
    first: Operand
    second: Operand

    def named(
        self,
    ) -> tuple[NamedOperand, NamedOperand, tuple[str, ...], dict[str, int]]:
        """The operands with their axes by letter, the result's letters and all sizes."""
        equation = ContractionEquation.parse(self.equation)
        sizes = axis_sizes((equation.first, self.first.shape), (equation.second, self.second.shape))
        first = name_axes(self.first, equation.first, sizes)
        return first, name_axes(self.second, equation.second, sizes), equation.result, sizes


def keys_and_values() -> KeyValueProduct:
    """Four features of keys by three channels of values, summed over seven tokens."""
    sides = Product("b k d, b k e -> b d e", tokens(4), tokens(3)).named()[:2]
    return KeyValueProduct(
        sides, (("b", 0), ("d", 0), ("e", 0)), (axis("2b"), axis("4c"), axis("3c"))
    )


def tokens(width: int, count: int = 7, name: str = "x") -> Operand:
    """(batch, tokens, features) of two images."""
    return stream("2b", f"{count}p", f"{width}c", name=name)


CONTEXT = weights("2b", "4b", "3b", product=keys_and_values())

EXAMPLES: dict[ProductKind, dict[str, Product]] = {
    ProductKind.CONSTANT: {
        "two parameters": Product("i j, j k -> i k", constant(2, 3), constant(3, 4)),
    },
    ProductKind.WEIGHTS: {
        "talking heads": Product(
            "b h q k, g h -> b g q k", weights("2b", "4c", "7p", "7c"), constant(5, 4)
        ),
        "two attention maps": Product(
            "b q k, b k j -> b q j", weights("2b", "7p", "7c"), weights("2b", "7p", "7c")
        ),
        "keys times values and a constant": Product("b d e, e f -> b d f", CONTEXT, constant(3, 5)),
    },
    ProductKind.CHANNEL_MIXING: {
        "linear layer on features": Product("b n i, o i -> b n o", tokens(3), constant(4, 3)),
        "nothing contracted": Product("b n i, i -> b n i", tokens(3), constant(3)),
        "channels mixed by attention of channels": Product(
            "b n i, b i o -> b n o", tokens(3), weights("2b", "3c", "3c")
        ),
        "copies of one position contracted": Product(
            "b n i, n -> b i", stream("2b", "7r", "3c"), constant(7)
        ),
    },
    ProductKind.SPATIAL_MIXING: {
        "linear layer on tokens": Product("b n i, m n -> b m i", tokens(3), constant(9, 7)),
        "attention times values": Product(
            "b h q k, b k e -> b q h e", weights("2b", "4c", "7p", "7c"), tokens(3)
        ),
        "attention of windows": Product(
            "n q k, n k e -> n q e", weights("2b*4p", "9p", "9c"), stream("2b*4p", "9p", "3c")
        ),
        "values weighed by another stream's channels": Product(
            "b q k, b k e -> b q e", stream("2b", "7p", "5c", name="y"), tokens(3, count=5)
        ),
        "values weighed by scores without softmax": Product(
            "b q k, b k e -> b q e", stream("2b", "6p", "7p", name="y"), tokens(3)
        ),
        "two axes of positions": Product(
            "b h w i, m h w -> b m i", stream("2b", "4p", "5p", "3c"), constant(9, 4, 5)
        ),
        "images of a batch mixed": Product("b i, a b -> a i", stream("2b", "3c"), constant(2, 2)),
        "keys times values, contracted over positions": Product(
            "b e n, b d e -> b d n", stream("2b", "3p", "7c"), CONTEXT
        ),
    },
    ProductKind.AGGREGATION: {
        "patch merging": Product(
            "b n i, o i -> b n o", stream("2b", "7p", "4p*3c"), constant(6, 12)
        ),
        "flattened classifier": Product("b i, o i -> b o", stream("2b", "7p*3c"), constant(10, 21)),
        "positions summed without a matrix": Product("b n i, -> b i", tokens(3), constant()),
        "one of two axes in the matrix": Product(
            "b h w i, h -> b i", stream("2b", "4p", "5p", "3c"), constant(4)
        ),
    },
    ProductKind.SCORES: {
        "queries times keys": Product(
            "b q d, b k d -> b q k", tokens(3, count=6, name="q"), tokens(3)
        ),
        "outer product of rows and columns": Product(
            "b h c, b w c -> b c h w", stream("2b", "4p", "3c"), stream("2b", "5p", "3c")
        ),
    },
    ProductKind.KEYS_TIMES_VALUES: {
        "first product of linear attention": Product("b k d, b k e -> b d e", tokens(4), tokens(3)),
        "covariance of channels": Product(
            "b h i n, b h j n -> b h i j",
            stream("2b", "2c", "3c", "7p"),
            stream("2b", "2c", "3c", "7p"),
        ),
        "positions summed that one stream alone keeps": Product(
            "b q k d, b k e -> b q d e", stream("2b", "6p", "7p", "4c"), tokens(3)
        ),
        "one number for each token times its features": Product(
            "b k, b k e -> b e", stream("2b", "7p"), tokens(3)
        ),
        "sum of products of maps": Product("b n, b n -> b", stream("2b", "7p"), stream("2b", "7p")),
        "numbers for pairs times numbers": Product(
            "b q k, b k -> b q", stream("2b", "6p", "7p"), stream("2b", "7p")
        ),
    },
    ProductKind.LINEAR_ATTENTION: {
        "queries times keys times values": Product("b n d, b d e -> b n e", tokens(4), CONTEXT),
    },
    ProductKind.GATED: {
        "query of the whole image": Product(
            "b n d, b d -> b n", tokens(3), stream("2b", "3c", name="y")
        ),
        "channel attention": Product(
            "b c h w, b c -> b c h w", stream("2b", "3c", "4p", "5p"), stream("2b", "3c", name="y")
        ),
    },
    ProductKind.EQUAL_STREAMS: {
        "bilinear layer": Product("b n i, b n j -> b n i j", tokens(3), tokens(4, name="y")),
        "inner product of each token": Product("b n i, b n i -> b n", tokens(3), tokens(3)),
    },
}

CASES = [
    pytest.param(kind, product, id=f"{kind.value}: {name}")
    for kind, products in EXAMPLES.items()
    for name, product in products.items()
]


@pytest.mark.parametrize(("kind", "product"), CASES)
def test_the_kind_of_a_product(kind: ProductKind, product: Product) -> None:
    first, second, result, sizes = product.named()
    assert classify_product(first, second, result, sizes) is kind


@pytest.mark.parametrize(("kind", "product"), CASES)
def test_the_order_of_the_operands_makes_no_difference(kind: ProductKind, product: Product) -> None:
    first, second, result, sizes = product.named()
    assert classify_product(second, first, result, sizes) is kind


def test_every_kind_has_an_example_a_flow_and_a_row_in_the_docs() -> None:
    assert set(EXAMPLES) == set(FLOWS) == set(ProductKind)
    rows = [
        line.split("|")[1].strip()
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert rows == [f"`{kind.name}`" for kind in ProductKind]


@pytest.mark.parametrize(
    ("product", "stream"),
    [
        (Product("b n i, o i -> b n o", tokens(3), constant(4, 3)), "x"),
        (Product("o i, b n i -> b n o", constant(4, 3), tokens(3)), "x"),
        (Product("b q k, b k e -> b q e", weights("2b", "7p", "7c"), tokens(3)), "x"),
        (Product("i, j -> i j", stream("2p", name="y"), stream("3p")), "y"),
        (Product("i, j -> i j", stream("2p"), stream("3p", name="y")), "x"),
        # The stream with positions of its own is gated by the other one.
        (Product("b n d, b d -> b n", tokens(3), stream("2b", "3c", name="y")), "x"),
        (Product("b d, b n d -> b n", stream("2b", "3c", name="y"), tokens(3)), "x"),
        # The stream whose positions are contracted is mixed by the other one.
        (Product("b n i, b m n -> b m i", tokens(3), stream("2b", "6p", "7c", name="y")), "x"),
        (Product("b m n, b n i -> b m i", stream("2b", "6p", "7c", name="y"), tokens(3)), "x"),
        # The stream with features is mixed by the scores.
        (Product("b n i, b m n -> b m i", tokens(3), stream("2b", "6p", "7p", name="y")), "x"),
        (Product("b m n, b n i -> b m i", stream("2b", "6p", "7p", name="y"), tokens(3)), "x"),
        # Keys and values keep their order.
        (Product("b k d, b k e -> b d e", tokens(4), tokens(3, name="y")), "x"),
        (Product("b k d, b k e -> b d e", tokens(3, name="y"), tokens(4)), "y"),
        (Product("b n i, b n j -> b n i j", tokens(3), tokens(3, name="y")), "x"),
        (Product("b n i, b n j -> b n i j", tokens(3, name="y"), tokens(3)), "y"),
    ],
)
def test_the_stream_comes_first(product: Product, stream: str) -> None:
    first, second, result, _ = product.named()
    ordered = stream_first(first, second, result)
    assert ordered[0].operand.name == stream
    assert set(map(id, ordered)) == {id(first), id(second)}


@pytest.mark.parametrize(
    ("expected", "product"),
    [
        (True, Product("b n d, b d -> b n", tokens(3), stream("2b", "3c", name="y"))),
        (True, Product("b n h d, b n h d -> b n h", *[stream("2b", "7p", "2p", "3c")] * 2)),
        # Heads are channels that both have.
        (True, Product("b h d, b h d -> b h", *[stream("2b", "4c", "3c")] * 2)),
        # The result has channels of one stream alone.
        (False, Product("b n d, b d e -> b n e", tokens(3), stream("2b", "3c", "5c", name="y"))),
        # Nothing is contracted that both have.
        (False, Product("b n i, b n i -> b n i", tokens(3), tokens(3))),
        (False, Product("b n i, b n j -> b n", tokens(3), tokens(4))),
        # A contracted axis has positions.
        (False, Product("b n, b n -> b", *[stream("2b", "7p")] * 2)),
        # An axis of one channel in the result is no channel that is left.
        (True, Product("b n d, b d o -> b n o", tokens(3), stream("2b", "3c", "1c", name="y"))),
    ],
)
def test_inner_products(expected: bool, product: Product) -> None:
    first, second, result, sizes = product.named()
    assert is_inner_product(first, second, result, sizes) is expected
    assert is_inner_product(second, first, result, sizes) is expected


@pytest.mark.parametrize(
    ("expected", "scores", "values"),
    [
        (True, stream("2b", "6p", "7p"), tokens(3)),
        (False, stream("2b", "6c", "7p"), tokens(3)),  # it has no positions of its own
        (False, stream("2b", "6p*2c", "7p"), tokens(3)),  # it has channels
        (False, stream("2b", "6p", "7p"), stream("2b", "7p", "3p")),  # values have no features
    ],
)
def test_score_matrices(expected: bool, scores: Operand, values: Operand) -> None:
    one, other, _, _ = Product("b q k, b k e -> b q e", scores, values).named()
    assert is_score_matrix(one, other) is expected


def test_copies_are_no_positions_that_the_other_stream_has() -> None:
    scores = stream("2b", "6p", "7p")
    values = stream("2b", "6r", "7p", "3c")
    one, other, _, _ = Product("b q k, b q k e -> b q e", scores, values).named()
    assert is_score_matrix(one, other)
