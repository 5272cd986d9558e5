"""What goes in and what comes out: inputs written to, aliases, structures of every kind."""

from __future__ import annotations

import weakref
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_dataclass, tree_map

from tests.true_to_model.case import (
    WIDTH,
    Patches,
    Seen,
    constant_images,
    each,
    patches,
    pictures,
    prior,
    twin,
)


class Whole(nn.Module):
    """A function of the module and its arguments, with the layers of `Patches`."""

    def __init__(self, function: Any, **attributes: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 2, 2)
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


@twin(labels=patches, inputs=constant_images)
def input_normalized_in_place() -> nn.Module:
    return Whole(lambda self, x: self.stem(x.sub_(0.5).div_(0.2)))


@twin(labels=patches, inputs=constant_images)
def input_overwritten_after_use() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.stem(x)
        x.zero_()
        return y

    return Whole(forward)


@twin(labels=lambda seen: [seen.labels, patches(seen)], inputs=constant_images)
def output_is_the_input() -> nn.Module:
    return Whole(lambda self, x: [x, self.stem(x)])


@twin(labels=lambda seen: (seen.labels, seen.labels[:, :, 1:], patches(seen)))
def outputs_are_views_of_the_input() -> nn.Module:
    return Whole(lambda self, x: (x.detach(), x[:, :, 1:], self.stem(x)))


@twin(labels=each(patches))
def same_tensor_twice() -> nn.Module:
    return Patches(lambda self, x: [x, x, (x, x[:, :3])])


@twin(unlabeled=(1, 2))
def parameter_and_buffer_among_outputs() -> nn.Module:
    norm = nn.BatchNorm2d(WIDTH)
    return Patches(
        lambda self, x: (self.norm(x), self.norm.weight, self.norm.running_mean), norm=norm
    )


@twin(labels=lambda seen: OrderedDict(b=patches(seen), a=prior(seen)))
def outputs_in_an_ordered_dict() -> nn.Module:
    return Patches(lambda self, x: OrderedDict(b=x, a=x.mean((2, 3))))


@twin(
    labels=lambda seen: tree_map(
        lambda out: patches(seen) if out is not None else None, seen.outputs
    )
)
def outputs_in_a_dict_with_other_things() -> nn.Module:
    return Patches(lambda self, x: {"map": x, "none": None, "deep": [{"map": (x * 2,)}]})


@twin(
    labels=lambda seen: {"map": patches(seen), "text": None, "number": None, "list": [None, None]}
)
def outputs_with_numbers_and_strings() -> nn.Module:
    return Patches(lambda self, x: {"map": x, "text": "a", "number": 3.5, "list": [True, 2]})


class Pair(NamedTuple):
    map: Tensor
    mean: Tensor


@twin(labels=lambda seen: Pair(patches(seen), prior(seen)))
def outputs_in_a_named_tuple() -> nn.Module:
    return Patches(lambda self, x: Pair(x, x.mean((2, 3))))


Collected = namedtuple("Collected", "map mean")


@twin(labels=lambda seen: Collected(patches(seen), prior(seen)))
def outputs_in_a_collections_named_tuple() -> nn.Module:
    return Patches(lambda self, x: Collected(map=x, mean=x.mean((2, 3))))


@dataclass
class Registered:
    map: Tensor
    mean: Tensor | None = None


register_dataclass(Registered)


@twin(labels=lambda seen: Registered(patches(seen), prior(seen)))
def outputs_in_a_registered_dataclass() -> nn.Module:
    return Patches(lambda self, x: Registered(x, x.mean((2, 3))))


@dataclass
class Unregistered:
    map: Tensor


@twin(refuses="Unregistered")
def outputs_in_an_unregistered_dataclass() -> nn.Module:
    return Patches(lambda self, x: Unregistered(x))


class Holder:
    def __init__(self, value: Any) -> None:
        self.deep = {"list": [value]}


@twin(refuses="Holder")
def outputs_in_an_object() -> nn.Module:
    return Patches(lambda self, x: (x, Holder(x)))


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@twin(refuses="Slotted")
def outputs_in_an_object_with_slots() -> nn.Module:
    return Patches(lambda self, x: [Slotted(x)])


@twin(refuses="set")
def outputs_in_a_set() -> nn.Module:
    return Patches(lambda self, x: {x})


@twin(refuses="generator")
def outputs_in_a_generator() -> nn.Module:
    return Patches(lambda self, x: (part for part in x.split(1)))


