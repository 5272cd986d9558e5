"""Write `families.json` from the installed libraries.

    python -m labeltrace.models_zoo.describing [FAMILY ...]

The papers are those cited in the libraries' documentation. The smallest member and its image sizes
are found by building every member on the meta device. Without names, all families are described
again (minutes). Families outside timm are listed in `OUTSIDE_TIMM`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
import torch
from rich.progress import track

from labeltrace.model_loading import LoadedModel, load_model
from labeltrace.models_zoo.family import FAMILIES_FILE, ImageSizes, Paper, members_of

MIN_SIZE = 32
PATCHES = (14, 16)  # multiples of these common patch sizes are tried

TEST_MODEL = "test_"  # prefix of small models for timm's own tests

# Title and arXiv number in the documentation of timm and of torchvision.
TIMM_PAPER = re.compile(r"`([^`]+)`[^`\n]*?https?://arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})")
TORCHVISION_PAPER = re.compile(r"`([^`]+?)\s*<https?://arxiv\.org/abs/(\d{4}\.\d{4,5})>`")


@dataclass(frozen=True)
class FamilySource:
    """The source of a family; see `labeltrace.models_zoo.Family`.

    `papers` are those that the source's documentation does not cite completely.
    """

    name: str
    source: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    size_option: str = ""
    papers: tuple[Paper, ...] = ()


def _torchvision(name: str, size_option: str = "", **options: Any) -> FamilySource:
    module = f"torchvision.models.{name}"
    family = f"torchvision_{name.rpartition('.')[2]}"
    return FamilySource(family, "torchvision", module, options, size_option)


PVT_PAPER = Paper(
    "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions",
    "2102.12122",
)

OUTSIDE_TIMM = (
    _torchvision("alexnet"),
    _torchvision("googlenet", init_weights=False),  # as in other models
    _torchvision("maxvit"),
    _torchvision("mnasnet"),
    _torchvision("resnet"),
    _torchvision("shufflenetv2"),
    _torchvision("squeezenet"),
    _torchvision("swin_transformer"),
    _torchvision("vision_transformer", "image_size"),
    _torchvision("segmentation.deeplabv3", weights_backbone=None),
    _torchvision("segmentation.fcn", weights_backbone=None),
    _torchvision("segmentation.lraspp", weights_backbone=None),
    FamilySource(
        "pvt",
        "transformers",
        "labeltrace.models_zoo.pvt",
        size_option="image_size",
        papers=(PVT_PAPER,),
    ),
)


def family_sources() -> tuple[FamilySource, ...]:
    """The sources of all families: one for each timm module, and those outside timm."""
    modules = timm.list_modules()
    return (*(FamilySource(name, "timm", f"timm.models.{name}") for name in modules), *OUTSIDE_TIMM)


def describe(origin: FamilySource) -> dict[str, Any]:
    """One entry of `families.json`.

    Raises:
        ValueError: no member runs.
    """
    members = members_of(origin.source, origin.module)
    published = [name for name in members if not name.startswith(TEST_MODEL)]
    smallest = min(published, key=lambda name: (_parameters(origin, name), name))
    return {
        "name": origin.name,
        "source": origin.source,
        "module": origin.module,
        "papers": [asdict(paper) for paper in papers(origin)],
        "smallest": smallest,
        "sizes": asdict(image_sizes(origin, smallest)),
        "options": origin.options,
    }


# Papers. ------------------------------------------------------------------------------------------


def papers(origin: FamilySource) -> tuple[Paper, ...]:
    """The papers that the documentation of the family cites, in its order, without duplicates."""
    found = [*origin.papers, *_cited_papers(origin)]
    return tuple({paper.arxiv: paper for paper in reversed(found)}.values())[::-1]


def _cited_papers(origin: FamilySource) -> Iterator[Paper]:
    if origin.source == "timm":
        texts = [importlib.import_module(origin.module).__doc__ or ""]
        pattern = TIMM_PAPER
    else:
        module = importlib.import_module(origin.module)
        names = [name.rpartition(":")[2] for name in members_of(origin.source, origin.module)]
        texts = [getattr(module, name).__doc__ or "" for name in names]
        pattern = TORCHVISION_PAPER
    for text in texts:
        for title, number in pattern.findall(text):
            yield Paper(" ".join(title.split()), number)


# Sizes. -------------------------------------------------------------------------------------------


def image_sizes(origin: FamilySource, name: str) -> ImageSizes:
    """The image sizes that a model accepts, found by running it on the meta device.

    Raises:
        ValueError: it does not run at its native size.
    """
    native = _load(origin, name).input_size[-1]
    tried = {size for patch in PATCHES for size in range(patch, native, patch)}
    sizes = [size for size in sorted(tried) if size >= MIN_SIZE]
    for size in [*sizes, native]:
        if _runs(origin, name, size):
            return ImageSizes(native, size, origin.size_option)
    raise ValueError(
        f"{name} runs at no size up to its native {native} on the meta device; check its options"
    )


def _runs(origin: FamilySource, name: str, size: int) -> bool:
    try:
        loaded = _load(origin, name, size)
        for training in (False, True):
            loaded.model.train(training)(loaded.example())
    except Exception:  # models raise all kinds of errors for an unsuitable size
        return False
    return True


def _parameters(origin: FamilySource, name: str) -> int:
    return sum(parameter.numel() for parameter in _load(origin, name).model.parameters())


def _load(origin: FamilySource, name: str, size: int | None = None) -> LoadedModel:
    options = dict(origin.options)
    if size is not None and origin.size_option:
        options[origin.size_option] = size
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(name, image_size=size, device="meta", options=options)


def main() -> None:
    """Write the file; with names on the command line, update only these families."""
    parser = argparse.ArgumentParser(description="Update families in families.json.")
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    chosen = parser.parse_args().families
    known = {entry["name"]: entry for entry in _entries()}
    for origin in track(family_sources(), "Describing"):
        if not chosen or origin.name in chosen:
            known[origin.name] = describe(origin)
    ordered = [known[origin.name] for origin in family_sources() if origin.name in known]
    FAMILIES_FILE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _entries() -> list[dict[str, Any]]:
    if not FAMILIES_FILE.exists():
        return []
    entries: list[dict[str, Any]] = json.loads(FAMILIES_FILE.read_text(encoding="utf-8"))
    return entries


if __name__ == "__main__":
    main()
