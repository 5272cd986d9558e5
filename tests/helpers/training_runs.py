"""A tiny run that tests train, and a program that two processes train it with.

`torchrun -m tests.helpers.training_runs FOLDER` trains with DDP from the start, goes on with FSDP2
from the state of a killed run, and then loses a process.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook

from labeltrace.training import (
    DataSettings,
    MixingSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    ScheduleSettings,
    train,
)

DEAD = 9  # exit code


def tiny(data: Path, **settings: object) -> Recipe:
    """Three updates an epoch, each of four parts."""
    recipe = {
        "model": ModelSettings(
            name="vit_tiny_patch16_224",
            options={
                **{"patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3},
                "pos_drop_rate": 0.2,
            },
            image_size=8,
        ),
        "data": DataSettings(folder=str(data), erasing=0.5, crop_share=1.0, workers=0),
        "mixing": MixingSettings(mode="elem"),
        "optimizer": OptimizerSettings(learning_rate=0.01, clip_norm=1.0),
        "schedule": ScheduleSettings(epochs=2, warmup_epochs=1),
        "batch": 12,
        "accumulation": 4,
        "ema_decay": 0.7,
        "checkpoint_updates": 2,
    }
    return Recipe(**{**recipe, **settings})  # type: ignore[arg-type]


def draw_images(folder: Path) -> Path:
    """Three classes of stripes in noise; 13 images of each to train on, 7 to validate."""
    generator = torch.Generator().manual_seed(1)
    for part, count in (("train", 13), ("val", 7)):
        for number, name in enumerate(("columns", "plain", "rows")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = torch.randint(0, 120, (8, 8, 3), generator=generator, dtype=torch.uint8)
                if number != 1:
                    pixels[
                        (slice(None), slice(0, None, 2)) if number == 0 else slice(0, None, 2)
                    ] += 130
                Image.fromarray(pixels.numpy()).save(folder / part / name / f"{index}.png")
    return folder


def _die_in_the_second_update() -> None:
    steps = []

    def count(*_: object) -> None:
        steps.append(1)
        if len(steps) == 2:
            os._exit(DEAD)

    register_optimizer_step_post_hook(count)


def main(folder: Path) -> None:
    data = folder / "data"
    dist.init_process_group("gloo")
    shared = tiny(data, accumulation=2)
    train(shared, folder / "ddp", engine="ddp", device="cpu")
    train(shared, folder / "fsdp2", engine="fsdp2", device="cpu", resume=True)
    if os.environ["RANK"] == "1":
        _die_in_the_second_update()
    train(tiny(data, accumulation=2, checkpoint_updates=1), folder / "lost", device="cpu")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
