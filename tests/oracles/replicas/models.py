"""Tiny models of each family, with a replica for each: what the tests are parametrised over.

Sizes are distinct and mostly prime, so that no axis can stand in for another, and every parameter
is drawn at random, so that nothing hides behind a zero bias or a layer scale of 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers import GatedMlp
from timm.models.convnext import ConvNeXt
from timm.models.deit import VisionTransformerDistilled
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer, SwinTransformerStage
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from . import convnext, mixer, resnet, swin, swin_v2, vision_transformer
from .dense import expect

AlignedLabels = Callable[[nn.Module, Tensor, Tensor], Tensor]

NUM_CLASSES = 17


@dataclass(frozen=True)
class ReplicaCase:
    """A tiny model and the label alignment written by hand for its architecture.

    name: for test ids.
    build: makes the model, always with the same weights, in eval mode; global random state stays.
    image_size: rows and columns of its input images (B, 3, rows, columns).
    aligned_labels: replica; (model, images, label image (B, K, rows, columns)) -> (B, K) float64.
    """

    name: str
    build: Callable[[], nn.Module]
    image_size: tuple[int, int]
    aligned_labels: AlignedLabels


def example_inputs(
    case: ReplicaCase, batch: int = 2, sources: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random images (B, 3, H, W) and label image (B, K, H, W), float32; rows of labels sum to one.

    Each image shows its sources in random rectangles, pasted one over the other, and blended with
    noise, so that pixels hold pure and mixed labels and every image differs.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = case.image_size
    images = torch.randn(batch, 3, rows, columns, generator=generator)
    labels = torch.zeros(batch, sources, rows, columns)
    labels[:, 0] = 1
    for image in range(batch):
        for source in range(1, sources):
            top = int(torch.randint(rows // 2, (), generator=generator))
            left = int(torch.randint(columns // 2, (), generator=generator))
            rectangle = (..., slice(top, top + rows // 2 + 1), slice(left, left + columns // 2 + 1))
            labels[image][rectangle] = 0
            labels[image, source][rectangle] = 1
    noise = torch.rand(batch, sources, rows, columns, generator=generator) + 0.01
    noise = noise / noise.sum(dim=1, keepdim=True)
    return images, 0.75 * labels + 0.25 * noise


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Draw every parameter, and the statistics of batch norms, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)

    def around(value: Tensor, center: float, spread: float) -> None:
        noise = torch.rand(value.shape, generator=generator)
        value.copy_(center + spread * (2 * noise - 1))

    for name, parameter in model.named_parameters():
        last = name.rsplit(".", 1)[-1]
        if last in ("pos_embed", "cls_token", "reg_token", "dist_token"):
            around(parameter, 0.0, 1.0)
        elif last == "relative_position_bias_table":
            around(parameter, 0.0, 2.0)
        elif last == "logit_scale":
            around(parameter, 1.0, 1.0)
        elif parameter.ndim > 1 and last == "weight":
            fan_in = parameter[0].numel()
            around(parameter, 0.0, 2.5 / math.sqrt(fan_in))
        elif "bias" in last or last == "beta":
            around(parameter, 0.0, 0.5)
        else:  # scales: of norms, of layer scale, of ResMLP's affine
            around(parameter, 1.0, 0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            around(module.running_mean, 0.0, 0.5)
            around(module.running_var, 1.0, 0.5)


def _build(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # timm draws first weights from the global state
        model = make()
    randomise(model, seed)
    return model.eval()


def _vision_transformer(
    written_out: bool = False, kind: type[VisionTransformer] = VisionTransformer, **changes: Any
) -> VisionTransformer:
    settings: dict[str, Any] = {
        "img_size": VISION_TRANSFORMER_IMAGE,
        "patch_size": (4, 3),
        "embed_dim": 33,
        "num_heads": 3,
        "depth": 3,
        "mlp_ratio": 2.0,
        "num_classes": NUM_CLASSES,
    }
    model = kind(**(settings | changes))
    for block in model.blocks:
        attention: Any = expect(block, Block).attn
        attention.fused_attn = not written_out
    return model


def _swin(
    kind: type[SwinTransformer] | type[SwinTransformerV2],
    image_size: tuple[int, int],
    fused: bool = False,
    **changes: Any,
) -> nn.Module:
    settings: dict[str, Any] = {
        "img_size": image_size,
        "patch_size": 2,
        "embed_dim": 15,
        "depths": (2, 2),
        "num_heads": (3, 5),
        "window_size": (3, 5),
        "mlp_ratio": 2.0,
        "num_classes": NUM_CLASSES,
    }
    model = kind(**(settings | changes))
    if fused:
        for stage in model.layers:
            for block in expect(stage, SwinTransformerStage).blocks:
                attention: Any = block.get_submodule("attn")
                attention.fused_attn = True
    return model


def _mixer(**changes: Any) -> MlpMixer:
    settings: dict[str, Any] = {
        "img_size": MIXER_IMAGE,
        "patch_size": (3, 4),
        "embed_dim": 26,
        "num_blocks": 3,
        "mlp_ratio": (0.9, 2.0),
        "num_classes": NUM_CLASSES,
    }
    return MlpMixer(**(settings | changes))


def _convnext(**changes: Any) -> ConvNeXt:
    settings: dict[str, Any] = {
        "depths": (1, 2, 1, 1),
        "dims": (5, 7, 11, 13),
        "num_classes": NUM_CLASSES,
    }
    return ConvNeXt(**(settings | changes))


def _resnet(block: type[BasicBlock] | type[Bottleneck], **changes: Any) -> ResNet:
    settings: dict[str, Any] = {
        "layers": (1, 2, 1, 1),
        "channels": (5, 7, 11, 13),
        "num_classes": NUM_CLASSES,
    }
    make: Any = ResNet  # timm annotates the class of blocks as if it were a block
    return make(block, **(settings | changes))


@torch.no_grad()
def _pruned(make: Callable[[], nn.Module], pattern: str) -> nn.Module:
    """The model with the second row of each mixing weight set to zero (one output of it)."""
    model = _build(make)
    pruned = [weight for name, weight in model.named_parameters() if pattern in name]
    for weight in pruned:
        weight[1] = 0
    assert pruned, f"no parameter is called like {pattern}"
    return model


VISION_TRANSFORMER_IMAGE = (20, 21)  # 5 x 7 patches
WHOLE_WINDOWS_IMAGE = (24, 40)  # 12 x 20 patches, then 6 x 10: whole windows of 3 x 5
# 11 x 17 patches: padded to whole windows, and to whole 2x2 patches when merged into 6 x 9; these
# padded again, and merged into 3 x 5: one window that is not shifted.
PADDED_WINDOWS_IMAGE = (22, 34)
# 11 x 5 patches, then 6 x 3: windows are shifted down, but not across.
NARROW_IMAGE = (22, 10)
MIXER_IMAGE = (15, 28)  # 5 x 7 patches
CONVNEXT_IMAGE = (44, 76)  # 11 x 19, 5 x 9, 2 x 4 and 1 x 2 positions: 7x7 taps leave the image
RESNET_IMAGE = (27, 41)  # 14 x 21, 7 x 11, 4 x 6, 2 x 3 and 1 x 2 positions


def _case(
    name: str,
    make: Callable[[], nn.Module],
    image_size: tuple[int, int],
    aligned_labels: AlignedLabels,
    pruned: str | None = None,
) -> ReplicaCase:
    build = partial(_build, make) if pruned is None else partial(_pruned, make, pruned)
    return ReplicaCase(name, build, image_size, aligned_labels)


def _vit_case(name: str, **changes: Any) -> ReplicaCase:
    make = partial(_vision_transformer, **changes)
    return _case(name, make, VISION_TRANSFORMER_IMAGE, vision_transformer.aligned_labels)


def _swin_case(name: str, image_size: tuple[int, int], **changes: Any) -> ReplicaCase:
    make = partial(_swin, SwinTransformer, image_size, **changes)
    return _case(name, make, image_size, swin.aligned_labels)


def _swin_v2_case(name: str, image_size: tuple[int, int], **changes: Any) -> ReplicaCase:
    make = partial(_swin, SwinTransformerV2, image_size, **changes)
    return _case(name, make, image_size, swin_v2.aligned_labels)


def _mixer_case(name: str, pruned: str | None = None, **changes: Any) -> ReplicaCase:
    return _case(name, partial(_mixer, **changes), MIXER_IMAGE, mixer.aligned_labels, pruned)


def _convnext_case(
    name: str,
    image_size: tuple[int, int] = CONVNEXT_IMAGE,
    pruned: str | None = None,
    **changes: Any,
) -> ReplicaCase:
    make = partial(_convnext, **changes)
    return _case(name, make, image_size, convnext.aligned_labels, pruned)


def _resnet_case(
    name: str, block: type[BasicBlock] | type[Bottleneck], **changes: Any
) -> ReplicaCase:
    return _case(name, partial(_resnet, block, **changes), RESNET_IMAGE, resnet.aligned_labels)


THREE_STAGES: dict[str, Any] = {"depths": (2, 2, 2), "num_heads": (3, 5, 4)}

CASES: tuple[ReplicaCase, ...] = (
    _vit_case("vit_class_token"),
    _vit_case("vit_written_out_attention", written_out=True),
    _vit_case("vit_average_pool", class_token=False, global_pool="avg"),
    _vit_case(
        "vit_registers", reg_tokens=4, no_embed_class=True, init_values=1e-5, global_pool="avg"
    ),
    _vit_case("vit_qk_norm", qk_norm=True, qkv_bias=False),
    _vit_case("deit_distilled", kind=VisionTransformerDistilled),
    _swin_case("swin", WHOLE_WINDOWS_IMAGE),
    _swin_case("swin_fused_attention", WHOLE_WINDOWS_IMAGE, fused=True),
    _swin_case("swin_padded", PADDED_WINDOWS_IMAGE, **THREE_STAGES),
    _swin_case("swin_narrow", NARROW_IMAGE),
    _swin_v2_case("swin_v2", WHOLE_WINDOWS_IMAGE, pretrained_window_sizes=(7, 0)),
    _swin_v2_case(
        "swin_v2_padded", PADDED_WINDOWS_IMAGE, pretrained_window_sizes=(0, 0, 0), **THREE_STAGES
    ),
    _mixer_case("mixer"),
    _mixer_case("mixer_pruned", pruned="mlp_tokens.fc"),
    _mixer_case("resmlp", block_layer=ResBlock, norm_layer=Affine, mlp_ratio=2.0),
    _mixer_case("gmlp", block_layer=SpatialGatingBlock, mlp_layer=GatedMlp, mlp_ratio=2.0),
    _convnext_case("convnext"),
    _convnext_case("convnext_pruned", pruned="conv_dw.weight"),
    _convnext_case("convnext_v2", use_grn=True, ls_init_value=None, conv_mlp=True),
    _convnext_case(
        "convnext_overlapping_stem", (37, 43), stem_type="overlap", kernel_sizes=(3, 7, 5, 3)
    ),
    _resnet_case("resnet_basic", BasicBlock),
    _resnet_case("resnet_bottleneck", Bottleneck),
    _resnet_case(
        "resnext_deep_stem_gated",
        Bottleneck,
        channels=(6, 10, 12, 14),
        cardinality=2,
        base_width=32,
        stem_type="deep",
        stem_width=6,
        avg_down=True,
        block_args={"attn_layer": "se"},
    ),
)
