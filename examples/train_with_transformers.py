"""The Hugging Face `Trainer` with aligned CutMix, on a small ViT of that library.

python examples/train_with_transformers.py
"""

from __future__ import annotations

import tempfile

import torch
from small_digits import NUM_CLASSES, accuracy, digits
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

import labeltrace
from labeltrace.plugins.transformers import AlignedTrainer


def collate(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate samples with the input names of `transformers` models."""
    images, targets = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.stack(targets)}


def main(epochs: float = 10, last: int = 1500, folder: str | None = None) -> dict[str, float]:
    """Train; return the results of the evaluation."""
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            image_size=8, patch_size=2, num_channels=1, num_labels=NUM_CLASSES,
            hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=192,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        trainer = AlignedTrainer(  # was Trainer
            model,
            TrainingArguments(
                folder or temporary, num_train_epochs=epochs, per_device_train_batch_size=60,
                learning_rate=2e-3, label_smoothing_factor=0.1, use_cpu=True, report_to="none",
                disable_tqdm=True,
            ),
            mixer=labeltrace.CutMix(),  # new
            data_collator=collate,
            train_dataset=digits(0, last),
            eval_dataset=digits(1500),
            compute_metrics=lambda found: {
                "accuracy": accuracy(*(torch.as_tensor(array) for array in found))
            },
        )  # fmt: skip
        trainer.train()
        values = trainer.evaluate()
        print(f"accuracy {values['eval_accuracy']:.3f}")
        if folder is not None:
            trainer.save_model(folder)
    return values


if __name__ == "__main__":
    main()
