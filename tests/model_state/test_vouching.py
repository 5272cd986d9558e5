"""Within `assume_unchanged` nobody looks; afterwards everything is seen again."""

from __future__ import annotations

from threading import Thread
from types import SimpleNamespace

import pytest
from torch import nn

from labeltrace.model_state.state_key import StateWatch
from labeltrace.model_state.vouching import assume_unchanged


def test_the_first_key_inside_is_computed_and_kept() -> None:
    model = nn.Dropout(0.1)
    watch = StateWatch(model)
    before = watch.key()
    model.p = 0.2
    with assume_unchanged(watch):
        inside = watch.key()
        model.p = 0.3
        with assume_unchanged(SimpleNamespace(state_watch=watch)):
            assert watch.key() is inside
        model.p = 0.4
        assert watch.key() is inside
        other: list[object] = []
        thread = Thread(target=lambda: other.append(watch.key()))
        thread.start()
        thread.join()
        assert other == [inside]
    assert len({before, inside, watch.key()}) == 3
    with assume_unchanged(watch):
        assert watch.key() != inside


def test_an_error_inside_ends_it() -> None:
    watch = StateWatch(nn.Dropout(0.1))
    key = watch.key()
    with pytest.raises(KeyError), assume_unchanged(watch):
        watch.key()
        raise KeyError
    watch.model.eval()
    assert watch.key() != key


def test_what_is_no_watch() -> None:
    words = "assume_unchanged takes an aligned module or a StateWatch, not Linear; align the model"
    with pytest.raises(TypeError, match=words), assume_unchanged(nn.Linear(3, 5)):
        pass
