"""Writing `families.json` from the installed libraries.

    python -m labeltrace.models_zoo.describing [FAMILY ...]

Papers are those that the libraries' own documentation cites; the smallest member and its image
sizes are found by making every member on the meta device.  Without names every family is described
anew (minutes); families outside timm are those of `OUTSIDE_TIMM`.
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

SMALLEST_SIZE = 32
PATCHES = (14, 16)  # the sizes that are tried are multiples of the usual patches

TEST_MODEL = "test_"  # timm's own, cut down for its tests: nobody's architecture

# Title and number, as timm's and torchvision's documentation write them.
TIMM_PAPER = re.compile(r"`([^`]+)`[^`\n]*?https?://arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})")
TORCHVISION_PAPER = re.compile(r"`([^`]+?)\s*<https?://arxiv\.org/abs/(\d{4}\.\d{4,5})>`")


@dataclass(frozen=True)
class Origin:
    """Where a family comes from; see `labeltrace.models_zoo.Family`.

    `papers` are those that the source's documentation does not name in full.
    """

    name: str
    source: str
    module: str
    options: dict[str, Any] = field(default_factory=dict)
    size_option: str = ""
    papers: tuple[Paper, ...] = ()


def _torchvision(name: str, size_option: str = "", **options: Any) -> Origin:
    module = f"torchvision.models.{name}"
    family = f"torchvision_{name.rpartition('.')[2]}"
    return Origin(family, "torchvision", module, options, size_option)


PVT_PAPER = Paper(
    "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without Convolutions",
    "2102.12122",
)

OUTSIDE_TIMM = (
    _torchvision("alexnet"),
    _torchvision("googlenet", init_weights=False),  # as other models start
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
    Origin(
        "pvt",
        "transformers",
        "labeltrace.models_zoo.pvt",
        size_option="image_size",
        papers=(PVT_PAPER,),
    ),
)


def origins() -> tuple[Origin, ...]:
    """All families: one for each of timm's modules, and those outside timm."""
    modules = timm.list_modules()
    return (*(Origin(name, "timm", f"timm.models.{name}") for name in modules), *OUTSIDE_TIMM)


def describe(origin: Origin) -> dict[str, Any]:
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


def papers(origin: Origin) -> tuple[Paper, ...]:
    """Those that the documentation of the family cites, each once, in its order."""
    found = [*origin.papers, *_cited(origin)]
    return tuple({paper.arxiv: paper for paper in reversed(found)}.values())[::-1]


def _cited(origin: Origin) -> Iterator[Paper]:
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


def image_sizes(origin: Origin, name: str) -> ImageSizes:
    """The images that a model takes, found by running it on the meta device.

    Raises:
        ValueError: it does not even run on its own.
    """
    native = _load(origin, name).input_size[-1]
    tried = {size for patch in PATCHES for size in range(patch, native, patch)}
    sizes = [size for size in sorted(tried) if size >= SMALLEST_SIZE]
    for size in [*sizes, native]:
        if _runs(origin, name, size):
            return ImageSizes(native, size, origin.size_option)
    raise ValueError(f"{name} runs at no size up to its own {native} on the meta device")


def _runs(origin: Origin, name: str, size: int) -> bool:
    try:
        loaded = _load(origin, name, size)
        for training in (False, True):
            loaded.model.train(training)(loaded.example())
    except Exception:  # models say in every way there is that a size does not suit them
        return False
    return True


def _parameters(origin: Origin, name: str) -> int:
    return sum(parameter.numel() for parameter in _load(origin, name).model.parameters())


def _load(origin: Origin, name: str, size: int | None = None) -> LoadedModel:
    options = dict(origin.options)
    if size is not None and origin.size_option:
        options[origin.size_option] = size
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(name, image_size=size, device="meta", options=options)


def main() -> None:
    """Write the file; with names, only the entries of these families."""
    parser = argparse.ArgumentParser(description="Describe families anew in families.json.")
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    chosen = parser.parse_args().families
    known = {entry["name"]: entry for entry in _entries()}
    for origin in track(origins(), "Describing"):
        if not chosen or origin.name in chosen:
            known[origin.name] = describe(origin)
    ordered = [known[origin.name] for origin in origins() if origin.name in known]
    FAMILIES_FILE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _entries() -> list[dict[str, Any]]:
    if not FAMILIES_FILE.exists():
        return []
    entries: list[dict[str, Any]] = json.loads(FAMILIES_FILE.read_text(encoding="utf-8"))
    return entries


if __name__ == "__main__":
    main()
