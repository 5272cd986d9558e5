"""Mixers of other libraries: sources found by the probe against those that the pixels tell."""

import math
import pickle
import random

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.data.mixup import FastCollateMixup
from torchvision.transforms import v2

from labeltrace import CutMix, LabelError, track_mixing

NUM_CLASSES = 11

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_states():
    return torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state()), random.getstate()


@pytest.fixture(autouse=True)
def own_random_state():
    """The mixers draw from torch's, numpy's and Python's global states: put them back."""
    numpy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        yield
    np.random.set_state(numpy)
    random.setstate(python)


def seed_all(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def told_by_pixels(images, mixed):
    """Try every image as partner, solve each pixel for its weight: (B,) and (B, H, W).

    With three random channels a pixel has one unknown and three equations: only the true partner
    solves them all. An image that none was mixed into is its own partner.
    """
    partners, weights = [], []
    for image, result in enumerate(mixed):
        fits = []
        for other in range(len(images)):
            if other == image:
                continue
            change, whole = result - images[image], images[other] - images[image]
            weight = (change * whole).sum(0) / (whole * whole).sum(0)
            if (change - weight * whole).abs().max() < 1e-6:
                fits.append((other, weight))
        if (result - images[image]).abs().max() < 1e-9:
            fits = [(image, torch.zeros_like(result[0]))]
        ((partner, weight),) = fits
        partners.append(partner)
        weights.append(weight)
    return torch.tensor(partners), torch.stack(weights)


def timm_mixers():
    kinds = {
        "mixup": {"mixup_alpha": 0.2},
        "cutmix": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
        "both": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "prob": 0.8},
        "minmax": {"mixup_alpha": 0.0, "cutmix_minmax": (0.2, 0.8)},
        "uncorrected": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "correct_lam": False},
    }
    for mode in ("batch", "pair", "elem"):
        for kind, settings in kinds.items():
            mixer = Mixup(mode=mode, num_classes=NUM_CLASSES, **settings)
            yield pytest.param(mixer, id=f"timm-{mode}-{kind}")


CUT, BLEND = v2.CutMix(num_classes=NUM_CLASSES), v2.MixUp(alpha=0.4, num_classes=NUM_CLASSES)


def masked(images, targets):
    """A mask of any shape at random, partners at random; images alone are returned."""
    mask = torch.rand(len(images), 1, *images.shape[2:], device=images.device)
    return torch.lerp(images, images[torch.randperm(len(images))], mask.to(images.dtype))


def boxed(images, targets):
    """A mask made like the images, whose pixels it does not look at."""
    mask = torch.zeros_like(images[:, :1], dtype=torch.bool)
    mask[..., 2:5, 3:7] = True
    return torch.where(mask, images.flip(0), images), targets


def swapped(images, targets):
    """Images of nothing but their partner; classes and the ratio in a tuple, as many scripts do."""
    return images.flip(0), targets, targets.flip(0), 0.0


OTHERS = [
    pytest.param(CUT, id="v2.CutMix"),
    pytest.param(BLEND, id="v2.MixUp"),
    pytest.param(v2.RandomChoice([CUT, BLEND]), id="v2.RandomChoice"),
    pytest.param(v2.RandomApply([BLEND]), id="v2.RandomApply"),
    pytest.param(masked, id="a mask"),
    pytest.param(boxed, id="a mask like the images"),
    pytest.param(swapped, id="a swap"),
]
EVERY = [*timm_mixers(), *OTHERS]


