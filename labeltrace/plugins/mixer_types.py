"""What the plug-ins take for a mixer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from labeltrace.mixing import MixedBatch

# `labeltrace.CutMix()`, `labeltrace.RandomChoice([...])`, `labeltrace.track_mixing(...)`: called with
# images (B, C, H, W) and class indices (B,).
BatchMixer = Callable[[Tensor, Tensor], MixedBatch]
