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
from timm.layers import BlurPool2d, GatedMlp, GroupNormAct
from timm.models.byobnet import ByoBlockCfg, ByobNet, ByoModelCfg
from timm.models.cait import Cait
from timm.models.convmixer import ConvMixer
from timm.models.crossvit import CrossVit
from timm.models.davit import DaVit
from timm.models.edgenext import EdgeNeXt
from timm.models.efficientvim import EfficientViM
from timm.models.efficientvit_mit import EfficientVit
from timm.models.focalnet import FocalNet
from timm.models.hiera import Hiera
from timm.models.hieradet_sam2 import HieraDet
from timm.models.metaformer import GroupNorm1, GroupNorm1NoBias, MetaFormer
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from timm.models.naflexvit import NaFlexVit, NaFlexVitCfg
from timm.models.nest import Nest
from timm.models.nfnet import NfCfg, NormFreeNet
from timm.models.qwen3_vit import Qwen3VitClassifier
from timm.models.resnetv2 import ResNetV2
from timm.models.sequencer import Sequencer2d
from timm.models.swiftformer import SwiftFormer
from timm.models.tnt import TNT
from timm.models.tresnet import TResNet
from timm.models.vision_transformer_sam import VisionTransformerSAM
from timm.models.volo import VOLO
from timm.models.xcit import Xcit
from torch import Tensor, nn

import labeltrace
from labeltrace import AlignedModule
from tests.oracles.replicas.models import example_inputs, randomise

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
    architecture: str | Callable[..., nn.Module],
    image_size: tuple[int, int],
    **settings: Any,
) -> Family:
    """A model of timm's by name, or by what makes it where its name allows no other sizes."""
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

# Its dropout of probabilities is in place: with it, the plain model cannot be trained.
TNT_IMAGE = (24, 40)  # 3 x 5 patches of 2 x 2 pixels each
_tnt = partial(
    _family,
    architecture=TNT,
    image_size=TNT_IMAGE,
    img_size=TNT_IMAGE,
    patch_size=8,
    embed_dim=15,
    inner_dim=6,
    depth=2,
    num_heads_inner=2,
    num_heads_outer=3,
    pos_drop_rate=0.2,
    **FEATURES,
)


def _bottleneck(name: str, kind: str, image_size: tuple[int, int], **settings: Any) -> Family:
    """A residual network whose first stage is of self-attention over maps of half the image."""
    settings = {"num_heads": 2} | settings
    attention = ByoBlockCfg(
        type="self_attn",
        d=2,
        c=16,
        s=1,
        gs=0,
        br=0.5,
        self_attn_layer=kind,
        self_attn_kwargs=settings,
    )
    last = ByoBlockCfg(type="bottle", d=1, c=22, s=2, gs=0, br=0.5)
    fixed = kind == "bottleneck"
    config = ByoModelCfg(
        blocks=(attention, last), stem_chs=6, stem_type="3x3", stem_pool="", fixed_input_size=fixed
    )
    given = {"img_size": image_size} if fixed else {}
    return _family(name, ByobNet, image_size, cfg=config, **given, **PATH)


NFNET = NfCfg(
    depths=(1, 1, 1, 1),
    channels=(8, 8, 16, 16),
    stem_type="3x3",
    stem_chs=8,
    attn_layer="se",
    attn_kwargs={"rd_ratio": 0.5},
    extra_conv=True,
    num_features=24,
    act_layer="gelu",
    gamma_in_act=True,
)
NAFLEX = NaFlexVitCfg(
    patch_size=(4, 3),
    embed_dim=24,
    depth=1,
    num_heads=3,
    mlp_ratio=2.0,
    pos_embed_grid_size=(3, 4),
    class_token=True,
    reg_tokens=2,
    rope_type="axial",
    attn_type="rope",
    global_pool="map",
    pos_drop_rate=0.2,
    **ATTENTION,
)
MOBILEVIT = {
    "type": "mobilevit",
    "block_kwargs": {"transformer_dim": 12, "transformer_depth": 1, "patch_size": 2},
}
MOBILEVIT_V2 = {
    "type": "mobilevit2",
    "br": 0.5,
    "gs": 1,
    "block_kwargs": {"transformer_depth": 1, "patch_size": 2},
}
LAMBDA = {
    "type": "self_attn",
    "br": 0.5,
    "gs": 0,
    "self_attn_layer": "lambda",
    "self_attn_kwargs": {"r": 3, "dim_head": 4},
}


