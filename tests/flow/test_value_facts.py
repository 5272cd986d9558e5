"""What steps leave of the facts about values."""

from __future__ import annotations

from math import inf

import pytest

from labeltrace.flow import (
    NOTHING_KNOWN,
    Aggregate,
    Average,
    Carry,
    Constant,
    KeyValueProduct,
    LabelField,
    LabelView,
    NamedOperand,
    Operand,
    Operation,
    ProductOperands,
    Rearrange,
    ValueFacts,
    Weights,
)
from labeltrace.layout import Arrangement, input_layout
from labeltrace.rule_helpers.elementwise import carry, combine
from labeltrace.rule_helpers.output_facts import (
    after_nonlinear,
    with_key_features,
    with_lower_bound,
    with_product,
)

SHAPE = (2, 3, 5, 7)
LAYOUT = input_layout(SHAPE, 1)
ARRANGEMENT = Arrangement((2, 5, 7), ((0,), (1,), (2,)))
ONE, TWO = (Operand((name,), SHAPE, LAYOUT, LabelField(name)) for name in ("one", "two"))
PRODUCT = ProductOperands(ONE, TWO)
MOVED = PRODUCT.after_other_step()
SIDE = NamedOperand(ONE, ("n",), {})
KEYS_TIMES_VALUES = KeyValueProduct(
    sides=(SIDE, SIDE),
    parts=(("b", 0), ("h", 0), ("w", 0)),
    axes=tuple(LAYOUT.axes[dim] for dim in (0, 2, 3)),
)
ALL = ValueFacts(
    is_gate=True,
    lower_bound=2.0,
    holds_key_features=True,
    key_value_product=KEYS_TIMES_VALUES,
    product=PRODUCT,
)
LITTLE = ValueFacts(lower_bound=-3.0)


def stream(facts: ValueFacts, name: str = "x") -> Operand:
    return Operand((name,), SHAPE, LAYOUT, LabelField(name), facts=facts)


def scores(facts: ValueFacts, name: str = "w") -> Operand:
    return Operand((name,), SHAPE, LAYOUT, facts=facts)


# Transitions. -------------------------------------------------------------------------------------


def test_by_default_nothing_is_known() -> None:
    assert ValueFacts() == NOTHING_KNOWN
    facts = (NOTHING_KNOWN.is_gate, NOTHING_KNOWN.lower_bound, NOTHING_KNOWN.holds_key_features)
    assert facts == (False, -inf, False)
    assert (NOTHING_KNOWN.key_value_product, NOTHING_KNOWN.product) == (None, None)


def test_a_view_keeps_all_but_the_axes_of_a_product() -> None:
    assert ALL.moved() == ValueFacts(True, 2.0, True, KEYS_TIMES_VALUES, MOVED)
    assert ALL.moved().moved() == ALL.moved()
    assert LITTLE.moved() == LITTLE


def test_a_linear_step_may_change_signs() -> None:
    assert ALL.after_linear() == ValueFacts(True, -inf, True, KEYS_TIMES_VALUES, MOVED)


def test_a_nonlinear_step_leaves_what_it_says_itself() -> None:
    assert ALL.after_nonlinear(is_gate=False) == NOTHING_KNOWN
    assert ALL.after_nonlinear(is_gate=True, lower_bound=-1.0) == ValueFacts(True, -1.0)


def test_a_join_is_a_gate_if_all_are_and_no_lower_than_the_lowest() -> None:
    assert ValueFacts.joined([ALL, LITTLE]) == ValueFacts(False, -3.0, True, None, MOVED)
    assert ValueFacts.joined([LITTLE, ALL]) == ValueFacts(False, -3.0, True, None, MOVED)
    assert ValueFacts.joined([ALL]) == ValueFacts(True, 2.0, True, None, MOVED)
    other = ALL.with_product(ProductOperands(TWO, ONE))
    assert ValueFacts.joined([ALL, other]).product == MOVED, "the first one counts"


def test_mixed_values_have_no_lower_bound_and_are_no_product() -> None:
    assert ValueFacts.mixed([ALL, LITTLE]) == ValueFacts(False, -inf, True)
    assert ValueFacts.mixed([ALL, ALL]) == ValueFacts(True, -inf, True)


def test_of_combined_weights_a_product_is_left() -> None:
    assert ValueFacts.combined_weights([LITTLE, ALL]) == ValueFacts(product=MOVED)
    assert ValueFacts.combined_weights([LITTLE]) == NOTHING_KNOWN


