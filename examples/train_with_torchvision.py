"""The loop of torchvision's reference scripts, with two changed lines and another collate function.

python examples/train_with_torchvision.py
"""

from __future__ import annotations

import torch
from small_digits import NUM_CLASSES, accuracy, digits, small_vit
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import labeltrace
from labeltrace.plugins.torchvision import MixedCollate


def train_one_epoch(model, criterion, optimizer, data_loader, device) -> list[float]:
    """The body of `references/classification/train.py`, without its logging."""
    model.train()
    losses = []
    for image, target in data_loader:
        image, target = image.to(device), target.to(device)
        output, labels = model(image, target.labels)  # was: output = model(image)
        target = target.soft_targets(labels, NUM_CLASSES)  # new
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(epochs: int = 10, last: int = 1500) -> list[float]:
    """Train; return the losses of all steps."""
    torch.manual_seed(0)
    mixup_cutmix = v2.RandomChoice(
        [v2.MixUp(alpha=0.2, num_classes=NUM_CLASSES), v2.CutMix(num_classes=NUM_CLASSES)]
    )
    data_loader = DataLoader(
        digits(0, last), batch_size=60, shuffle=True,
        collate_fn=MixedCollate(labeltrace.track_mixing(mixup_cutmix)),
    )  # fmt: skip
    model = labeltrace.align(small_vit())
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(epochs):
        losses += train_one_epoch(model, criterion, optimizer, data_loader, "cpu")
    model.eval()
    images, targets = digits(1500).tensors
    with torch.no_grad():
        print(f"accuracy {accuracy(model(images), targets):.3f}")
    return losses


if __name__ == "__main__":
    main()
