"""Mix images and say, position by position, which image each part came from.

Labels are distributions over K = 2 *sources*, not over classes: column 0 is the image itself,
column 1 its partner. Class targets are assembled at the end, by `MixedBatch.soft_targets`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labeltrace.errors import LabelError

ROW_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class MixedBatch:
    """Mixed images with their label image and the class of every source.

    Attributes:
        images: (B, C, H, W), dtype, device and memory format of the images that were mixed.
        labels: (B, K, H, W), or (B, K, 1, 1) where every position has the same label. Float32, no
            gradient; a distribution over the K sources at each position.
        classes: (B, K) int64, the class index of every source.
    """

    images: Tensor
    labels: Tensor
    classes: Tensor

    @property
    def mixing_ratio(self) -> Tensor:
        """Mean label over the positions, (B, K) float32: lambda and 1 - lambda of eq. 1.

        `soft_targets(batch.mixing_ratio, ...)` is the target of plain CutMix or MixUp.
        """
        return self.labels.flatten(start_dim=2).mean(dim=2)

    def soft_targets(self, labels: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
        """Turn distributions over sources into distributions over classes.

        Sources of the same class add up. Label smoothing is timm's and DeiT's: a source of weight
        one gives its class `1 - smoothing + smoothing / num_classes`, every other class
        `smoothing / num_classes`.

        The checks on values cost one host synchronisation on an accelerator.

        Args:
            labels: (B, K) floating point, rows summing to one: the labels that an aligned model
                returns beside its logits, or `mixing_ratio`.
            num_classes: number of classes that the logits distinguish.
            smoothing: share of the weight that is spread evenly, in [0, 1).

        Returns:
            (B, num_classes) float32, rows summing to one, no gradient.

        Raises:
            LabelError: labels of the wrong shape, dtype or device, negative, NaN, or with rows that
                do not sum to one within 1e-4; a class index outside of 0 … num_classes - 1;
                num_classes below one; smoothing outside of [0, 1).
        """
        self._check_labels(labels)
        if num_classes < 1:
            raise LabelError(f"soft_targets: num_classes must be at least 1, got {num_classes}.")
        if not 0 <= smoothing < 1:
            raise LabelError(
                f"soft_targets: smoothing must be in [0, 1), got {smoothing}; 0.1 is usual."
            )
        labels = labels.detach().float()
        self._check_values(labels, num_classes)
        targets = labels.new_zeros(labels.shape[0], num_classes)
        targets.scatter_add_(1, self.classes, labels)
        return targets.mul_(1 - smoothing).add_(smoothing / num_classes)

    def _check_labels(self, labels: Tensor) -> None:
        if labels.shape != self.classes.shape:
            raise LabelError(
                f"soft_targets: labels must be (B, K) = {tuple(self.classes.shape)}, got "
                f"{tuple(labels.shape)}; pass the labels that the aligned model returned for this "
                f"batch, or batch.mixing_ratio for the target without alignment."
            )
        if not labels.is_floating_point():
            raise LabelError(
                f"soft_targets: labels must be floating point, got {labels.dtype}; they are "
                f"distributions over sources, not class indices."
            )
        if labels.device != self.classes.device:
            raise LabelError(
                f"soft_targets: labels are on {labels.device}, the batch's classes on "
                f"{self.classes.device}; mix on the device that the model runs on."
            )

    def _check_values(self, labels: Tensor, num_classes: int) -> None:
        wrong_class = (self.classes < 0) | (self.classes >= num_classes)
        # Comparisons with NaN are false, so each test is written to pass good values only.
        wrong_entry = ~(labels >= 0)
        wrong_sum = ~((labels.sum(dim=1) - 1).abs() <= ROW_SUM_TOLERANCE)
        wrong = torch.stack([wrong_class.any(dim=1), wrong_entry.any(dim=1), wrong_sum])
        is_wrong = wrong.any(dim=1).tolist()  # the one host synchronisation
        if not any(is_wrong):
            return

        kind = is_wrong.index(True)
        row = wrong[kind].tolist().index(True)
        if kind == 0:
            raise LabelError(
                f"soft_targets: image {row} has sources of classes {self.classes[row].tolist()}, "
                f"outside of 0 … {num_classes - 1}; num_classes={num_classes} must cover every "
                f"class of the data set."
            )
        fault = "holds a negative number or NaN" if kind == 1 else "does not sum to one"
        raise LabelError(
            f"soft_targets: row {row} of labels {fault}: {labels[row].tolist()}; pass the labels "
            f"of an aligned model, not its logits, and keep them in float32."
        )


@dataclass(frozen=True)
class CutMix:
    """Paste a box of a partner image into every image (Yun et al., 2019; eq. 1 of TL-Align).

    One box for the whole batch. Its sides are `sqrt(1 - lambda)` of the image's with lambda drawn
    from Beta(alpha, alpha); its centre is uniform over the image, pixels rather than patches, and
    what sticks out is cut off. Labels say where every pixel really came from, so their mean is the
    exact mixing ratio. In eq. 1 the image itself is X1 and the mask M is 1 outside of the box.

    Attributes:
        alpha: concentration of the Beta distribution, finite and above 0.
        prob: probability that a batch is mixed at all, in [0, 1].

    Raises:
        LabelError: alpha or prob outside of its range.
    """

    alpha: float = 1.0
    prob: float = 1.0

    def __post_init__(self) -> None:
        _check_settings("CutMix", self.alpha, self.prob)

    def __call__(
        self, images: Tensor, targets: Tensor, *, generator: torch.Generator | None = None
    ) -> MixedBatch:
        """Mix a batch. The arguments are left as they are.

        The partners are a random permutation of the batch, which may leave an image with itself. A
        batch that `prob` leaves unmixed is copied: every label is source 0, and every image is its
        own partner.

        The check for negative targets costs one host synchronisation on an accelerator; a generator
        on an accelerator costs another.

        Args:
            images: (B, C, H, W), any dtype.
            targets: (B,) class indices, any integer dtype, on the device of the images.
            generator: source of every random draw; torch's default CPU generator where None.

        Returns:
            The batch, with labels (B, 2, H, W) of zeros and ones and classes (B, 2).

        Raises:
            LabelError: images or targets of the wrong shape, dtype, batch size or device, or
                negative targets.
        """
        _check_batch("CutMix", images, targets)
        generator = _host_generator(generator)
        own_share, partner = _draw_mix(self.alpha, self.prob, images.shape[0], generator)
        partner = partner.to(images.device)

        batch, _, height, width = images.shape
        side = math.sqrt(1 - own_share)
        rows = _draw_span(height, side, generator)
        columns = _draw_span(width, side, generator)

        mixed = images.clone()  # keeps the memory format
        mixed[:, :, rows, columns] = images[:, :, rows, columns][partner]
        labels = images.new_zeros((batch, 2, height, width), dtype=torch.float32)
        labels[:, 0] = 1
        labels[:, 0, rows, columns] = 0
        labels[:, 1, rows, columns] = 1
        return MixedBatch(mixed, labels, _pair_classes(targets, partner))


@dataclass(frozen=True)
class MixUp:
    """Blend every image with a partner image (Zhang et al., 2018; eq. 1 with a constant mask).

    One lambda for the whole batch, drawn from Beta(alpha, alpha): `lambda * image + (1 - lambda) *
    partner`. Every position has the same label.

    Attributes:
        alpha: concentration of the Beta distribution, finite and above 0.
        prob: probability that a batch is mixed at all, in [0, 1].

    Raises:
        LabelError: alpha or prob outside of its range.
    """

    alpha: float = 0.8
    prob: float = 1.0

    def __post_init__(self) -> None:
        _check_settings("MixUp", self.alpha, self.prob)

    def __call__(
        self, images: Tensor, targets: Tensor, *, generator: torch.Generator | None = None
    ) -> MixedBatch:
        """Mix a batch. The arguments are left as they are.

        The partners are a random permutation of the batch, which may leave an image with itself. A
        batch that `prob` leaves unmixed is copied: every label is source 0, and every image is its
        own partner.

        The check for negative targets costs one host synchronisation on an accelerator; a generator
        on an accelerator costs another.

        Args:
            images: (B, C, H, W), floating point.
            targets: (B,) class indices, any integer dtype, on the device of the images.
            generator: source of every random draw; torch's default CPU generator where None.

        Returns:
            The batch, with labels (B, 2, 1, 1) holding lambda and 1 - lambda and classes (B, 2).

        Raises:
            LabelError: images or targets of the wrong shape, dtype, batch size or device, or
                negative targets.
        """
        _check_batch("MixUp", images, targets)
        if not images.is_floating_point():
            raise LabelError(
                f"MixUp: images must be floating point, got {images.dtype}, which cannot hold a "
                f"blend; convert them first, such as images.float() / 255."
            )
        generator = _host_generator(generator)
        own_share, partner = _draw_mix(self.alpha, self.prob, images.shape[0], generator)
        partner = partner.to(images.device)

        # In place on a clone, because that keeps the memory format whatever the sizes.
        mixed = images.clone().lerp_(images[partner], 1 - own_share)
        labels = images.new_empty((images.shape[0], 2, 1, 1), dtype=torch.float32)
        labels[:, 0] = own_share
        labels[:, 1] = 1 - own_share
        return MixedBatch(mixed, labels, _pair_classes(targets, partner))


def _draw_mix(
    alpha: float, prob: float, batch: int, generator: torch.Generator | None
) -> tuple[float, Tensor]:
    """Draw the share that each image keeps (lambda) and the partner of each: (B,) int64."""
    if _draw_uniform(generator) >= prob:
        return 1.0, torch.arange(batch, device="cpu")
    return _draw_beta(alpha, generator), torch.randperm(batch, generator=generator, device="cpu")


def _draw_span(size: int, ratio: float, generator: torch.Generator | None) -> slice:
    """Draw one side of a box: `ratio * size` pixels around a uniform centre, cut to the image."""
    centre = size * _draw_uniform(generator)
    half = size * ratio / 2
    return slice(max(0, round(centre - half)), min(size, round(centre + half)))


def _draw_uniform(generator: torch.Generator | None) -> float:
    return torch.rand((), generator=generator, dtype=torch.float64, device="cpu").item()


def _draw_beta(alpha: float, generator: torch.Generator | None) -> float:
    """Draw from Beta(alpha, alpha), as X / (X + Y) of two Gamma(alpha) variables.

    `torch.distributions` takes no generator, and both gammas underflow to zero for a small alpha.
    So in logarithms: Gamma(alpha) is Gamma(alpha + 1) * U ** (1 / alpha), -log U is exponential.
    """
    concentration = torch.full((2,), alpha + 1, dtype=torch.float64, device="cpu")
    gamma = torch._standard_gamma(concentration, generator=generator)
    exponential = torch.empty_like(gamma).exponential_(generator=generator)
    log_gamma = gamma.log() - exponential / alpha
    return (log_gamma[0] - log_gamma[1]).sigmoid().item()


def _host_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """Return a generator for draws on the CPU, where boxes and ratios are needed as numbers.

    A generator of another device seeds one with a single draw, hence a single synchronisation.
    """
    if generator is None or generator.device.type == "cpu":
        return generator
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return torch.Generator("cpu").manual_seed(int(seed.item()))


def _pair_classes(targets: Tensor, partner: Tensor) -> Tensor:
    targets = targets.long()
    return torch.stack([targets, targets[partner]], dim=1)


def _check_settings(mixer: str, alpha: float, prob: float) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise LabelError(
            f"{mixer}: alpha must be finite and above 0, got {alpha}; "
            f"to switch mixing off, set prob=0."
        )
    if not 0 <= prob <= 1:
        raise LabelError(f"{mixer}: prob must be a probability in [0, 1], got {prob}.")


def _check_batch(mixer: str, images: Tensor, targets: Tensor) -> None:
    for name, tensor in (("images", images), ("targets", targets)):
        if not isinstance(tensor, Tensor):
            raise LabelError(
                f"{mixer}: {name} must be a torch.Tensor, got {type(tensor).__name__}; "
                f"mix after the data loader's collate function."
            )
    if images.ndim != 4 or images.numel() == 0:
        raise LabelError(
            f"{mixer}: images must be (B, C, H, W) and not empty, got {tuple(images.shape)}; "
            f"mixing works on a whole batch."
        )
    if targets.shape != images.shape[:1]:
        raise LabelError(
            f"{mixer}: targets must be (B,) = ({images.shape[0]},), one class index an image, got "
            f"{tuple(targets.shape)}; turn one-hot targets into indices with targets.argmax(1)."
        )
    if targets.dtype == torch.bool or targets.is_floating_point() or targets.is_complex():
        raise LabelError(
            f"{mixer}: targets must be integer class indices, got {targets.dtype}; "
            f"convert them with targets.long()."
        )
    if targets.device != images.device:
        raise LabelError(
            f"{mixer}: targets are on {targets.device}, images on {images.device}; "
            f"move both to the same device."
        )
    negative = targets.long() < 0  # comparisons are not implemented for every unsigned type
    if negative.any():
        row = negative.tolist().index(True)
        raise LabelError(
            f"{mixer}: target {row} is {targets[row].item()}, but class indices start at 0; "
            f"leave out images without a class before mixing."
        )
