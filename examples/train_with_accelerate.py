"""A loop with Hugging Face Accelerate and aligned CutMix.

accelerate launch examples/train_with_accelerate.py
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from small_digits import NUM_CLASSES, accuracy, digits, small_vit
from torch.utils.data import DataLoader

import labeltrace
from labeltrace.plugins.accelerate import MixedLoader


def main(epochs: int = 10, last: int = 1500) -> list[float]:
    """Train; return the losses of all steps."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = labeltrace.align(small_vit())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loader = DataLoader(digits(0, last), batch_size=30, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = []
    for _ in range(epochs):
        for batch in MixedLoader(loader, labeltrace.CutMix()):
            with accelerator.accumulate(model):
                logits, labels = model(batch.images, batch.labels)
                targets = batch.soft_targets(labels, NUM_CLASSES, smoothing=0.1)
                loss = labeltrace.soft_cross_entropy(logits, targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
    model.eval()
    images, targets = digits(1500).tensors
    with torch.no_grad():
        accelerator.print(f"accuracy {accuracy(model(images), targets):.3f}")
    return losses


if __name__ == "__main__":
    main()
