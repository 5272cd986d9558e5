"""Random values with random edits: the key, differences and snapshots against a plain rendering."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labeltrace.model_state.snapshot import differences, take_snapshot
from labeltrace.model_state.state_key import StateWatch
from tests.model_state.random_values import SPECS, Edit, build, render


def model_of(specs: list[Any]) -> tuple[nn.Module, list[Edit]]:
    """A model with values in attributes of its layer, and their edits."""
    edits: list[Edit] = []
    model = nn.Sequential(nn.ReLU())
    for index, spec in enumerate(specs):
        name = f"value{index}"
        edits.append(Edit(f"0.{name}", lambda name=name: setattr(model[0], name, "edited")))
        setattr(model[0], name, build(spec, f"0.{name}", edits))
    return model, edits


def rendered(model: nn.Module) -> Any:
    return [(name, render(value)) for name, value in vars(model[0]).items() if "value" in name]


@given(st.lists(SPECS, min_size=1, max_size=3), st.data())
@settings(max_examples=300, deadline=None)
def test_an_edit_is_seen_named_and_undone(specs: list[Any], data: st.DataObject) -> None:
    model, edits = model_of(specs)
    edit = data.draw(st.sampled_from(edits), label="edit")
    watch = StateWatch(model)
    key, before, was = watch.key(), take_snapshot(model), rendered(model)
    assert watch.key() == StateWatch(model).key() == key
    assert not differences(before, take_snapshot(model))
    edit.make()
    changed = rendered(model) != was
    assert (watch.key() != key) is changed
    assert (StateWatch(model).key() != key) is changed
    found = differences(before, take_snapshot(model))
    assert [difference.path for difference in found] == [edit.path] * changed
    before.restore()
    assert rendered(model) == was
    assert watch.key() == StateWatch(model).key() == key
    assert not differences(before, take_snapshot(model))


@given(st.lists(SPECS, min_size=1, max_size=3), st.data())
@settings(max_examples=100, deadline=None)
def test_many_edits_are_undone(specs: list[Any], data: st.DataObject) -> None:
    model, edits = model_of(specs)
    watch = StateWatch(model)
    key, before, was = watch.key(), take_snapshot(model), rendered(model)
    values = dict(vars(model[0]))
    for edit in data.draw(st.lists(st.sampled_from(edits), max_size=5, unique_by=id)):
        try:
            edit.make()
        except KeyError:  # an entry that is gone already
            continue
    before.restore()
    assert rendered(model) == was and watch.key() == key
    assert all(value is values[name] for name, value in vars(model[0]).items())
