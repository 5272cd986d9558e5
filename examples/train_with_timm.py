"""timm's loader, task, optimizer and EMA, with aligned CutMix and MixUp.

    python examples/train_with_timm.py

The lines are from timm's `train.py`; differences are marked.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from small_digits import NUM_CLASSES, accuracy, digits, small_vit
from timm.data import Mixup, create_loader
from timm.optim import create_optimizer_v2
from torch.utils.data import Dataset

import labeltrace
from labeltrace.plugins.timm import AlignedClassificationTask, AlignedCollate


class DigitPictures(Dataset):  # type: ignore[type-arg]
    """The digits like a folder of image files: pictures with timm's transforms."""

    def __init__(self, first: int, last: int) -> None:
        self.samples = digits(first, last)
        self.transform = None  # create_loader sets it

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[object, int]:
        image, target = self.samples[index]
        picture = Image.fromarray((image[0].numpy() * 255).astype(np.uint8)).convert("RGB")
        return self.transform(picture), int(target)


def main(epochs: int = 10, last: int = 1500) -> list[float]:
    """Train; return the losses of all steps."""
    torch.manual_seed(0)
    np.random.seed(0)
    device = torch.device("cpu")
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=NUM_CLASSES)
    loader = create_loader(
        DigitPictures(0, last), input_size=(3, 16, 16), batch_size=60, is_training=True,
        no_aug=True, num_workers=0, device=device,
        collate_fn=AlignedCollate(labeltrace.track_mixing(mixup)),  # was FastCollateMixup(...)
    )  # fmt: skip
    task = AlignedClassificationTask(  # was ClassificationTask
        small_vit(channels=3, size=16), smoothing=0.1, device=device
    )
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="adamw", lr=2e-3)
    task.setup_ema(decay=0.99, use_warmup=True)
    losses = []
    for epoch in range(epochs):
        if epoch == epochs - 1:
            loader.mixup_enabled = False  # timm's --mixup-off-epoch
        task.train()
        for step, (input, target) in enumerate(loader):
            optimizer.zero_grad()
            result = task(input, target)
            result["loss"].backward()
            optimizer.step()
            task.update_ema(step=epoch * len(loader) + step)
            losses.append(result["loss"].item())
    evaluate(task, create_loader(
        DigitPictures(1500, 1797), input_size=(3, 16, 16), batch_size=297, num_workers=0,
        device=device, crop_pct=1.0,
    ))  # fmt: skip
    return losses


@torch.no_grad()
def evaluate(task: AlignedClassificationTask, loader: object) -> None:
    """Print the accuracy of the model and of its averaged weights."""
    task.eval()
    for input, target in loader:  # type: ignore[attr-defined]
        model, ema = (task.get_eval_model(ema=which)(input) for which in (False, True))
        print(f"accuracy {accuracy(model, target):.3f}, EMA {accuracy(ema, target):.3f}")


if __name__ == "__main__":
    main()