def mobile(block: dict[str, Any]) -> ByoModelCfg:
    """A convolution with stride two, a bottleneck, and a block of another kind."""
    first = ByoBlockCfg(type="bottle", d=1, c=10, s=2, gs=0, br=0.5)
    last = ByoBlockCfg(d=1, c=12, s=1, **block)
    return ByoModelCfg(blocks=(first, last), stem_chs=6, stem_type="3x3", stem_pool="")


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
    _family(
        "sequencer",
        Sequencer2d,
        (20, 28),  # 5 x 7 patches
        img_size=(20, 28),
        layers=(1, 1),
        patch_sizes=(4, 1),
        embed_dims=(6, 10),
        hidden_sizes=(3, 5),
        mlp_ratios=(2, 2),
        **HEAD,
    ),
    _tnt("tnt"),
    _tnt("tnt_legacy", legacy=True),
    _family(
        "volo",
        VOLO,
        (48, 80),  # 6 x 10 positions in windows of 3 x 3, then 3 x 5 tokens
        img_size=(48, 80),
        layers=(2, 1),
        stem_hidden_dim=6,
        embed_dims=(6, 10, 10, 10),
        num_heads=(3, 2, 2, 2),
        mlp_ratio=2.0,
        use_aux_head=False,
        drop_path_rate=0.3,
        attn_drop_rate=0.2,
        **HEAD,
    ),
    _bottleneck("halonet", "halo", (24, 36), block_size=3, halo_size=1),
    _bottleneck("botnet", "bottleneck", (10, 14)),
    _resnet("resnet", "resnet18", channels=(5, 7, 11, 13)),
    _resnet("resnext", "resnext50_32x4d", channels=(6, 10, 12, 14), cardinality=2, base_width=32),
    _resnet("resnet_d", "resnet26d", channels=(5, 7, 11, 13), stem_width=6),
    _resnet("se_resnet", "seresnet50", channels=(5, 7, 11, 13)),
    _resnet("eca_resnet", "ecaresnet26t", channels=(5, 7, 11, 13), stem_width=6),
    _resnet("sk_resnet", "skresnet18", channels=(16, 24, 32, 40)),
    _resnet("resnest", "resnest26d", channels=(6, 10, 12, 14), stem_width=6),
    # Blur pooling with reflection pads.
    _resnet("blur_resnet", "resnet18", channels=(5, 7, 11, 13), aa_layer=BlurPool2d),
    # Weight-standardised kernels; scaled ones with a gain.
    _family(
        "bit",
        ResNetV2,
        (43, 59),
        layers=(1, 1),
        channels=(12, 20),
        stem_chs=6,
        stem_type="fixed",
        bottle_ratio=0.5,
        norm_layer=partial(GroupNormAct, num_groups=2),
        **PATH,
    ),
    _family(
        "nfnet",
        partial(NormFreeNet, NFNET),
        (43, 59),
        **PATH,
    ),
    # A stem over blocks of 4 x 4 pixels.
    _family("tresnet", TResNet, (52, 76), layers=(1, 1, 1, 1), width_factor=0.125, **PATH),
    # Talking heads, and a class token that joins late.
    _family(
        "cait",
        Cait,
        VIT_IMAGE,
        img_size=VIT_IMAGE,
        patch_size=(4, 3),
        embed_dim=33,
        depth=1,
        num_heads=3,
        mlp_ratio=2.0,
        depth_token_only=1,
        **ATTENTION,
    ),
    # States that gather tokens and are read out again.
    _family(
        "efficientvim",
        EfficientViM,
        (48, 112),
        embed_dim=(16, 24),
        depths=(1, 1),
        mlp_ratio=2.0,
        state_dim=(5, 3),
        **PATH,
    ),
    # Relative positions by einsum, in padded windows.
    _family(
        "sam",
        VisionTransformerSAM,
        (15, 21),
        img_size=(15, 21),
        patch_size=3,
        embed_dim=12,
        depth=2,
        num_heads=2,
        mlp_ratio=2.0,
        use_rel_pos=True,
        window_size=3,
        global_attn_indexes=(1,),
        neck_chans=10,
        **ATTENTION,
    ),
    # Windows that are unrolled once, and pooled queries; windows again at each block.
    _family(
        "hiera",
        Hiera,
        (32, 48),
        img_size=(32, 48),
        embed_dim=6,
        stages=(1, 1),
        q_pool=1,
        mask_unit_size=(2, 2),
        mask_unit_attn=(True, False),
        mlp_ratio=2.0,
        **PATH,
    ),
    _family(
        "sam_2",
        HieraDet,
        (48, 64),
        embed_dim=6,
        stages=(1, 2),
        q_pool=1,
        window_spec=(4, 2),
        global_pos_size=(2, 2),
        global_att_blocks=(2,),
        **PATH,
    ),
    _family(
        "nest",
        Nest,
        (24, 24),
        img_size=24,
        patch_size=3,
        num_levels=2,
        embed_dims=(6, 10),
        num_heads=(1, 2),
        depths=(1, 1),
        mlp_ratio=2.0,
        **ATTENTION,
    ),
    # Linear attention; channels that attend to channels.
    _family(
        "efficientvit_mit",
        EfficientVit,
        (48, 80),
        widths=(4, 6, 8, 10),
        depths=(1, 1, 1, 1),
        head_dim=4,
        expand_ratio=2,
        head_widths=(20, 24),
        **HEAD,
    ),
    _family(
        "xcit",
        Xcit,
        (40, 56),
        img_size=(40, 56),
        patch_size=8,
        embed_dim=12,
        depth=1,
        num_heads=2,
        mlp_ratio=2.0,
        cls_attn_layers=1,
        tokens_norm=True,
        eta=1e-5,
        **PATH,
    ),
    _family(
        "edgenext",
        EdgeNeXt,
        (36, 52),
        dims=(6, 10, 12, 14),
        depths=(1, 1, 1, 1),
        global_block_counts=(0, 1, 0, 0),
        heads=(1, 2, 1, 1),
        d2_scales=(2, 2, 2, 2),
        kernel_sizes=(3, 5, 3, 3),
        expand_ratio=2,
        **PATH,
    ),
    _family(
        "davit",
        DaVit,
        (44, 76),
        depths=(1, 1),
        embed_dims=(6, 10),
        num_heads=(2, 2),
        window_size=3,
        mlp_ratio=2.0,
        **PATH,
    ),
    # Two streams that read each other's tokens through their class tokens.
    _family(
        "cross_vit",
        CrossVit,
        (24, 36),
        img_size=(24, 36),
        patch_size=(4, 6),
        embed_dim=(12, 18),
        depth=((1, 1, 0),),
        num_heads=(2, 3),
        **ATTENTION,
    ),
    # Gated context of growing windows.
    _family(
        "focalnet",
        FocalNet,
        (44, 76),
        embed_dim=6,
        depths=(1, 1),
        focal_levels=(2, 1),
        focal_windows=(3, 3),
        mlp_ratio=2.0,
        **FEATURES,
    ),
    # Attention between the pixels in one place of each patch; gated by a sum over the tokens.
    _family("mobilevit", partial(ByobNet, mobile(MOBILEVIT)), (36, 44), **PATH),
    _family("mobilevit_v2", partial(ByobNet, mobile(MOBILEVIT_V2)), (36, 44), **PATH),
    _family("lambda_resnet", partial(ByobNet, mobile(LAMBDA)), (36, 44), **PATH),
    _family(
        "swiftformer",
        SwiftFormer,
        (44, 76),
        layers=(1, 1, 1, 1),
        embed_dims=(6, 8, 10, 12),
        mlp_ratios=2,
        **FEATURES,
    ),
    # Positions and rotary tables computed in `forward`; pixels in the channel axis of a token.
    _family("naflexvit", partial(NaFlexVit, NAFLEX), VIT_IMAGE, img_size=VIT_IMAGE),
    _family(
        "qwen3_vit",
        Qwen3VitClassifier,
        (24, 40),
        img_size=(24, 40),
        patch_size=4,
        embed_dim=24,
        depth=1,
        num_heads=3,
        mlp_ratio=2.0,
        merge_size=2,
        pos_embed_grid_size=4,
        encoder_pool="merge",
        **ATTENTION,
    ),
)

every_family = pytest.mark.parametrize(
    # With the scope of a session, the tests of one family run one after the other, whatever file
    # they stand in, and share its captures.
    "family",
    FAMILIES,
    ids=lambda family: family.name,
    scope="session",
)


Mode = tuple[bool, bool]
"""Whether a model trains, and whether it runs under autocast."""

MODES: tuple[Mode, ...] = ((False, False), (True, True), (False, True), (True, False))
IN_ALL_MODES = frozenset(
    {
        "vit",
        "deit_distilled",
        "swin",
        "swin_v2",
        "pvt_v2",
        "twins_svt",
        "mlp_mixer",
        "resmlp",
        "gmlp",
        "convnext",
        "convnext_v2",
        "convmixer",
        "poolformer",
        "resnet",
        "tnt",
        "efficientvit_mit",
    }
)


def modes_of(family: Family) -> tuple[Mode, ...]:
    """All modes for the architectures of the paper and some others, two opposite ones for the rest.

    Each mode costs a capture, which takes most of a test's time.
    """
    return MODES if family.name in IN_ALL_MODES else MODES[:2]


family_in_all_modes = pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family.name in IN_ALL_MODES],
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
