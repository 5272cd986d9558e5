"""Aligned training with Hugging Face Accelerate: batches mixed on the device, behind its loader.

Accelerate splits, sends and gathers tensors.  Mixing comes after all that, so that every process
mixes its own share and no loader has to know of labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from labeltrace.mixing import MixedBatch
from labeltrace.plugins.mixer_types import BatchMixer


@dataclass(frozen=True)
class MixedLoader:
    """A prepared loader whose batches are mixed where it put them.

    Attributes:
        loader: what `accelerator.prepare` made of a `DataLoader`; yields images (B, C, H, W) and
            class indices (B,).
        mixer: mixes a batch.
    """

    loader: Any
    mixer: BatchMixer

    def __iter__(self) -> Iterator[MixedBatch]:
        """Go once over the loader.

        Raises:
            LabelError: what the mixer refuses.
        """
        batches: Iterable[Any] = self.loader
        for images, targets in batches:
            yield self.mixer(images, targets)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        """What else the loader has: `set_epoch`, `dataset`."""
        if name == "loader":  # asked for before it is set, by a copy that is being made
            raise AttributeError(name)
        return getattr(self.loader, name)
