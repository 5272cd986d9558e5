"""The key differs after every kind of change, and is the old one when the change is undone."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune

from labeltrace.model_state.state_key import StateWatch
from tests.model_state import changing_models as models
from tests.model_state.changing_models import Color, Config, Holder, Level, Pair, Reading

Change = Callable[[Any], Any]


def put(path: str, value: Any) -> Change:
    """A change that sets an attribute: `layer.stride` of the model to a value."""

    def change(model: Any) -> None:
        *owners, name = path.split(".")
        setattr(functools.reduce(getattr, owners, model), name, value)

    return change


def patched(x: Tensor) -> Tensor:
    return x * models.UNREAD


def scaled_by_two(factor: float, x: Tensor) -> Tensor:
    return x * factor


def scaled_method(self: nn.Module, x: Tensor) -> Tensor:
    return 2 * x


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class OtherHolder(Holder):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def emptied_cell(model: Any) -> None:
    model.closure.__closure__[0].cell_contents = [2]


def other_tensor(model: Any) -> None:
    model.plain = model.plain.clone()


def data_behind_the_version(model: Any) -> None:
    model.plain.data.mul_(2)


def shape_of_a_buffer(model: Any) -> None:
    model.grid = torch.arange(11.0)


def untie(model: Any) -> None:
    model.more[1].weight = nn.Parameter(model.more[0].weight.detach().clone())


def parametrized(model: Any) -> None:
    parametrize.register_parametrization(model.layer, "weight", Doubled())


CHANGES: dict[str, Change] = {
    # Plain values.
    "an integer": put("integer", 4),
    "an integer of another type": put("integer", 3.0),
    "a flag that equals an integer": put("flag", 1),
    "a float": put("number", 0.25),
    "a float that was NaN": put("nan", 0.0),
    "a float that becomes NaN": put("number", float("nan")),
    "zero of another sign": put("zero", -0.0),
    "a string": put("text", "sum"),
    "bytes": put("raw", b"ac"),
    "a flag": put("flag", False),
    "None": put("nothing", 0),
    "a tuple": put("layer.stride", (2, 2)),
    "the type inside a tuple": put("sizes", (3, 5.0)),
    "a tuple in place of a list": put("items", (1, [2, [3]], {"a": 4})),
    "an enum": put("color", Color.BLUE),
    "an integer enum": put("level", Level.HIGH),
    "a fraction": put("share", Fraction(1, 5)),
    "a numpy scalar": put("scalar", np.float64(0.5)),
    "a dtype": put("dtype", torch.float64),
    "a new attribute": put("added", 1),
    "a new attribute of a layer": put("norm.added", None),
    "an attribute that is deleted": lambda m: delattr(m, "integer"),
    "another name for an attribute": lambda m: m.__dict__.update(other=m.__dict__.pop("nothing")),
    "the whole __dict__": lambda m: setattr(m.norm, "__dict__", {**vars(m.norm), "eps": 0.5}),
    # Containers, edited in place.
    "an item of a list": lambda m: m.items.__setitem__(0, 5),
    "a nested list": lambda m: m.items[1][1].append(4),
    "a dict in a list": lambda m: m.items[2].update(a=5),
    "a longer list": lambda m: m.items.append(None),
    "a shorter list": lambda m: m.items.pop(),
    "a list in another order": lambda m: m.items.reverse(),
    "a list that was empty": lambda m: m.empty.append(1),
    "a dict that was empty": lambda m: m.empty_table.update(a=1),
    "an entry of a dict": lambda m: m.table.update(a=2),
    "a nested dict": lambda m: m.table["b"]["c"].append(3),
    "a key of a dict": lambda m: m.table.__setitem__("d", m.table.pop("a")),
    "the order of a dict": lambda m: m.table.update(a=m.table.pop("a")),
    "an ordered dict": lambda m: m.ordered.move_to_end("a"),
    "a default dict": lambda m: m.default["new"],
    "the factory of a default dict": lambda m: setattr(m.default, "default_factory", set),
    "a deque": lambda m: m.queue.rotate(),
    "a set": lambda m: m.names.add("c"),
    "a set of the same size": lambda m: (m.names.remove("a"), m.names.add("c")),
    "a frozenset": put("frozen", frozenset({1, (2, 4)})),
    "a list in a tuple": lambda m: m.nested[1].append(6),
    "a set in all of that": lambda m: m.nested[1][1]["a"][1].add(13),
    "a list that holds itself": lambda m: m.cycle.insert(0, 2),
    "a bytearray": lambda m: m.bytes.reverse(),
    # Objects.
    "a field of a dataclass": put("config.depth", 3),
    "a list in a dataclass": lambda m: m.config.names.append("b"),
    "another dataclass": put("config", Config(depth=3)),
    "a namespace": put("space.a", 2),
    "a namespace in a namespace": put("space.c.d", 4),
    "an object's slot": put("slotted.size", 4),
    "a dict in a slot": lambda m: m.slotted.inner["a"].append(2),
    "an object's class": put("config.__class__", models.Helper),
    "a list in a named tuple": lambda m: m.pair.first.append(2),
    "another named tuple": put("pair", Pair([1], 3)),
    "an entry of a subclass of dict": lambda m: m.keyed.update(a=2),
    "an attribute of a subclass of dict": put("keyed.extra", 6),
    # Tensors and arrays.
    "a plain tensor in place": lambda m: m.plain.add_(1),
    "a plain tensor's data": data_behind_the_version,
    "a plain tensor's data replaced": lambda m: setattr(m.plain, "data", torch.ones(5)),
    "another plain tensor": other_tensor,
    "a plain tensor that needs a gradient": lambda m: m.plain.requires_grad_(),
    "a tensor in a list in a dict": lambda m: m.tensors["a"][0].zero_(),
    "a half precision tensor": lambda m: m.tensors["half"].data.zero_(),
    "a numpy array in place": lambda m: m.array.__setitem__(1, 7),
    "a numpy array of another shape": put("array", np.zeros((5, 1))),
    "a numpy array's type": put("array", np.arange(5)),
    # Functions.
    "an activation": put("activation", F.gelu),
    "an activation's class": put("activation", nn.GELU()),
    "a keyword of a partial": lambda m: m.partial.keywords.update(by=5.0),
    "the function of a partial": put("partial", functools.partial(patched, by=3.0)),
    "a positional argument of a partial": put("partial", functools.partial(scaled_by_two, 2)),
    "a variable of a closure": lambda m: m.closure.__closure__[0].cell_contents.append(2),
    "a closure's cell": emptied_cell,
    "a method's object": put("method.__self__.offset", 2),
    "an attribute of a function": lambda m: setattr(m.closure, "scale", 2),
    # Modules.
    "the mode": lambda m: m.eval(),
    "the mode of one layer": lambda m: m.norm.eval(),
    "a rate": put("more.1.p", 0.5),
    "another layer": put("layer", nn.Conv2d(3, 5, 3)),
    "a layer more": lambda m: m.more.append(nn.ReLU()),
    "layers in another order": lambda m: m._modules.update(layer=m._modules.pop("layer")),
    "a setting of a layer in a list": lambda m: setattr(m.listed[1]["a"], "p", 0.5),
    "the mode of a layer in a list": lambda m: m.listed[0].eval(),
    "a weight of a layer in a list": lambda m: m.listed[0].weight.data.zero_(),
    "the padding of a layer": put("layer.padding", "same"),
    "forward of an instance": put("norm.forward", patched),
    "forward of an instance, as a method": lambda m: setattr(
        m.norm, "forward", types.MethodType(scaled_method, m.norm)
    ),
    "a layer's class": put("norm.__class__", nn.InstanceNorm2d),
    "the model's class": put("__class__", OtherHolder),
    # Parameters and buffers, by their form.
    "a parameter that is frozen": lambda m: m.layer.weight.requires_grad_(False),
    "a parameter's dtype": lambda m: m.layer.double(),
    "a parameter's device": lambda m: m.layer.to("meta"),
    "a parameter's shape": put("layer.weight", nn.Parameter(torch.ones(5, 3, 1, 1))),
    "a parameter's strides": lambda m: m.layer.to(memory_format=torch.channels_last),
    "a parameter that was None": put("bias", nn.Parameter(torch.ones(5))),
    "a parameter that becomes None": put("layer.bias", None),
    "a buffer's shape": shape_of_a_buffer,
    "a buffer that becomes None": put("norm.running_mean", None),
    "a buffer more": lambda m: m.register_buffer("extra", torch.ones(3)),
    "a parametrization": parametrized,
    "pruning": lambda m: prune.l1_unstructured(m.layer, "weight", 0.5),
    "weight norm": lambda m: nn.utils.parametrizations.weight_norm(m.layer),
    # Hooks.
    "a forward hook": lambda m: m.norm.register_forward_hook(lambda *_: None),
    "a forward hook with kwargs": lambda m: m.norm.register_forward_hook(
        lambda *_: None, with_kwargs=True
    ),
    "a forward pre-hook": lambda m: m.norm.register_forward_pre_hook(lambda *_: None),
    "a backward hook": lambda m: m.norm.register_full_backward_hook(lambda *_: None),
    "a backward pre-hook": lambda m: m.norm.register_full_backward_pre_hook(lambda *_: None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_model(name: str) -> None:
    model = Holder()
    watch = StateWatch(model)
    key = watch.key()
    assert watch.key() == key and StateWatch(model).key() == key
    CHANGES[name](model)
    changed = watch.key()
    assert changed != key and StateWatch(model).key() != key
    assert watch.key() == changed and StateWatch(model).key() == changed


GLOBALS: dict[str, Change] = {
    "a number": lambda patch: patch.setattr(models, "SCALE", 4),
    "a string": lambda patch: patch.setattr(models, "MODE", "other"),
    "a dict in a dict": lambda patch: patch.setitem(models.TABLE["a"], "b", 6),
    "a tuple": lambda patch: patch.setattr(models, "PAIR", (7, (11, 14))),
    "a function": lambda patch: patch.setattr(models, "ACTIVATION", F.gelu),
    "a function that is called": lambda patch: patch.setattr(models, "inner", patched),
    "None": lambda patch: patch.setattr(models, "OPTIONAL", 1),
    "an enum": lambda patch: patch.setattr(models, "CHOICE", Color.BLUE),
    "an object": lambda patch: patch.setattr(models.SETTINGS, "depth", 3),
    "another tensor": lambda patch: patch.setattr(models, "WEIGHT", torch.ones(3)),
    "a global of a function that is called": lambda patch: patch.setattr(models, "INNER", 1),
    "a global of a function called by that": lambda patch: patch.setattr(models, "DEEP", 1),
    "a global of a helper's method": lambda patch: patch.setattr(models, "LATE", 1),
    "a global that forward counts": lambda patch: patch.setattr(models, "COUNTED", -1),
    "a global that is deleted": lambda patch: patch.delattr(models, "INNER"),
    "a global of a constructor": lambda patch: patch.setattr(models, "CONSTRUCTED", 1),
    "a module's global": lambda patch: patch.setattr(models.OTHER, "FLAG", False),
    "a global of a module in a module": lambda patch: patch.setattr(models.OTHER.part, "RATE", 1.0),
    "a class attribute": lambda patch: patch.setattr(models.Shared, "amount", 6),
    "a class attribute of a helper": lambda patch: patch.setattr(models.Helper, "rate", 0.5),
    "a class attribute of the model": lambda patch: patch.setattr(Reading, "class_setting", 4),
    "a new class attribute": lambda patch: patch.setattr(Reading, "added", 4, raising=False),
    "forward of the class": lambda patch: patch.setattr(Reading, "forward", scaled_method),
    "a method of the class": lambda patch: patch.setattr(Reading, "step", scaled_method),
    "a property of the class": lambda patch: patch.setattr(Reading, "factor", property(id)),
    "a method of a helper": lambda patch: patch.setattr(models.Helper, "apply", scaled_method),
    "the defaults of a function": lambda patch: patch.setattr(models.inner, "__defaults__", (2,)),
    "the code of a function": lambda patch: patch.setattr(
        models.deep, "__code__", patched.__code__
    ),
    "a value of a thread": lambda patch: patch.setattr(models.LOCAL, "depth", 4),
    "a variable of the environment": lambda patch: patch.setenv("TESTED", "1"),
    "a builtin": lambda patch: patch.setattr(models, "float", int, raising=False),
}


@pytest.mark.parametrize("name", GLOBALS)
def test_a_change_outside_the_model(name: str) -> None:
    watch = StateWatch(Reading())
    key = watch.key()
    with pytest.MonkeyPatch.context() as patch:
        GLOBALS[name](patch)
        changed = watch.key()
    assert changed != key
    assert watch.key() == key  # undone


@pytest.mark.parametrize("items", [models.STEPS, models.STEPS[2], Reading.class_list])
def test_a_list_outside_the_model_in_place(items: list[Any]) -> None:
    watch = StateWatch(Reading())
    key = watch.key()
    items.append(5)
    changed = watch.key()
    items.pop()
    assert changed != key and watch.key() == key


def test_a_context_variable() -> None:
    watch = StateWatch(Reading())
    key = watch.key()
    token = models.CONTEXT.set(5)
    changed = watch.key()
    models.CONTEXT.reset(token)
    assert changed != key and watch.key() == key


def test_settings_of_torch() -> None:
    watch = StateWatch(nn.ReLU())
    key = watch.key()
    torch.set_default_dtype(torch.float64)
    other_dtype = watch.key()
    torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        other_device = watch.key()
    assert key not in (other_dtype, other_device) and watch.key() == key


def test_a_tensor_in_a_global_in_place() -> None:
    watch = StateWatch(Reading())
    key = watch.key()
    models.WEIGHT.mul_(1)
    assert watch.key() != key


def test_what_is_not_read_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = StateWatch(Reading())
    key = watch.key()
    monkeypatch.setattr(models, "UNREAD", 0)
    monkeypatch.setattr(models.Helper, "never", scaled_method)
    assert watch.key() == key


def test_layers_of_torch_that_are_patched(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = StateWatch(nn.Sequential(nn.Linear(3, 5), nn.GELU()))
    key = watch.key()
    with monkeypatch.context() as patch:
        patch.setattr(nn.Linear, "forward", scaled_method)
        assert watch.key() != key
    assert watch.key() == key
    with monkeypatch.context() as patch:
        patch.setattr(F, "gelu", F.relu)
        assert watch.key() != key
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__call__", scaled_method)
        assert watch.key() != key
    assert watch.key() == key


def test_hooks_of_all_modules() -> None:
    watch = StateWatch(nn.ReLU())
    key = watch.key()
    handle = register_module_forward_hook(lambda *_: None)
    changed = watch.key()
    handle.remove()
    assert changed != key and watch.key() == key


def test_a_global_that_a_hook_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.ReLU()
    model.register_forward_hook(lambda module, args, output: output * models.UNREAD)
    watch = StateWatch(model)
    key = watch.key()
    monkeypatch.setattr(models, "UNREAD", 5)
    assert watch.key() != key


def test_a_method_that_its_base_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = StateWatch(nn.Sequential(models.Stepping(), models.SteppingFar()))
    key = watch.key()
    monkeypatch.setattr(models, "UNREAD", 5)
    assert watch.key() != key


def test_a_method_that_a_sibling_class_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mixin is met before it has anything to do with the class that calls its method."""
    deep = nn.Sequential(nn.Sequential(nn.Sequential(models.Shifted())))
    watch = StateWatch(nn.Sequential(models.Unshifted(), models.Shifting(), deep))
    key = watch.key()
    monkeypatch.setattr(models, "UNREAD", 5)
    assert watch.key() != key