@pytest.mark.parametrize("mixer", EVERY)
def test_sources_are_those_that_the_pixels_tell(mixer):
    for seed in range(6):
        images = torch.randn(6, 3, 7, 11, generator=seeded(seed), dtype=torch.float64)
        targets = torch.randint(NUM_CLASSES, (6,), generator=seeded(seed))
        before = images.clone(), targets.clone()

        seed_all(seed)
        result = mixer(images.clone(), targets.clone())
        plain = result[0] if isinstance(result, tuple) else result
        after = random_states()
        seed_all(seed)
        batch = track_mixing(mixer)(images, targets)

        assert random_states() == after
        assert torch.equal(batch.images, plain)
        assert torch.equal(images, before[0]) and torch.equal(targets, before[1])

        partner, weight = told_by_pixels(images, plain)
        expected = torch.stack([1 - weight, weight], dim=1)
        assert batch.labels.dtype == torch.float32
        assert (batch.labels >= 0).all()
        torch.testing.assert_close(batch.labels.double(), expected, rtol=0, atol=5e-7)
        assert torch.equal(batch.classes, torch.stack([targets, targets[partner]], dim=1))

        uncorrected = not getattr(mixer, "correct_lam", True)
        if isinstance(result, tuple) and len(result) == 2 and not uncorrected:
            smoothing = getattr(mixer, "label_smoothing", 0.0)
            soft = batch.soft_targets(batch.mixing_ratio, NUM_CLASSES, smoothing)
            own = result[1] if result[1].is_floating_point() else soft  # RandomApply, not applied
            torch.testing.assert_close(soft, own.float(), rtol=0, atol=1e-6)


def blend_with(weight):
    """A MixUp whose partner is the sample before and has a weight that is given."""

    def blend(images, targets):
        return images * (1 - weight) + images.roll(1, 0) * weight

    return blend


DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weight", [1e-5, 0.004, 0.1, 0.5, 0.999])
def test_small_weights_and_large_batches(dtype, weight):
    """1031 samples of every dtype: the partner is right however little of it there is."""
    images = torch.randn(1031, 2, 1, 3, generator=seeded(0)).to(dtype)
    batch = track_mixing(blend_with(weight))(images, torch.arange(1031))
    assert torch.equal(batch.classes[:, 1], torch.arange(1031).roll(1))
    expected = torch.full_like(batch.labels[:, 1], weight)
    torch.testing.assert_close(batch.labels[:, 1], expected, rtol=0, atol=5e-7)


def test_a_partner_below_the_rounding_is_none():
    batch = track_mixing(blend_with(1e-8))(torch.randn(5, 3, 7, 11), torch.arange(5))
    assert torch.equal(batch.classes[:, 0], batch.classes[:, 1])
    assert (batch.labels[:, 0] == 1).all()


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("mixer", EVERY)
def test_half_precision_is_mixed_in_single_precision_and_rounded_once(mixer, dtype):
    given = torch.randn(6, 3, 7, 11, generator=seeded(1)).to(dtype)
    given = given.to(memory_format=torch.channels_last)
    seed_all(1)
    single = track_mixing(mixer)(given.float(), torch.arange(6))
    seed_all(1)
    batch = track_mixing(mixer)(given, torch.arange(6))
    assert torch.equal(batch.images, single.images.to(dtype))
    assert batch.images.stride() == given.stride()
    assert torch.equal(batch.labels, single.labels)
    assert torch.equal(batch.classes, single.classes)


@pytest.mark.parametrize("mixer", [CUT, Mixup(mixup_alpha=0, cutmix_alpha=1)], ids=["v2", "timm"])
def test_bytes_are_pasted(mixer):
    images = torch.randint(256, (6, 3, 7, 11), generator=seeded(2), dtype=torch.uint8)
    for seed in range(5):
        seed_all(seed)
        plain = mixer(images.clone(), torch.arange(6))[0]
        seed_all(seed)
        batch = track_mixing(mixer)(images, torch.arange(6))
        assert torch.equal(batch.images, plain)
        own, theirs = batch.labels.double().split(1, dim=1)
        assert set(own.unique().tolist()) <= {0, 1}
        blend = own * images + theirs * images[batch.classes[:, 1]]
        assert torch.equal(batch.images.double(), blend)


def test_bytes_are_blended_as_well_as_bytes_can():
    def rounded(images, targets):
        return (0.3 * images + 0.7 * images.flip(0)).round().to(torch.uint8)

    images = torch.randint(256, (5, 3, 7, 11), generator=seeded(2), dtype=torch.uint8)
    batch = track_mixing(rounded)(images, torch.arange(5))
    assert batch.classes[:, 1].tolist() == [4, 3, 2, 1, 0]
    expected = torch.tensor([0.3, 0.7]).view(1, 2, 1, 1).expand(5, 2, 7, 11).clone()
    expected[2] = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    torch.testing.assert_close(batch.labels, expected, rtol=0, atol=1 / 255)


