"""The zoo: its data say what the libraries say, and its models are what the data say."""

from __future__ import annotations

import importlib
import re

import pytest
import timm
import torch
from torch import nn

import labeltrace
from labeltrace import models_zoo
from labeltrace.errors import ModelLoadingError
from labeltrace.flow import Operation
from labeltrace.models_zoo import Family
from labeltrace.models_zoo.describing import MIN_SIZE, PATCHES

FAMILIES = {family.name: family for family in models_zoo.families()}
OF_TIMM = [family for family in FAMILIES.values() if family.source == "timm"]


def parameters(name: str) -> int:
    return sum(p.numel() for p in models_zoo.build(name, device="meta").parameters())


def runs(name: str, size: int) -> bool:
    """Whether a model takes images of this size, in both modes."""
    try:
        model = models_zoo.build(name, image_size=size, device="meta")
        for training in (False, True):
            model.train(training)(torch.empty(2, 3, size, size, device="meta"))
    except Exception:  # the models' own: asserts, views and kernels that do not fit
        return False
    return True


# Data. --------------------------------------------------------------------------------------------


def test_timms_models_are_each_in_one_family() -> None:
    assert sorted(family.module for family in OF_TIMM) == sorted(
        f"timm.models.{module}" for module in timm.list_modules()
    )
    members = [name for family in OF_TIMM for name in family.members]
    assert sorted(members) == sorted(timm.list_models())


def test_names_are_unique() -> None:
    members = [name for family in FAMILIES.values() for name in family.members]
    assert len(set(members)) == len(members)
    assert len(FAMILIES) == len(models_zoo.families())
    for name in FAMILIES.keys() & set(members):  # a family may share its name with a member
        assert name in FAMILIES[name].members


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_data_are_sound(family: Family) -> None:
    assert family.smallest in family.members
    assert MIN_SIZE <= family.sizes.smallest <= family.sizes.native
    assert set(family.counts) <= {str(operation) for operation in Operation}
    assert all(reason and number > 0 for reason, number in family.approximations.items())
    assert bool(family.counts) == bool(family.measured_with)
    assert sum(family.approximations.values()) <= sum(family.counts.values())
    for paper in family.papers:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", paper.arxiv)
        assert paper.title


@pytest.mark.parametrize("family", OF_TIMM, ids=lambda family: family.name)
def test_papers_are_those_of_timms_documentation(family: Family) -> None:
    documentation = " ".join((importlib.import_module(family.module).__doc__ or "").split())
    assert all(paper.title in documentation for paper in family.papers)
    cited = set(re.findall(r"arxiv\.org/\w+/(\d{4}\.\d{4,5})", documentation))
    numbers = {paper.arxiv for paper in family.papers}
    # One is mentioned in passing, in a sentence of its own, without its whole title.
    assert numbers == cited - ({"2001.06268"} if family.name == "sknet" else set())


@pytest.mark.parametrize("name", ["convmixer", "sequencer", "torchvision_mnasnet"])
def test_smallest_member_has_the_fewest_parameters(name: str) -> None:
    family = FAMILIES[name]
    assert len(family.members) > 2
    assert parameters(family.smallest) == min(parameters(member) for member in family.members)


@pytest.mark.parametrize("name", ["inception_v3", "torchvision_alexnet"])
def test_smallest_image_is_the_smallest_that_runs(name: str) -> None:
    family = FAMILIES[name]
    tried = {size for patch in PATCHES for size in range(patch, family.sizes.smallest, patch)}
    smaller = sorted(size for size in tried if size >= MIN_SIZE)
    assert runs(name, family.sizes.smallest)
    assert smaller
    assert not any(runs(name, size) for size in smaller)


@pytest.mark.parametrize("name", ["torchvision_alexnet", "shvit", "pvt"])
def test_measured_counts_are_found_again(name: str) -> None:
    family = FAMILIES[name]
    loaded = models_zoo.load(name, device="meta")
    assert loaded.input_size == (3, family.sizes.native, family.sizes.native)
    found = labeltrace.trace(loaded.model.eval(), loaded.example())
    reasons = [node.approximation for node in found.approximate]
    assert found.counts() == family.counts
    assert {reason: reasons.count(reason) for reason in reasons} == family.approximations


# Building. ----------------------------------------------------------------------------------------


def test_family_stands_for_its_smallest_member() -> None:
    family = FAMILIES["cait"]
    assert models_zoo.find("cait") is models_zoo.find(family.members[-1]) is family
    assert parameters("cait") == parameters(family.smallest) < parameters("cait_s24_224")


def test_options_reach_the_model() -> None:
    model = models_zoo.build("tnt", device="meta", image_size=48, num_classes=17)
    assert model(torch.empty(2, 3, 48, 48, device="meta")).shape == (2, 17)
    vit = models_zoo.build("torchvision_vision_transformer", device="meta", image_size=48)
    assert vit.get_parameter("encoder.pos_embedding").shape == (1, 10, 768)
    assert all(parameter.is_meta for parameter in vit.parameters())


def test_segmenter_is_built_without_its_backbones_weights() -> None:
    model = models_zoo.build("torchvision_lraspp", device="meta").eval()
    assert model(torch.empty(2, 3, 64, 64, device="meta"))["out"].shape == (2, 21, 64, 64)


def test_depths_of_pvt() -> None:
    blocks = {}
    for name in FAMILIES["pvt"].members:
        model = models_zoo.build(name, device="meta")
        attentions = [m for m in model.modules() if type(m).__name__ == "PvtEfficientSelfAttention"]
        blocks[name.rpartition("_")[2]] = len(attentions)
    assert blocks == {"tiny": 8, "small": 16, "medium": 28, "large": 41}


def test_any_other_name_is_a_factory() -> None:
    model = models_zoo.build("torch.nn:Conv2d", in_channels=3, out_channels=5, kernel_size=1)
    assert isinstance(model, nn.Conv2d)
    with pytest.raises(ModelLoadingError, match="no model named 'swim'"):
        models_zoo.build("swim")
