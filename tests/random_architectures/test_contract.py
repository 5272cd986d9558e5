"""Labels of random architectures: the contract's properties, and soundness against autograd."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

import labeltrace
from tests.random_architectures.contract import check_batch, check_contract, check_sources
from tests.random_architectures.examples import PARTS, examples
from tests.random_architectures.inputs import BATCH
from tests.random_architectures.state import Architecture, Promise
from tests.random_architectures.strategy import architectures

MAX_SHARE_WITHOUT_PROMISE = 0.25


@pytest.mark.parametrize("part", range(PARTS))
@examples(60)
@given(architectures(), st.booleans(), st.permutations(range(BATCH)))
def test_random_architecture(
    part: int, architecture: Architecture, training: bool, order: list[int]
) -> None:
    event(f"promise: {architecture.promise.name}")  # counted by --hypothesis-show-statistics
    aligned = labeltrace.align(architecture.model)
    check_contract(architecture, aligned, training)
    check_batch(architecture, aligned, order)
    if architecture.promise is not Promise.NONE:
        check_sources(architecture, aligned)


def test_few_architectures_promise_nothing() -> None:
    """Those that do have no check of their sources. Models are drawn, and not aligned."""
    promises: Counter[str] = Counter()

    @settings(examples(200), phases=[Phase.generate], max_examples=200, derandomize=True)
    @given(architectures())
    def count(architecture: Architecture) -> None:
        promises[architecture.promise.name] += 1

    count()
    print(f"{promises.total()} architectures:", dict(promises))
    share = promises["NONE"] / promises.total()
    assert share <= MAX_SHARE_WITHOUT_PROMISE, promises
    assert promises["EQUAL"] > promises["SOUND"], promises
