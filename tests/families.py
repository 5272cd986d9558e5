"""A tiny model of every family that labels must ride through, with dropout and DropPath on.

They are timm's own architectures made small. Sizes are distinct and mostly prime, so that no axis
can stand in for another, and every parameter is drawn at random, so that nothing hides behind a
zero bias or a layer scale of 1e-6.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import timm
import torch
from timm.layers import GatedMlp
from timm.models.convmixer import ConvMixer
from timm.models.metaformer import GroupNorm1, GroupNorm1NoBias, MetaFormer
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from torch import Tensor, nn

import labeltrace
from labeltrace import AlignedModule
from tests.replicas.models import example_inputs, randomise

NUM_CLASSES = 17


@dataclass(frozen=True)
class Family:
    """One architecture, small.

    name: for test ids.
    build: makes the model, always with the same weights, in eval mode; global random state stays.
    image_size: rows and columns of its input images (B, 3, rows, columns).
    """

    name: str
    build: Callable[[], nn.Module]
    image_size: tuple[int, int]


def _build(make: Callable[..., nn.Module], settings: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # timm draws first weights from the global state
        model = make(num_classes=NUM_CLASSES, **settings)
    randomise(model, seed=0)
    return model.eval()


def _family(
    name: str,
    architecture: str | type[nn.Module],
    image_size: tuple[int, int],
    **settings: Any,
) -> Family:
    """A model of timm's by name, or by class where its name allows no other sizes."""
    named = isinstance(architecture, str)
    make = partial(timm.create_model, architecture) if named else architecture
    return Family(name, partial(_build, make, settings), image_size)


# Dropout of the head, of mixing probabilities, of features, and DropPath, where a family has them.
HEAD: dict[str, Any] = {"drop_rate": 0.3}
PATH: dict[str, Any] = HEAD | {"drop_path_rate": 0.3}
FEATURES: dict[str, Any] = PATH | {"proj_drop_rate": 0.2}
ATTENTION: dict[str, Any] = FEATURES | {"attn_drop_rate": 0.2}

VIT_IMAGE = (20, 21)  # 5 x 7 patches
_vit = partial(
    _family,
    image_size=VIT_IMAGE,
    img_size=VIT_IMAGE,
    patch_size=(4, 3),
    embed_dim=33,
    num_heads=3,
    depth=2,
    mlp_ratio=2.0,
    pos_drop_rate=0.2,
    **ATTENTION,
)
# Rotary positions need heads of a multiple of four channels.
_rotary = partial(_vit, embed_dim=24)

SWIN_IMAGE = (22, 34)  # 11 x 17 patches: padded to whole windows, then to pairs of patches
_swin = partial(
    _family,
    image_size=SWIN_IMAGE,
    img_size=SWIN_IMAGE,
    patch_size=2,
    embed_dim=15,
    depths=(2, 2),
    num_heads=(3, 5),
    window_size=(3, 5),
    mlp_ratio=2.0,
    **ATTENTION,
)

PYRAMID_IMAGE = (64, 96)  # 16 x 24, 8 x 12, 4 x 6 and 2 x 3 positions
_pyramid = partial(
    _family,
    image_size=PYRAMID_IMAGE,
    embed_dims=(6, 10, 12, 16),
    num_heads=(1, 2, 3, 4),
    mlp_ratios=(2, 2, 2, 2),
    depths=(1, 1, 1, 1),
)

MIXER_IMAGE = (15, 28)  # 5 x 7 patches
_mixer = partial(
    _family,
    image_size=MIXER_IMAGE,
    img_size=MIXER_IMAGE,
    patch_size=(3, 4),
    embed_dim=26,
    num_blocks=2,
    **FEATURES,
)

CONVNEXT_IMAGE = (44, 76)  # 11 x 19, 5 x 9, 2 x 4 and 1 x 2 positions: 7x7 taps leave the image
_convnext = partial(
    _family, image_size=CONVNEXT_IMAGE, depths=(1, 2, 1, 1), dims=(5, 7, 11, 13), **PATH
)

POOLFORMER_IMAGE = (43, 59)  # 11 x 15, 6 x 8, 3 x 4 and 2 x 2 positions
_poolformer = partial(
    _family,
    image_size=POOLFORMER_IMAGE,
    depths=(1, 2, 1, 1),
    dims=(5, 7, 11, 13),
    use_mlp_head=False,
    **FEATURES,
)

RESNET_IMAGE = (59, 83)  # 30 x 42, 15 x 21, 8 x 11, 4 x 6 and 2 x 3 positions
_resnet = partial(_family, image_size=RESNET_IMAGE, layers=(1, 2, 1, 1), **PATH)