@pytest.mark.parametrize("images", [torch.zeros(4, 3, 5, 7), torch.ones(1, 3, 5, 7)])
def test_equal_images_and_a_single_one(images):
    """Sources are told apart by the probe, not by what the images show."""
    batch = track_mixing(BLEND)(images, torch.arange(len(images)))
    assert torch.equal(batch.classes[:, 1], torch.arange(len(images)).roll(1))
    torch.testing.assert_close(batch.labels.sum(1), torch.ones(len(images), 5, 7))


def test_gradients_reach_the_images_and_not_the_labels():
    images = torch.randn(4, 3, 5, 7, requires_grad=True)
    batch = track_mixing(Mixup(mode="elem", num_classes=4))(images, torch.arange(4))
    assert not batch.labels.requires_grad
    batch.images.sum().backward()
    torch.testing.assert_close(images.grad.sum(0), torch.full((3, 5, 7), 4.0))


@needs_cuda
def test_cuda_batches():
    images = torch.randn(6, 3, 7, 11, generator=seeded(1))
    for mixer in (Mixup(num_classes=NUM_CLASSES, mode="elem"), Mixup(cutmix_minmax=(0.2, 0.8))):
        seed_all(1)
        on_cpu = track_mixing(mixer)(images, torch.arange(6))
        seed_all(1)
        on_gpu = track_mixing(mixer)(images.cuda(), torch.arange(6).cuda())
        assert on_gpu.labels.is_cuda and on_gpu.classes.is_cuda
        torch.testing.assert_close(on_gpu.labels.cpu(), on_cpu.labels, rtol=0, atol=1e-6)
        assert torch.equal(on_gpu.classes.cpu(), on_cpu.classes)


# Refusals.


def on_images(mix):
    """A mixer from a function of images alone."""
    return lambda images, targets: mix(images)


def halves(images):
    """The partner on the right is not the one on the left."""
    mixed = images.clone()
    half = images.shape[3] // 2
    mixed[..., :half], mixed[..., half:] = (
        images.roll(1, 0)[..., :half],
        images.roll(2, 0)[..., half:],
    )
    return mixed


def box_of_the_largest(images):
    """As SaliencyMix: where the box goes is read from the partner's pixels."""
    row = images.abs().mean(dim=(0, 1, 3)).argmax()
    mixed = images.clone()
    mixed[:, :, row] = images.flip(0)[:, :, row]
    return mixed


def pasted_where_brighter(images):
    brighter = (images.flip(0) > images).float().mean(dim=1, keepdim=True)
    return torch.lerp(images, images.flip(0), brighter)


def gated_by_a_number(images):
    return images.flip(0) if images.mean().item() > 0 else images.clone()


def color_box(images):
    mixed = images.clone()
    mixed[:, :3, 1:4, 2:5] = images.flip(0)[:, :3, 1:4, 2:5]
    return mixed


def shifted(images):
    return torch.lerp(images, images.flip(0), 0.3).roll(1, 3)


def erased(images):
    mixed = torch.lerp(images, images.flip(0), 0.3)
    mixed[:, :, 2:4, 3:5] = 0
    return mixed


