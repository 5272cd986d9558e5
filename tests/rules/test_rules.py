"""Every built-in rule against a slow computation of the same labels by other means."""

import pytest
import torch

import labeltrace
from labeltrace.flow import Constant
from labeltrace.rule_api.call import Call
from labeltrace.rules import BUILT_IN
from tests.helpers.code_module import from_expression
from tests.rules.cases import (
    CASES,
    REFUSED,
    UNREACHABLE,
    Refusal,
    RuleCase,
    fault_of,
)
from tests.rules.cases.case import values


def test_every_rule_has_a_case() -> None:
    named = {case.operator for case in CASES} | set(UNREACHABLE)
    assert set(BUILT_IN.operators) - named == set()


@pytest.mark.parametrize("name", UNREACHABLE)
def test_names_that_no_capture_brings(name: str) -> None:
    """Such a name is no operator, or its rule reads nothing of its operand."""
    operator = getattr(torch.ops.aten, name.removeprefix("aten."), None)
    if operator is not None:
        assert BUILT_IN.operators[name](Call(name, {}, ())) == Constant()


def test_no_case_stands_twice() -> None:
    for cases in (CASES, REFUSED):
        names = [str(case) for case in cases]
        assert [name for name in set(names) if names.count(name) > 1] == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_labels_are_the_replicas(case: RuleCase) -> None:
    fault = fault_of(case)
    assert fault is None, fault.message


@pytest.mark.parametrize("refusal", REFUSED, ids=str)
def test_what_cannot_be_followed_is_refused(refusal: Refusal) -> None:
    model = from_expression(refusal.code, **refusal.parts).eval()
    images = values(*refusal.shape)
    model(images)  # the code itself is fine
    with pytest.raises(labeltrace.LayoutError, match=refusal.says):
        labeltrace.trace(model, images, channel_dim=refusal.channel_dim, engine="captured")
