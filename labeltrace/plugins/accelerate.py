"""Aligned training with Hugging Face Accelerate: batches are mixed on the device, after loading.

Accelerate splits, sends and gathers tensors. Batches are mixed after that, so every process mixes
its own share, and the loader needs no labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from labeltrace.mixing import MixedBatch
from labeltrace.mixing.batch import BatchMixer


@dataclass(frozen=True)
class MixedLoader:
    """A prepared loader whose batches are mixed on their device.

    Attributes:
        loader: the result of `accelerator.prepare` for a `DataLoader`; yields images (B, C, H, W)
            and class indices (B,).
        mixer: mixes a batch.
    """

    loader: Any
    mixer: BatchMixer

    def __iter__(self) -> Iterator[MixedBatch]:
        """Iterate once over the loader.

        Raises:
            LabelError: the mixer cannot mix a batch.
        """
        batches: Iterable[Any] = self.loader
        for images, targets in batches:
            yield self.mixer(images, targets)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the loader, such as `set_epoch` and `dataset`."""
        if name == "loader":  # requested before it is set, while the loader is being copied
            raise AttributeError(name)
        return getattr(self.loader, name)