NO_AVERAGE = "image 0 is no average of images: its weights do not sum to one.*in a separate step"
NO_PAIR = "has more than two sources, or more than one partner"
NO_BLEND = "is not the blend of its two sources in every channel and pixel: pixels are moved"
READS_PIXELS = "reads pixels to decide what to mix .aten.*channels that track_mixing appends could"


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        pytest.param(lambda x: x * 2 - 1, NO_AVERAGE, id="scaled"),
        pytest.param(lambda x: (x - 0.45) / 0.22, NO_AVERAGE, id="normalized"),
        pytest.param(
            lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1),
            NO_AVERAGE,
            id="normalized by channel",
        ),
        pytest.param(lambda x: 1.2 * x - 0.2 * x.flip(0), NO_AVERAGE, id="extrapolated"),
        pytest.param(lambda x: torch.maximum(x, x.flip(0)), NO_BLEND, id="maximum"),
        pytest.param(lambda x: (x * x.flip(0)).abs().sqrt(), NO_BLEND, id="geometric mean"),
        pytest.param(lambda x: x + 0.01 * torch.rand_like(x), NO_AVERAGE, id="noise"),
        pytest.param(lambda x: x + 1e-5, NO_AVERAGE, id="offset"),
        pytest.param(lambda x: torch.full_like(x, math.nan), NO_AVERAGE, id="NaN"),
        pytest.param(erased, NO_AVERAGE, id="erased"),
        pytest.param(
            lambda x: 0.5 * x + 0.3 * x.roll(1, 0) + 0.2 * x.roll(2, 0), NO_PAIR, id="three"
        ),
        pytest.param(lambda x: x.lerp(x.roll(1, 0), 0.4).lerp(x.flip(0), 1e-5), NO_PAIR, id="hint"),
        pytest.param(lambda x: x.mean(0, keepdim=True).expand_as(x) + 0, NO_PAIR, id="mean"),
        pytest.param(halves, NO_PAIR, id="two partners"),
        pytest.param(shifted, NO_BLEND, id="shifted"),
        pytest.param(lambda x: x.lerp(x.flip(0), 0.3).flip(3), NO_BLEND, id="mirrored"),
        pytest.param(lambda x: x.lerp(x.flip(0).mT.mT.flip(2), 0.3), NO_BLEND, id="partner turned"),
        pytest.param(lambda x: x.lerp(x.flip(0), 0.3).clamp(-1, 1), NO_BLEND, id="clipped"),
        pytest.param(lambda x: x**2 + 0 * x.flip(0), NO_BLEND, id="squared"),
        pytest.param(
            lambda x: torch.cat([x[:, :1].flip(0), x[:, 1:]], dim=1), NO_BLEND, id="one channel"
        ),
        pytest.param(color_box, NO_BLEND, id="colors only"),
        pytest.param(box_of_the_largest, READS_PIXELS, id="saliency"),
        pytest.param(pasted_where_brighter, READS_PIXELS, id="threshold"),
        pytest.param(gated_by_a_number, READS_PIXELS, id="number"),
    ],
)
def test_what_is_no_mix_of_two_is_refused(mix, words):
    images = torch.randn(6, 3, 7, 11, generator=seeded(0))
    with pytest.raises(LabelError, match=rf"track_mixing\(<lambda>\): .*{words}"):
        track_mixing(on_images(mix))(images, torch.arange(6))


@pytest.mark.parametrize(
    "mix", [shifted, lambda x: x.flip(3), lambda x: x[..., torch.randperm(11)]]
)
def test_moved_pixels_are_noticed_where_no_image_shows_them(mix):
    with pytest.raises(LabelError, match=NO_BLEND):
        track_mixing(on_images(mix))(torch.ones(6, 3, 7, 11), torch.arange(6))


@pytest.mark.parametrize("batch", [4, 8])
def test_three_sources_that_look_like_two_in_binary_are_noticed(batch):
    """Equal shares of 0, 1 and 2 set the same two bits as the same share of 3."""

    def third(images):
        mixed = images.clone()
        mixed[0] = (images[0] + images[1] + images[2]) / 3
        return mixed

    with pytest.raises(LabelError, match=NO_BLEND):
        track_mixing(on_images(third))(torch.zeros(batch, 3, 7, 11), torch.arange(batch))


def test_a_partner_that_does_not_exist_is_noticed():
    """Of five samples, 1 with 4 sets the bits of 5."""

    def three(images):
        mixed = images.clone()
        mixed[0] = (images[0] + images[1] + images[4]) / 3
        return mixed

    with pytest.raises(LabelError, match=NO_PAIR):
        track_mixing(on_images(three))(torch.zeros(5, 3, 7, 11), torch.arange(5))


def soft(targets):
    return torch.nn.functional.one_hot(targets, NUM_CLASSES).float()


