"""Two models alike: one is called plainly, the other with labels. Nothing else may differ."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import labeltrace
from labeltrace.errors import LabelTraceError
from labeltrace.runtime.engine_choice import EngineName
from tests.true_to_model.case import Case, Seen
from tests.true_to_model.label_contract import check_labels, label_image
from tests.true_to_model.mirror import Mirror
from tests.true_to_model.random_state import RandomState


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What a call, and the backward pass after it, leave behind."""

    inputs: tuple[Any, ...]
    keywords: dict[str, Any]
    outputs: Any
    errors: tuple[str, ...]
    refusal: LabelTraceError | None = None
    labels: Any = None
    label_image: Tensor | None = None


class Twin:
    """One of the two, with random generators of its own."""

    def __init__(self, case: Case, engine: EngineName | None) -> None:
        self.case = case
        self.random = RandomState.seeded(7)
        outside = RandomState.now()
        self.random.restore()
        self.model = case.build()
        self.random = RandomState.now()
        outside.restore()
        self.aligned = None if engine is None else labeltrace.align(self.model, engine=engine)

    def call(self, index: int) -> Outcome:
        """One call and its backward pass, in the twin's own random state."""
        outside = RandomState.now()
        self.random.restore()
        try:
            if index:
                self.case.change(self.model, index)
            return self._call(index)
        finally:
            self.random = RandomState.now()
            outside.restore()

    def _call(self, index: int) -> Outcome:
        inputs = self.case.inputs(index)
        keywords = dict(self.case.keywords(index))
        image = next(leaf for leaf in tree_leaves((inputs, keywords)) if isinstance(leaf, Tensor))
        labels = label_image(image)
        outputs, found, errors, refusal = None, None, [], None
        with self.case.context(index):
            try:
                if self.aligned is None:
                    outputs = self.model(*inputs, **keywords)
                else:
                    outputs, found = self.aligned(inputs[0], labels, *inputs[1:], **keywords)
            except LabelTraceError as error:
                if not self.case.refuses:
                    raise
                refusal = error
            except Exception as error:
                errors.append(_told(error))
        if not errors and not self.case.refuses:
            errors += self._backward(outputs)
        return Outcome(inputs, keywords, outputs, tuple(errors), refusal, found, labels)

    def _backward(self, outputs: Any) -> list[str]:
        try:
            loss = (self.case.loss or weighted_sum)(self.model, outputs)
            if loss.requires_grad:
                loss.backward()
        except Exception as error:
            return [_told(error)]
        return []

    def copied(self) -> str:
        """What becomes of a deep copy: nothing to tell, or its error."""
        try:
            copy.deepcopy(self.model)
        except Exception as error:
            return _told(error)
        return ""


def weighted_sum(model: Any, outputs: Any) -> Tensor:
    """A number that depends on each entry of the outputs in another way."""
    total = torch.zeros(())
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, Tensor) and leaf.requires_grad:
            weights = torch.linspace(-1.3, 1.7, leaf.numel()).view(leaf.shape)
            total = total + (leaf.float() * weights).sum()
    return total


def check_twins(case: Case, engine: EngineName) -> None:
    """Call both, and compare everything after each call."""
    plain, other = Twin(case, None), Twin(case, engine)
    for index in range(case.calls):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, found = plain.call(index), other.call(index)
            _compare(plain, other, expected, found, f"{case.name}, call {index}")


def _compare(plain: Twin, other: Twin, expected: Outcome, found: Outcome, path: str) -> None:
    case = plain.case
    if case.refuses:
        assert found.refusal is not None, f"{path}: labels were not refused: {found.labels}"
        assert case.refuses in str(found.refusal), f"{path}: {found.refusal}"
    else:
        assert found.errors == expected.errors, f"{path}: {found.errors}, not {expected.errors}"
    mirror = Mirror()
    mirror.same(plain.model, other.model, f"{path}: model")
    mirror.same(expected.inputs, found.inputs, f"{path}: inputs")
    mirror.same(expected.keywords, found.keywords, f"{path}: keywords")
    mirror.same(plain.random, other.random, f"{path}: random state")
    assert plain.copied() == other.copied(), f"{path}: a deep copy differs"
    if found.refusal is None:
        mirror.same(expected.outputs, found.outputs, f"{path}: outputs")
        if not found.errors:
            assert found.label_image is not None
            seen = Seen(plain.model, expected.inputs, expected.outputs, found.label_image)
            check_labels(case, seen, found.labels, path)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
