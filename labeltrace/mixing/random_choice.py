"""Mix: each draw picks one of several mixing strategies."""

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
    """Switch among mixing strategies, such as MixUp and CutMix in DeiT's recipe (Table 9).

    Mode and partner are those of the strategies, which must agree on them: in batch mode one
    strategy is picked for the whole batch, in pair mode one for each pair, in elem mode one for
    each image. The strategy's own `prob` then decides whether it mixes at all.

    Attributes:
        mixers: the strategies, at least one.
        probabilities: how often each is picked, summing to one; all alike where None.

    Raises:
        LabelError: no strategies, something else among them, strategies of different modes or
            partners; probabilities that are negative, do not sum to one within 1e-6, or are not as
            many as the strategies.
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
        """Mix a batch. The arguments are left as they are.

        The check for negative targets costs one host synchronisation on an accelerator; a generator
        on an accelerator costs another.

        Args:
            images: (B, C, H, W), floating point where one of the strategies is `MixUp`.
            targets: (B,) class indices, any integer dtype, on the device of the images.
            generator: source of every random draw; torch's default CPU generator where None.

        Returns:
            The batch, with classes (B, 2) and labels (B, 2, H, W), or (B, 2, 1, 1) where every
            position of every image has the same label because each draw picked `MixUp`.

        Raises:
            LabelError: the batch cannot be mixed by every one of the strategies.
        """
        return mix("Mix", self.choose, self.mixers, images, targets, generator)

    def choose(self, generator: torch.Generator | None) -> Mixer:
        """Draw a strategy."""
        number = draw_uniform(generator)
        if self.probabilities is None:
            return self.mixers[int(number * len(self.mixers))]
        for mixer, probability in zip(self.mixers, self.probabilities, strict=True):
            if number < probability:
                return mixer
            number -= probability
        return self._last_possible()

    def _last_possible(self) -> Mixer:
        """Return where a draw ends up that rounding pushed beyond the sum of the probabilities."""
        assert self.probabilities is not None
        return [m for m, p in zip(self.mixers, self.probabilities, strict=True) if p > 0][-1]

    def _check_mixers(self) -> None:
        if not self.mixers:
            raise LabelError("Mix: at least one mixing strategy is needed, such as CutMix().")
        for mixer in self.mixers:
            if not isinstance(mixer, Mixer):
                raise LabelError(
                    f"Mix: the strategies must be CutMix, MixUp, PatchMix or BlockMix objects, got "
                    f"{mixer!r}; mixers of other libraries are wrapped by track_mixing."
                )
        settings = {(mixer.mode, mixer.partner) for mixer in self.mixers}
        if len(settings) > 1:
            raise LabelError(
                f"Mix: all strategies must have the same mode and partner, got "
                f"{sorted(settings)}; give each of them the same two."
            )

    def _check_probabilities(self) -> None:
        if self.probabilities is None:
            return
        if len(self.probabilities) != len(self.mixers):
            raise LabelError(
                f"Mix: one probability for each strategy is needed, got {len(self.probabilities)} "
                f"for {len(self.mixers)}."
            )
        wrong = not all(probability >= 0 for probability in self.probabilities)
        if wrong or not math.isclose(sum(self.probabilities), 1, abs_tol=SUM_TOLERANCE):
            raise LabelError(
                f"Mix: probabilities must not be negative and must sum to one, got "
                f"{list(self.probabilities)}."
            )
