"""Random numbers for mixing, drawn on the CPU from an optional generator."""

from __future__ import annotations

import torch


def host_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """A generator for draws on the CPU, where boxes and ratios are needed as Python numbers.

    A generator of another device seeds a CPU generator with one draw, which costs one
    synchronization.
    """
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return torch.Generator("cpu").manual_seed(int(seed.item()))


def draw_uniform(generator: torch.Generator | None) -> float:
    """Draw from the uniform distribution over [0, 1)."""
    return torch.rand((), generator=generator, dtype=torch.float64, device="cpu").item()


def draw_beta(alpha: float, generator: torch.Generator | None) -> float:
    """Draw from Beta(alpha, alpha), as X / (X + Y) of two Gamma(alpha) variables.

    `torch.distributions` accepts no generator, and both gammas underflow to zero for a small alpha.
    Logarithms avoid this: Gamma(alpha) is Gamma(alpha + 1) * U ** (1 / alpha), and -log U is
    exponential.
    """
    concentration = torch.full((2,), alpha + 1, dtype=torch.float64, device="cpu")
    gamma = torch._standard_gamma(concentration, generator=generator)
    exponential = torch.empty_like(gamma).exponential_(generator=generator)
    log_gamma = gamma.log() - exponential / alpha
    return (log_gamma[0] - log_gamma[1]).sigmoid().item()