FAMILIES: tuple[Family, ...] = (
    _vit("vit", "vit_tiny_patch16_224"),
    _vit("vit_average_pool", "vit_tiny_patch16_224", class_token=False, global_pool="avg"),
    _vit("vit_layer_scale", "vit_tiny_patch16_224", init_values=1e-5),
    _vit(
        "vit_registers",
        "vit_tiny_patch16_224",
        reg_tokens=4,
        no_embed_class=True,
        init_values=1e-5,
        global_pool="avg",
    ),
    _vit("vit_qk_norm", "vit_tiny_patch16_224", qk_norm=True, qkv_bias=False),
    _vit("deit_distilled", "deit_tiny_distilled_patch16_224"),
    _rotary("vit_rotary", "vit_small_patch16_rope_224"),
    _rotary("vit_rotary_mixed", "vit_small_patch16_rope_mixed_224"),
    _rotary("eva02", "eva02_tiny_patch14_224"),
    _swin("swin", "swin_tiny_patch4_window7_224"),
    _swin("swin_v2", "swinv2_tiny_window8_256", pretrained_window_sizes=(7, 0)),
    _swin(
        "swin_v2_cr",
        "swinv2_cr_tiny_ns_224",
        image_size=(24, 40),
        img_size=(24, 40),
    ),
    _swin("swin_s3", "swin_s3_tiny_224", window_size=((3, 5), (6, 9))),
    _pyramid("pvt_v2", "pvt_v2_b0", sr_ratios=(4, 2, 2, 1), **ATTENTION),
    _pyramid("pvt_v2_linear", "pvt_v2_b2_li", sr_ratios=(4, 2, 2, 1), **ATTENTION),
    _pyramid(
        "twins_pcpvt",
        "twins_pcpvt_small",
        img_size=PYRAMID_IMAGE,
        sr_ratios=(4, 2, 2, 1),
        **ATTENTION,
    ),
    _pyramid(
        "twins_svt",
        "twins_svt_small",
        img_size=PYRAMID_IMAGE,
        depths=(2, 1, 2, 1),
        wss=(5, 5, 3, 3),  # windows that the map does not fill: it is padded
        sr_ratios=(4, 2, 2, 1),
        **ATTENTION,
    ),
    _mixer("mlp_mixer", MlpMixer, mlp_ratio=(0.9, 2.0)),
    _mixer("resmlp", MlpMixer, mlp_ratio=2.0, block_layer=ResBlock, norm_layer=Affine),
    _mixer("gmlp", MlpMixer, mlp_ratio=2.0, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp),
    _convnext("convnext", "convnext_tiny"),
    _convnext("convnext_v2", "convnextv2_tiny"),
    _family("convmixer", ConvMixer, (35, 43), dim=13, depth=2, kernel_size=5, patch_size=4, **HEAD),
    _poolformer(
        "poolformer",
        MetaFormer,
        downsample_norm=None,
        mlp_act=nn.GELU,
        mlp_bias=True,
        norm_layers=GroupNorm1,
        layer_scale_init_values=1e-5,
        res_scale_init_values=None,
    ),
    _poolformer("poolformer_v2", MetaFormer, norm_layers=GroupNorm1NoBias),
    _resnet("resnet", "resnet18", channels=(5, 7, 11, 13)),
    _resnet("resnext", "resnext50_32x4d", channels=(6, 10, 12, 14), cardinality=2, base_width=32),
    _resnet("resnet_d", "resnet26d", channels=(5, 7, 11, 13), stem_width=6),
    _resnet("se_resnet", "seresnet50", channels=(5, 7, 11, 13)),
    _resnet("eca_resnet", "ecaresnet26t", channels=(5, 7, 11, 13), stem_width=6),
    _resnet("sk_resnet", "skresnet18", channels=(16, 24, 32, 40)),
    _resnet("resnest", "resnest26d", channels=(6, 10, 12, 14), stem_width=6),
)

every_family = pytest.mark.parametrize(
    # With the scope of a session, the tests of one family run one after the other, whatever file
    # they stand in, and share its captures.
    "family",
    FAMILIES,
    ids=lambda family: family.name,
    scope="session",
)


@functools.cache
def aligned_family(family: Family) -> AlignedModule:
    """The family's model, aligned; shared, so that each mode is captured once a process."""
    return labeltrace.align(family.build())


def fresh(family: Family, training: bool) -> AlignedModule:
    """The shared aligned model, in the given mode and with its first weights and statistics."""
    aligned = aligned_family(family)
    aligned.load_state_dict(family.build().state_dict())
    return aligned.train(training)


def example(
    family: Family, batch: int = 2, sources: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) and a label image (B, K, H, W) that differ from pixel to pixel."""
    return example_inputs(family, batch, sources, seed)  # type: ignore[arg-type]
