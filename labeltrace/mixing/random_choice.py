"""RandomChoice: each draw picks one of several mixing strategies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.errors import LabelError
from labeltrace.mixing.batch import MixedBatch
from labeltrace.mixing.mixer import Mixer, mix
from labeltrace.mixing.sampling import draw_uniform

SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class RandomChoice:
    """Pick a mixing strategy at random, such as MixUp or CutMix in DeiT's recipe (Table 9).

    All strategies must have the same mode and partner. In batch mode one strategy is picked for the
    whole batch, in pair mode one for each pair, in elem mode one for each image. The strategy's own
    `prob` then decides whether it mixes.

    Attributes:
        mixers: the strategies, at least one.
        probabilities: probability of each strategy, summing to one; None for equal probabilities.

    Raises:
        LabelError: there are no strategies, one of them is no strategy, or they differ in mode or
            partner; probabilities are negative, do not sum to one within 1e-6, or are not one for
            each strategy.

    Examples:
        >>> import torch
        >>> from labeltrace import CutMix, MixUp, RandomChoice
        >>> mixer = RandomChoice([CutMix(), MixUp()], [0.5, 0.5])
        >>> batch = mixer(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> batch.images.shape
        torch.Size([4, 3, 32, 32])
    """

    mixers: Sequence[Mixer]
    probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixers", tuple(self.mixers))
        if self.probabilities is not None:
            object.__setattr__(self, "probabilities", tuple(self.probabilities))
        self._check_mixers()
        self._check_probabilities()

    def __call__(
        self, images: Tensor, targets: Tensor, *, generator: torch.Generator | None = None
    ) -> MixedBatch:
        """Mix a batch. The arguments are not modified.

        The check for negative targets costs one host synchronization on an accelerator; a generator
        on an accelerator costs another.

        Args:
            images: (B, C, H, W), floating point if one of the strategies is `MixUp`.
            targets: (B,) class indices, any integer dtype, on the device of the images.
            generator: source of every random draw; None for torch's default CPU generator.

        Returns:
            The batch, with classes (B, 2) and labels (B, 2, H, W), or (B, 2, 1, 1) if every draw
            picked `MixUp`, so that all positions of an image have the same label.

        Raises:
            LabelError: one of the strategies cannot mix the batch.
        """
        return mix("RandomChoice", self.choose, self.mixers, images, targets, generator)

    def choose(self, generator: torch.Generator | None) -> Mixer:
        """Draw a strategy."""
        number = draw_uniform(generator)
        if self.probabilities is None:
            return self.mixers[int(number * len(self.mixers))]
        for mixer, probability in zip(self.mixers, self.probabilities, strict=True):
            if number < probability:
                return mixer
            number -= probability
        return self._last_with_probability()

    def _last_with_probability(self) -> Mixer:
        """The strategy for a draw that, by rounding, exceeds the sum of the probabilities."""
        assert self.probabilities is not None
        return [m for m, p in zip(self.mixers, self.probabilities, strict=True) if p > 0][-1]

    def _check_mixers(self) -> None:
        if not self.mixers:
            raise LabelError(
                "RandomChoice: at least one mixing strategy is needed, such as CutMix()."
            )
        for mixer in self.mixers:
            if not isinstance(mixer, Mixer):
                raise LabelError(
                    f"RandomChoice: the strategies must be CutMix, MixUp, PatchMix or BlockMix "
                    f"objects, got {mixer!r}; wrap mixers of other libraries with track_mixing."
                )
        settings = {(mixer.mode, mixer.partner) for mixer in self.mixers}
        if len(settings) > 1:
            raise LabelError(
                f"RandomChoice: all strategies must have the same mode and partner, got "
                f"{sorted(settings)}; set both to the same values in each."
            )

    def _check_probabilities(self) -> None:
        if self.probabilities is None:
            return
        if len(self.probabilities) != len(self.mixers):
            raise LabelError(
                f"RandomChoice: give one probability for each strategy, got "
                f"{len(self.probabilities)} for {len(self.mixers)}."
            )
        wrong = not all(probability >= 0 for probability in self.probabilities)
        if wrong or not math.isclose(sum(self.probabilities), 1, abs_tol=SUM_TOLERANCE):
            raise LabelError(
                f"RandomChoice: probabilities must not be negative and must sum to one, got "
                f"{list(self.probabilities)}; divide them by their sum."
            )
