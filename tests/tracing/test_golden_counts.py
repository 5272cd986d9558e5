"""The paper's five terms counted in real models, against counts derived by hand.

Each row is derived from the architecture, in the order of the columns; the sums are written out so
that a person can check them. What the numbers count is said once here:

- spatial mixing: attention; token mixing; convolutions whose windows overlap or leave the image.
- channel mixing: linear layers and 1x1 convolutions over features, strided or not; sums, means and
  norms over channels.
- point-wise: normalization layers, activations, dropout, gates, scales and added constants. Timm
  has its dropout layers in eval mode too, where they do nothing.
- residual: sums of two streams, rotary positions (x cos + rotate(x) sin) among them.
- spatial aggregation: convolutions whose kernel is their stride (patch embedding, down-sampling),
  patch merging, pooling, means over positions.
- copies: operators that return their input in another place of memory or another type. They are
  counted as point-wise too, but how many there are depends on strides and not on the architecture.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import timm
import torch

import labeltrace

COPIES = ("aten.contiguous", "aten.to", "aten.type_as")


@dataclass(frozen=True)
class Counts:
    """The nodes of one model in eval mode."""

    spatial_mixing: int
    channel_mixing: int
    pointwise: int
    residual: int
    spatial_aggregation: int


# In a transformer's block: qkv, proj, fc1, fc2 are four linear layers; two norms, an activation,
# and dropout after proj, fc1 and fc2 are six point-wise steps; two residuals.
GOLDEN: dict[str, Counts] = {
    # 12 blocks. Head. Position embedding, its dropout, last norm, head's dropout. Patch embedding.
    "deit_small_patch16_224": Counts(12, 12 * 4 + 1, 12 * 6 + 4, 12 * 2, 1),
    # A second head, with dropout of its own; the mean of the two is a sum, divided by two.
    "deit_small_distilled_patch16_224": Counts(12, 12 * 4 + 2, 12 * 6 + 4 + 2, 12 * 2 + 1, 1),
    # Two layer scales a block. Queries and keys are each rotated: x cos, -x and rotate(x) sin are
    # point-wise, their sum joins two streams. No position embedding is added.
    "vit_small_patch16_rope_224": Counts(12, 12 * 4 + 1, 12 * (6 + 2 + 2 * 3) + 3, 12 * (2 + 2), 1),
    # Rotated like it, no layer scale. SwiGLU: fc1 gives both halves, one gates the other. Positions
    # are embedded as well. Mean over tokens; timm's weights have no head.
    "eva02_tiny_patch14_224": Counts(12, 12 * 4, 12 * (6 + 1 + 2 * 3) + 4, 12 * (2 + 2), 1 + 1),
    # 2 + 2 + 6 + 2 blocks; queries are scaled. Norms of patches, of three mergings and the last
    # one, head's dropout. Patch embedding, three mergings, mean over tokens.
    "swin_tiny_patch4_window7_224": Counts(
        12, 12 * 4 + 1, 12 * (6 + 1) + 1 + 3 + 2, 12 * 2, 1 + 3 + 1
    ),
    # Cosine attention: norms of queries and keys are sums over channels; they are clamped and
    # divide.
    "swinv2_tiny_window8_256": Counts(
        12, 12 * (4 + 2) + 1, 12 * (6 + 2 * 2) + 1 + 3 + 2, 12 * 2, 1 + 3 + 1
    ),
    # The same, with a norm at the end of each of four stages in place of the last one.
    "swinv2_cr_tiny_ns_224": Counts(
        12, 12 * (4 + 2) + 1, 12 * (6 + 2 * 2) + 1 + 3 + 4 + 1, 12 * 2, 1 + 3 + 1
    ),
    # Swin with larger windows in the third stage.
    "swin_s3_tiny_224": Counts(12, 12 * 4 + 1, 12 * (6 + 1) + 1 + 3 + 2, 12 * 2, 1 + 3 + 1),
    # 4 x 2 blocks. Attention and the MLP's depth-wise 3x3 in each, and four overlapping patch
    # embeddings. q and kv are two layers. Keys of the first three stages come from non-overlapping
    # convolutions, with norms. Norms of four embeddings and four stages, head's dropout. Mean.
    "pvt_v2_b0": Counts(8 + 8 + 4, 8 * 5 + 1, 8 * 6 + 6 + 4 + 4 + 1, 8 * 2, 6 + 1),
    # 3 + 4 + 6 + 3 blocks. Keys come from pooling to 7x7, a 1x1 convolution, norm and activation in
    # every block; one more activation before the MLP's convolution.
    "pvt_v2_b2_li": Counts(16 + 16 + 4, 16 * 6 + 1, 16 * (6 + 2 + 1) + 4 + 4 + 1, 16 * 2, 16 + 1),
    # 3 + 4 + 6 + 3 blocks, and four depth-wise position encodings, each with a residual. Keys of
    # the first three stages come from 13 non-overlapping convolutions, with norms. Four patch
    # embeddings, each with norm and dropout. Last norm, head's dropout. Mean.
    "twins_pcpvt_small": Counts(
        16 + 4, 16 * 5 + 1, 16 * 6 + 13 + 4 * 2 + 2, 16 * 2 + 4, 4 + 13 + 1
    ),
    # 2 + 2 + 10 + 4 blocks: every other one attends within windows (qkv), the others (q, kv) to
    # keys from 1 + 1 + 5 non-overlapping convolutions, with norms; the last stage has none.
    "twins_svt_small": Counts(
        18 + 4, 9 * 4 + 9 * 5 + 1, 18 * 6 + 7 + 4 * 2 + 2, 18 * 2 + 4, 4 + 7 + 1
    ),
    # 8 blocks of two MLPs, each with a norm, an activation and two dropouts. Last norm, head's
    # dropout. Patch embedding, mean.
    "mixer_s16_224": Counts(8 * 2, 8 * 2 + 1, 8 * 2 * 4 + 2, 8 * 2, 1 + 1),
    # 12 blocks: one layer over tokens, then an MLP; two affine maps and two layer scales in the
    # place of norms.
    "resmlp_12_224": Counts(12, 12 * 2 + 1, 12 * (2 + 2 + 3) + 2, 12 * 2, 1 + 1),
    # 30 blocks of one MLP: norm, activation, two dropouts; the gate has a norm and a product.
    "gmlp_ti16_224": Counts(30, 30 * 2 + 1, 30 * (4 + 2) + 2, 30, 1 + 1),
    # 3 + 3 + 9 + 3 blocks: depth-wise 7x7, norm, fc1, activation, dropout, fc2, dropout, layer
    # scale. Norms of the stem, of three down-samplings and the head, its dropout. Stem, three
    # down-samplings, pooling.
    "convnext_tiny": Counts(18, 18 * 2 + 1, 18 * 5 + 1 + 3 + 2, 18, 1 + 3 + 1),
    # Response normalization in the place of layer scale: its norm is over positions, then comes a
    # mean over channels, an epsilon, a quotient, a product, and scale and shift; x is added.
    "convnextv2_tiny": Counts(
        18, 18 * (2 + 1) + 1, 18 * (4 + 4) + 1 + 3 + 2, 18 * 2, 18 + 1 + 3 + 1
    ),
    # 32 blocks: depth-wise and 1x1 convolution, each with activation and norm, as in the stem.
    # Head's dropout. Stem, pooling.
    "convmixer_768_32": Counts(32, 32 + 1, 32 * 4 + 2 + 1, 32, 1 + 1),
    # 2 + 2 + 6 + 2 blocks: pooling less its input, both scaled and added; norm, fc1, activation,
    # dropout, fc2, dropout. Four overlapping embeddings. Norm and dropout of the head. Pooling.
    "poolformer_s12": Counts(4, 12 * 2 + 1, 12 * (2 + 2 + 3) + 2, 12 * 3, 12 + 1),
    # No layer scale: pooling less its input, plus the stream is one sum. StarReLU is relu, square,
    # scale, shift. In the last two stages the stream is scaled before both sums. Norms of the stem
    # and of three down-samplings.
    "poolformerv2_s12": Counts(4, 12 * 2 + 1, 12 * (2 + 4 + 2) + 8 * 2 + 1 + 3 + 2, 12 * 2, 12 + 1),
    # Stem 7x7 and 8 blocks of two 3x3, all with norm and activation; three 1x1 short cuts with
    # norm. Head. Maximum and last pooling.
    "resnet18": Counts(1 + 16, 3 + 1, 17 * 2 + 3, 8, 2),
    # 3 + 4 + 6 + 3 blocks of 1x1, grouped 3x3, 1x1; four short cuts.
    "resnext50_32x4d": Counts(1 + 16, 16 * 2 + 4 + 1, (1 + 48) * 2 + 4, 16, 2),
    # Squeeze and excitation: mean, two 1x1 with activation and sigmoid, product.
    "seresnet50": Counts(1 + 16, 16 * (2 + 2) + 4 + 1, (1 + 48) * 2 + 16 * 3 + 4, 16, 16 + 2),
    # Deep stem of three 3x3; 8 blocks; three short cuts with average pooling. ECA: mean, a
    # convolution along channels, sigmoid, product.
    "ecaresnet26t": Counts(3 + 8, 8 * (2 + 1) + 4 + 1, (3 + 24) * 2 + 8 * 2 + 4, 8, 8 + 3 + 2),
    # Deep stem; three short cuts with average pooling.
    "resnet26d": Counts(3 + 8, 8 * 2 + 4 + 1, (3 + 24) * 2 + 4, 8, 3 + 2),
    # 8 blocks: two 3x3 paths, stacked, and a 3x3. The selection sums the paths, takes the mean, two
    # 1x1 with one norm and activation, softmax; product, and its sum over the paths, which mixes.
    "skresnet18": Counts(1 + 8 * (3 + 1), 8 * 2 + 3 + 1, 2 + 8 * (3 * 2 + 2 + 2) + 3, 8, 8 * 2 + 2),
    # Deep stem; 8 blocks: 1x1, grouped 3x3, 1x1. Split attention: two sums over the radix, which is
    # channels; mean, two 1x1 with one norm and activation, softmax, product. Average pooling where
    # maps shrink: three in the blocks, three in the short cuts.
    "resnest26d": Counts(
        3 + 8, 8 * (2 + 2 + 2) + 4 + 1, (3 + 24) * 2 + 8 * (2 + 2) + 4, 8, 8 + 3 + 3 + 2
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_are_those_derived_by_hand(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        images = torch.empty(2, *model.pretrained_cfg["input_size"])
    trace = labeltrace.trace(model, images)
    counts = trace.counts()
    copies = [n for n in trace.nodes if n.operator in COPIES and n.operation == "pointwise"]
    found = Counts(
        counts["spatial mixing"],
        counts["channel mixing"],
        counts["pointwise"] - len(copies),
        counts["residual"],
        counts["spatial aggregation"],
    )
    assert found == GOLDEN[name]
    # Every node is in one class.
    assert sum(counts.values()) == len(trace.nodes)