def test_the_order_of_attributes_does_not_count() -> None:
    model = Holder()
    watch = StateWatch(model)
    key = watch.key()
    del model.integer
    assert watch.key() != key
    model.integer = 3
    assert watch.key() == key


def test_weights_that_are_tied() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    watch = StateWatch(model)
    key = watch.key()
    model[1].weight = nn.Parameter(model[0].weight.detach().clone())
    assert watch.key() != key
    model[1].weight = model[0].weight
    assert watch.key() == key


def test_training_changes_nothing() -> None:
    model = Holder()
    model.unregistered = [model.layer.weight]  # what is registered elsewhere is read live
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    watch = StateWatch(model)
    key = watch.key()
    for _ in range(2):
        model(torch.rand(2, 3, 7, 7)).sum().backward()
        assert watch.key() == key
        optimizer.step()
        assert watch.key() == key
        optimizer.zero_grad()
        assert watch.key() == key
    state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    assert watch.key() == key
    model.unregistered = []
    key = watch.key()
    model.load_state_dict(state, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_()
    assert watch.key() == key


@pytest.mark.parametrize(
    "layer", [nn.LSTM(3, 5), nn.MultiheadAttention(8, 2), nn.TransformerEncoderLayer(8, 2)]
)
def test_loading_layers_with_lists_of_weights(layer: nn.Module) -> None:
    watch = StateWatch(layer)
    key = watch.key()
    layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert watch.key() == key


def test_modes_come_back_to_the_same_key() -> None:
    model = Holder()
    watch = StateWatch(model)
    training = watch.key()
    model.eval()
    evaluating = watch.key()
    model.train()
    assert watch.key() == training != evaluating
    assert hash(watch.key()) == hash(training)
    model.eval()
    assert watch.key() == evaluating


def test_a_key_keeps_no_tensor_alive() -> None:
    model = nn.ReLU()
    model.kept = torch.ones(3)  # type: ignore[assignment]
    watch = StateWatch(model)
    keys = []
    for _ in range(50):
        model.kept = torch.ones(3)  # type: ignore[assignment]
        keys.append(watch.key())
    assert len(set(keys)) == 50  # though the memory of the old ones is used again


def test_a_copy_of_a_watch_watches_the_copy() -> None:
    model = Holder()
    watch = StateWatch(model)
    watch.key()
    twin = copy.deepcopy({"model": model, "watch": watch})
    key = twin["watch"].key()
    model.integer = 5
    assert twin["watch"].key() == key
    twin["model"].integer = 5
    assert twin["watch"].key() != key
