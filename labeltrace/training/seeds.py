"""Random numbers that depend only on the seed of the recipe and the position in the run.

Every sample and every micro-batch has its own seed, derived from the recipe's seed and its position
in the run. A resumed run therefore draws the same numbers as an uninterrupted one, and two
processes draw the same numbers as one process that works on the micro-batches of both.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derive_seed(*key: int | str) -> int:
    """A seed of 63 bits, derived from a key such as `(seed, "sample", epoch, index)`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, accelerators included."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside this context the CPU's global generators are seeded; their state is restored after."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
