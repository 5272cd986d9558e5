"""Compare CutMix, last-layer alignment and full alignment over several seeds.

    python examples/compare_alignments.py                      # digits, offline
    python examples/compare_alignments.py --data CIFAR_FOLDER  # CIFAR-10 or CIFAR-100

Only the targets differ between the three: weights, order, augmentation and boxes depend only on the
seed. The script prints a Markdown table with a row for each model and alignment: accuracy after the
last epoch (mean and standard deviation over the seeds), the difference to CutMix with the same
seed, and wall time. Runs are kept, and finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeltrace.training import PRESETS, Recipe, train, with_changes


@dataclass(frozen=True)
class Outcome:
    """Accuracy after the last epoch in [0, 1], and wall time of all epochs in seconds."""

    accuracy: float
    seconds: float


ALIGNMENTS = {"off": "CutMix", "last": "last layer (TransMix)", "full": "full (TL-Align)"}

DIGITS = {"model.image_size": 8, "batch": 64}
CIFAR = {
    **{"model.image_size": 32, "batch": 128, "optimizer.learning_rate": 1e-3},
    **{"data.flip": 0.5, "data.scale": (0.5, 1.0), "data.workers": 2},
}


def models(cells: int) -> dict[str, dict[str, Any]]:
    """A ViT and a Swin with `cells` × `cells` tokens for an image."""
    patch = {4: 2, 8: 4}[cells]
    return {
        "ViT": {
            "model.name": "vit_tiny_patch16_224",
            "model.options": {
                **{"patch_size": patch, "embed_dim": 48, "depth": 4, "num_heads": 3},
            },
        },
        "Swin": {
            "model.name": "swin_tiny_patch4_window7_224",
            "model.options": {
                **{"patch_size": patch, "embed_dim": 32, "window_size": cells // 2},
                **{"depths": (2, 2), "num_heads": (2, 4)},
            },
        },
    }


def recipe(model: dict[str, Any], alignment: str, seed: int, arguments: Any) -> Recipe:
    """The recipe of one run."""
    changes = {
        **(DIGITS if arguments.data is None else CIFAR),
        **model,
        "data.folder": arguments.data,
        "mixing.align": alignment,
        "schedule.epochs": arguments.epochs,
        "schedule.warmup_epochs": max(1, arguments.epochs // 10),
        "seed": seed,
    }
    return with_changes(PRESETS["digits"], changes)


def row(name: str, alignment: str, results: dict[tuple[str, int], Outcome], seeds: range) -> str:
    """One row of the table."""
    accuracies = [100 * results[alignment, seed].accuracy for seed in seeds]
    plain = [100 * results["off", seed].accuracy for seed in seeds]
    gains = [own - other for own, other in zip(accuracies, plain, strict=True)]
    seconds = statistics.mean(results[alignment, seed].seconds for seed in seeds)
    gain = "" if alignment == "off" else _mean_and_deviation(gains, sign="+")
    accuracy = _mean_and_deviation(accuracies)
    return f"| {name} | {ALIGNMENTS[alignment]} | {accuracy} | {gain} | {seconds:.0f} |"


def _mean_and_deviation(numbers: list[float], sign: str = "") -> str:
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return f"{statistics.mean(numbers):{sign}.2f} ± {deviation:.2f}"


def main() -> None:
    """Train all models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", help="a folder with CIFAR-10 or CIFAR-100; default: digits")
    parser.add_argument("--output", type=Path, default=Path("runs/compare_alignments"))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["ViT", "Swin"])
    parser.add_argument("--device", help="default: an accelerator if available")
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    chosen = {name: models(4 if arguments.data is None else 8)[name] for name in arguments.models}
    rows = ["| model | targets | accuracy, % | against CutMix | seconds a run |", "|---" * 5 + "|"]
    for name, model in chosen.items():
        results = {}
        for seed, alignment in itertools.product(seeds, ALIGNMENTS):
            folder = arguments.output / f"{name}-{alignment}-{seed}"
            result = train(
                recipe(model, alignment, seed, arguments),
                folder,
                resume=True,
                device=arguments.device,
            )
            last = result.history.epochs[-1]
            seconds = sum(epoch.seconds for epoch in result.history.epochs)
            results[alignment, seed] = Outcome(last.validation_accuracy, seconds)
            print(f"{folder.name}: {last.validation_accuracy:.2%}, {seconds:.0f} s", flush=True)
        rows += [row(name, alignment, results, seeds) for alignment in ALIGNMENTS]
    print("\n".join(["", *rows]))


if __name__ == "__main__":
    main()