def test_a_rule_may_know_better() -> None:
    assert LITTLE.with_gate(True) == ValueFacts(True, -3.0)
    assert ALL.with_gate(False).with_key_features(False).with_product(None) == ValueFacts(
        lower_bound=2.0, key_value_product=KEYS_TIMES_VALUES
    )
    assert LITTLE.with_lower_bound(0.5) == ValueFacts(lower_bound=0.5)


# Flows. -------------------------------------------------------------------------------------------


def test_a_carried_label_keeps_the_lower_bound_if_values_only_move() -> None:
    source = stream(ALL)
    moves = Carry(operation=Operation.RELAYOUT, layout=LAYOUT, source=source)
    assert moves.output_facts == ALL.moved()
    mixes = Carry(operation=Operation.CHANNEL_MIXING, layout=LAYOUT, source=source)
    assert mixes.output_facts == ALL.after_linear()


def test_a_step_follows_the_operands_whose_labels_it_reads() -> None:
    view = LabelView(stream(ALL), ARRANGEMENT)
    assert Rearrange(layout=LAYOUT, source=view).output_facts == ValueFacts.joined([ALL])
    averaged = Aggregate(layout=LAYOUT, source=view, count=1)
    assert averaged.output_facts == ValueFacts.mixed([ALL])
    both = (view, LabelView(stream(LITTLE, "y"), ARRANGEMENT))
    total = Average(operation=Operation.RESIDUAL, layout=LAYOUT, sources=both, shares=(1, 1))
    assert total.output_facts == ValueFacts.mixed([ALL, LITTLE])


def test_nothing_is_known_of_constants_and_weights() -> None:
    assert Constant().output_facts == NOTHING_KNOWN
    assert Weights(layout=LAYOUT).output_facts == NOTHING_KNOWN


@pytest.mark.parametrize("flow", [Constant(facts=ALL), Weights(layout=LAYOUT, facts=ALL)])
def test_facts_of_the_rule_come_first(flow: Weights | Constant) -> None:
    assert flow.output_facts == ALL


def test_rules_may_say_what_they_know() -> None:
    view = LabelView(stream(ALL), ARRANGEMENT)
    flow = Aggregate(layout=LAYOUT, source=view, count=1)
    known = flow.output_facts
    assert with_lower_bound(flow, 0.0).output_facts == known.with_lower_bound(0.0)
    assert with_key_features(flow, False).output_facts == known.with_key_features(False)
    assert with_product(flow, PRODUCT).output_facts == known.with_product(PRODUCT)
    assert after_nonlinear(flow, is_gate=False).output_facts == known.with_gate(False)


def test_weights_are_no_gates() -> None:
    flow = Weights(layout=LAYOUT, facts=LITTLE)
    assert after_nonlinear(flow, is_gate=True) == flow


# Element-wise steps. ------------------------------------------------------------------------------


def test_linear_steps_keep_both_readings() -> None:
    linear = carry(stream(ALL), SHAPE)
    assert isinstance(linear, Carry) and linear.is_linear
    assert linear.output_facts == ALL.after_linear()
    shifted = carry(stream(ALL), SHAPE, lower_bound=1.0)
    assert isinstance(shifted, Carry) and shifted.is_linear
    assert shifted.output_facts == ALL.after_linear().with_lower_bound(1.0)


def test_nonlinear_steps_do_not() -> None:
    gate = carry(stream(ALL), SHAPE, is_gate=True, lower_bound=-1.0)
    assert isinstance(gate, Carry) and not gate.is_linear
    assert gate.output_facts == ValueFacts(True, -1.0)


def test_weights_keep_what_is_known_until_a_nonlinear_step() -> None:
    known = ALL.with_gate(False).with_key_features(False)
    assert carry(scores(known), SHAPE).output_facts == known.after_linear()
    positive = carry(scores(known), SHAPE, is_gate=True, lower_bound=0.0)
    assert positive.output_facts == ValueFacts(lower_bound=0.0)


def test_sums_of_streams_and_of_weights() -> None:
    both = (stream(ValueFacts(True, 2.0, True)), stream(LITTLE, "y"))
    total = combine(both, SHAPE, operation=Operation.RESIDUAL)
    assert total.output_facts == ValueFacts.mixed([both[0].facts, LITTLE])
    gate = combine(both, SHAPE, operation=Operation.RESIDUAL, is_gate=True)
    assert gate.output_facts == total.output_facts.with_gate(True)
    known = ValueFacts(lower_bound=2.0, product=PRODUCT)
    added = combine((scores(known), both[1]), SHAPE, operation=Operation.RESIDUAL)
    assert added.output_facts == ValueFacts(product=MOVED)
