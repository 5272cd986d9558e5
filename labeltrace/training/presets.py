"""Recipes to start from."""

from __future__ import annotations

from labeltrace.training.recipe import (
    DataSettings,
    MixingSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
)

DIGITS = Recipe(
    model=ModelSettings(
        name="vit_tiny_patch16_224",
        options={"patch_size": 2, "embed_dim": 48, "depth": 4, "num_heads": 3},
        image_size=8,
    ),
    data=DataSettings(scale=(0.7, 1.0), flip=0.0, color_jitter=0.0, crop_share=1.0, workers=0),
    mixing=MixingSettings(patch=2),
    optimizer=OptimizerSettings(learning_rate=2e-3, clip_norm=1.0),
    schedule=ScheduleSettings(epochs=40, warmup_epochs=4),
    batch=64,
)
"""A small ViT on scikit-learn's digits, 8 × 8 pixels: offline, on a CPU."""

DEIT_SMALL = Recipe(
    model=ModelSettings(name="deit_small_patch16_224", options={"drop_path_rate": 0.1}),
    data=DataSettings(auto_augment="rand-m9-mstd0.5-inc1", erasing=0.25, repeats=3, workers=8),
    mixing=MixingSettings(strategy="cutmix", alpha=1.0, align="full", smoothing=0.1),
    optimizer=OptimizerSettings(learning_rate=5e-4, reference_batch=512, weight_decay=0.05),
    schedule=ScheduleSettings(epochs=300, warmup_epochs=5),
    batch=1024,
    precision="fp16",
)
"""DeiT-S with TL-Align: the last row of Table 9 of the paper (80.6% on ImageNet-1K).

Epochs, warm-up, learning rate, weight decay, no EMA, CutMix only and random erasing are from the
table. The remaining settings are from DeiT (Touvron et al., arXiv:2012.12877, Table 9): batches of
1024, the learning rate for 512 images, AdamW, cosine schedule, RandAugment 9/0.5, repeated
augmentation, erasing 0.25, stochastic depth 0.1, label smoothing 0.1.
"""

PRESETS = {"digits": DIGITS, "deit-small": DEIT_SMALL}