@twin(labels=lambda seen: (patches(seen), None))
def output_object_without_tensors() -> nn.Module:
    return Patches(lambda self, x: (x, Holder(3)))


@twin(labels=lambda seen: None)
def output_none() -> nn.Module:
    return Patches(lambda self, x: None)


@twin(labels=lambda seen: 3)
def output_a_number() -> nn.Module:
    return Patches(lambda self, x: x.shape[0])


@twin(labels=patches, keywords=lambda index: {"settings": {"scale": 2.0, "seen": []}})
def keyword_mutated() -> nn.Module:
    def forward(self: Any, x: Tensor, settings: dict[str, Any]) -> Tensor:
        settings["seen"].append(x.shape[0])
        settings["scale"] += 1
        return self.stem(x) * settings["scale"]

    return Whole(forward)


@twin(labels=patches, inputs=lambda index: ({"image": pictures(index), "kept": None},))
def input_dict_mutated() -> nn.Module:
    def forward(self: Any, batch: dict[str, Any]) -> Tensor:
        batch["kept"] = self.stem(batch.pop("image"))
        return batch["kept"]

    return Whole(forward)


@twin(
    labels=patches,
    inputs=lambda index: (pictures(index), 2.0 + index, ["a", None], {"flip": index % 2 == 0}),
)
def further_arguments_of_every_kind() -> nn.Module:
    def forward(self: Any, x: Tensor, scale: float, names: list[Any], options: Any) -> Tensor:
        return self.stem(x) * scale + len(names) + options["flip"]

    return Whole(forward)


@twin(labels=patches, keywords=lambda index: {"mask": torch.ones(1, WIDTH, 1, 1) * index})
def further_tensor_as_keyword() -> nn.Module:
    return Whole(lambda self, x, mask: self.stem(x) * mask)


@twin(labels=patches, inputs=lambda index: (pictures(index)[:, :, ::1].transpose(2, 3).clone().mT,))
def input_is_not_contiguous() -> nn.Module:
    return Whole(lambda self, x: self.stem(x))


@twin(
    labels=patches,
    inputs=lambda index: (pictures(index).contiguous(memory_format=torch.channels_last),),
)
def input_is_channels_last() -> nn.Module:
    return Whole(lambda self, x: self.stem(x).relu())


@twin(labels=patches, inputs=lambda index: (pictures(index).bfloat16(),))
def input_in_half_precision() -> nn.Module:
    return Whole(lambda self, x: self.stem(x.float()).bfloat16())


def _shared(index: int) -> tuple[Any, ...]:
    image = pictures(index)
    return (image, image)


@twin(labels=patches, inputs=_shared)
def same_input_twice() -> nn.Module:
    return Whole(lambda self, x, y: self.stem(x) * (1 if x is y else -1))


@twin(labels=patches, inputs=lambda index: (pictures(index, 1).expand(2, -1, -1, -1),))
def input_is_expanded() -> nn.Module:
    return Whole(lambda self, x: self.stem(x).relu_())


@twin(labels=patches)
def constant_that_is_complex() -> nn.Module:
    wave = torch.polar(torch.ones(5, 7), torch.arange(35.0).view(5, 7))
    return Patches(lambda self, x: x * self.wave.real + self.wave.abs(), wave=wave)


@twin(labels=patches)
def weak_references_are_kept() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.last = weakref.ref(x)
        return x.relu()

    return Patches(forward, last=None)


@twin(labels=lambda seen: seen.labels[..., :1, :1].mean((2, 3), keepdim=True))
def only_one_pixel_is_read() -> nn.Module:
    return Whole(lambda self, x: x[:, :, :1, :1] * 2)


class Logits(Tensor):
    """A class of tensors of the model's own."""


@twin(labels=lambda seen: prior(seen), inputs=constant_images)
def outputs_of_a_tensor_class() -> nn.Module:
    return Patches(lambda self, x: x.mean((2, 3)).as_subclass(Logits))


def _stopped(seen: Seen) -> Tensor:
    return patches(seen)


@twin(labels=_stopped)
def outputs_without_gradient() -> nn.Module:
    return Patches(lambda self, x: x.detach())


@twin(labels=patches)
def integers_among_outputs() -> nn.Module:
    return Patches(lambda self, x: (x * 10).round().int())


@twin(labels=lambda seen: (prior(seen), prior(seen)))
def classes_among_outputs() -> nn.Module:
    return Patches(lambda self, x: (x.mean((2, 3)), x.mean((2, 3)).softmax(1)))
