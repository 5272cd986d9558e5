"""A Lightning module with aligned CutMix.

python examples/train_with_lightning.py
"""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from small_digits import digits, small_vit
from torch.utils.data import DataLoader

import labeltrace
from labeltrace.plugins.lightning import AlignedClassifier


class Digits(AlignedClassifier):
    """The classifier with its optimizer."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the plain model's parameters."""
        return torch.optim.AdamW(self.model.parameters(), lr=2e-3)


def main(epochs: int = 10, last: int = 1500) -> dict[str, float]:
    """Train; return the last logged values."""
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(
        Digits(small_vit(), labeltrace.CutMix(), smoothing=0.1),
        DataLoader(digits(0, last), batch_size=60, shuffle=True),
        DataLoader(digits(1500), batch_size=297),
    )
    values = {name: value.item() for name, value in trainer.callback_metrics.items()}
    print(f"accuracy {values['val_accuracy']:.3f}")
    return values


if __name__ == "__main__":
    main()