@pytest.mark.parametrize(
    ("mixed_targets", "words"),
    [
        (
            lambda t: 0.7 * soft(t) + 0.3 * soft(t).roll(1, 0),
            "image 1 was mixed from images of classes other than those in the mixer's own targets",
        ),
        (
            lambda t: 0.3 * soft(t) + 0.7 * soft(t).flip(0),
            "image 0 was blended at another ratio than the mixer's own targets say",
        ),
        (lambda t: soft(t)[:, :5], "image 0 was mixed from images of classes other than those"),
        (lambda t: soft(t) * math.nan, "image 0 was mixed from images of classes other than"),
    ],
    ids=["roll", "ratio", "class 5 of 5", "NaN"],
)
def test_targets_that_contradict_the_images_are_refused(mixed_targets, words):
    """The first and the last roll to each other too; for them nothing is contradicted."""

    def mixer(images, targets):
        return images.lerp(images.flip(0), 0.3), mixed_targets(targets)

    with pytest.raises(LabelError, match=words):
        track_mixing(mixer)(torch.randn(6, 3, 7, 11), torch.arange(6))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_few_classes_and_smoothing_are_no_contradiction(classes, smoothing):
    mixer = Mixup(mode="elem", num_classes=classes, label_smoothing=smoothing)
    track_mixing(mixer)(torch.randn(8, 3, 7, 11), torch.arange(8) % classes)


@pytest.mark.parametrize(
    ("mixer", "words"),
    [
        (
            lambda x, t: x[..., 1:],
            r"\(6, 8, 7, 11\), torch.float32 .* came back as \(6, 8, 7, 10",
        ),
        (
            lambda x, t: x[:, :3],
            r"came back as \(6, 3, 7, 11\).*crop, resize and convert in a separate step",
        ),
        (lambda x, t: x.double(), "came back as .* torch.float64"),
        (lambda x, t: x.to("meta"), "came back as .* on meta"),
        (
            lambda x, t: {"images": x},
            "must return images, or a tuple that starts with them, got di",
        ),
        (lambda x, t: (), "must return images, or a tuple .*, got tuple"),
    ],
)
def test_unusable_results_are_refused(mixer, words):
    with pytest.raises(LabelError, match=words):
        track_mixing(mixer)(torch.zeros(6, 3, 7, 11), torch.arange(6))


@pytest.mark.parametrize(
    ("mixer", "words"),
    [
        (3, "a mixer must be callable with images and targets, got 3"),
        (CutMix(), "track_mixing: CutMix returns its labels already; use it without"),
        (track_mixing(CUT), "returns its labels already"),
        (FastCollateMixup(), "FastCollateMixup mixes lists of samples.*use timm's Mixup"),
    ],
)
def test_what_is_no_foreign_mixer_is_refused(mixer, words):
    with pytest.raises(LabelError, match=words):
        track_mixing(mixer)


@pytest.mark.parametrize(
    ("images", "targets", "words"),
    [
        (
            [torch.zeros(3, 7, 11)],
            torch.arange(1),
            r"track_mixing\(CutMix\): images must be a torch",
        ),
        (torch.zeros(2, 3, 7, 11), torch.zeros(2, 5), r"one class index an image, got \(2, 5\)"),
        (
            torch.zeros(2, 3, 7, 11).short(),
            torch.arange(2),
            "images must be floating point or uint8, got torch.int16",
        ),
    ],
)
def test_unusable_batches_are_refused(images, targets, words):
    with pytest.raises(LabelError, match=words):
        track_mixing(CUT)(images, targets)


def test_errors_of_the_mixer_are_its_own_with_a_note_on_the_channels():
    normalize = v2.Normalize([0.5] * 3, [0.5] * 3)
    with pytest.raises(RuntimeError) as raised:
        track_mixing(lambda x, t: normalize(x))(torch.zeros(6, 3, 7, 11), torch.arange(6))
    assert "shape (6, 8, 7, 11): it appends channels to them" in raised.value.__notes__[0]
    with pytest.raises(AssertionError, match="Batch size should be even"):
        track_mixing(Mixup())(torch.zeros(5, 3, 7, 11), torch.arange(5))
