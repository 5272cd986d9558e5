"""Labels of mixed images against their pixels, and the draws against their distribution."""

import math
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.mixup import mixup_target

from labeltrace.errors import LabelError
from labeltrace.mixing import CutMix, MixedBatch, MixUp

MIXERS = [CutMix, MixUp]
FIRST_CLASS = 10

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def seeded(seed, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def numbered_pixels(*shape):
    """Images whose every value is its own index, so that it tells the image and the place."""
    return torch.arange(math.prod(shape), dtype=torch.float32).view(shape)


def numbered_classes(batch):
    """One class per image, so that `classes` tells the image."""
    return torch.arange(batch) + FIRST_CLASS


def box_of(batch):
    """Rows and columns of the box, as two lists of indices, from the labels of the first image."""
    inside = batch.labels[0, 1] == 1
    return inside.any(1).nonzero().flatten().tolist(), inside.any(0).nonzero().flatten().tolist()


shapes = st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(1, 23), st.integers(1, 23))
seeds = st.integers(0, 2**63 - 1)
alphas = st.floats(0.05, 20)


@settings(deadline=None)
@given(shapes, seeds, alphas)
def test_every_cutmix_pixel_comes_from_where_its_label_says(shape, seed, alpha):
    images = numbered_pixels(*shape)
    targets = numbered_classes(shape[0])
    batch = CutMix(alpha)(images, targets, generator=seeded(seed))

    own, partner = (batch.classes - FIRST_CLASS).unbind(1)
    assert own.tolist() == list(range(shape[0]))
    assert sorted(partner.tolist()) == own.tolist()
    assert batch.labels.shape == (shape[0], 2, *shape[2:])
    assert batch.labels.dtype == torch.float32
    assert set(batch.labels.unique().tolist()) <= {0, 1}
    assert (batch.labels.sum(1) == 1).all()

    pixels_per_image = math.prod(shape[1:])
    origin = (batch.images // pixels_per_image).long()
    place = (batch.images % pixels_per_image).long()
    said = torch.where(batch.labels[:, :1] == 1, own.view(-1, 1, 1, 1), partner.view(-1, 1, 1, 1))
    assert torch.equal(origin, said.expand(shape))
    assert torch.equal(place, numbered_pixels(*shape[1:]).long().expand(shape))

    counted = (origin[:, 0] == own.view(-1, 1, 1)).double().mean((1, 2))
    mixed = own != partner
    torch.testing.assert_close(batch.mixing_ratio[mixed, 0].double(), counted[mixed])
    torch.testing.assert_close(batch.mixing_ratio.sum(1), torch.ones(shape[0]))

    box = torch.zeros(shape[2:])
    rows, columns = box_of(batch)
    if rows:
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    assert (batch.labels[:, 1] == box).all()
    assert torch.equal(images, numbered_pixels(*shape))


@settings(deadline=None)
@given(shapes, seeds, alphas)
def test_mixup_images_are_the_blend_that_their_labels_say(shape, seed, alpha):
    images = torch.randn(shape, generator=seeded(0), dtype=torch.float64)
    before = images.clone()
    batch = MixUp(alpha)(images, numbered_classes(shape[0]), generator=seeded(seed))

    own, partner = (batch.classes - FIRST_CLASS).unbind(1)
    assert own.tolist() == list(range(shape[0]))
    assert sorted(partner.tolist()) == own.tolist()
    assert batch.labels.shape == (shape[0], 2, 1, 1)
    assert batch.labels.dtype == torch.float32
    assert (batch.labels == batch.labels[:1]).all()
    torch.testing.assert_close(batch.labels.sum(1), torch.ones(shape[0], 1, 1))
    blend = batch.labels[:, :1] * images[own] + batch.labels[:, 1:] * images[partner]
    torch.testing.assert_close(batch.images, blend, rtol=0, atol=1e-6)
    assert torch.equal(batch.mixing_ratio, batch.labels.flatten(1))
    assert torch.equal(images, before)


def lambdas(alpha, count):
    mixer, generator = MixUp(alpha), seeded(4)
    pixel, target = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.long)
    draws = [mixer(pixel, target, generator=generator).labels[0, 0] for _ in range(count)]
    return torch.stack(draws).flatten().double()


@pytest.mark.parametrize(
    ("alpha", "cumulative"),
    [
        (0.5, lambda x: 2 / math.pi * x.sqrt().asin()),
        (1.0, lambda x: x),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
        (3.0, lambda x: 10 * x**3 - 15 * x**4 + 6 * x**5),
    ],
)
def test_lambda_follows_the_beta_distribution(alpha, cumulative):
    count = 2000
    expected = cumulative(lambdas(alpha, count).sort().values)
    distance = (expected - (torch.arange(count) + 0.5) / count).abs().max()
    assert distance < 1.63 / math.sqrt(count)  # Kolmogorov-Smirnov at 1%


def test_lambda_of_a_tiny_alpha_is_either_end():
    drawn = lambdas(1e-4, 500)
    at_end = (drawn < 1e-6) | (drawn > 1 - 1e-6)
    assert at_end.double().mean() > 0.98
    assert 0.4 < drawn.mean() < 0.6


def test_cutmix_box_has_the_area_of_a_uniform_clipped_box():
    """A side of ratio r around a uniform center keeps r - r²/4 of an axis once it is clipped.

    With lambda = 1 - r² uniform, the mean of (r - r²/4)² is 1/2 - 1/5 + 1/48.
    """
    mixer, generator = CutMix(), seeded(5)
    images, targets = torch.zeros(1, 1, 37, 53), torch.zeros(1, dtype=torch.long)
    pasted = [mixer(images, targets, generator=generator).mixing_ratio[0, 1] for _ in range(2000)]
    assert torch.stack(pasted).mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.02)


def test_cutmix_box_keeps_the_aspect_and_falls_anywhere():
    mixer, generator = CutMix(alpha=1e9), seeded(6)  # lambda is 1/2
    height, width = 29, 47
    images, targets = torch.zeros(1, 1, height, width), torch.zeros(1, dtype=torch.long)
    tops, lefts = set(), set()
    for _ in range(600):
        rows, columns = box_of(mixer(images, targets, generator=generator))
        tops.add(rows[0])
        lefts.add(columns[0])
        for size, inside in ((height, rows), (width, columns)):
            whole = size * math.sqrt(1 / 2)
            if inside[0] > 0 and inside[-1] < size - 1:
                assert abs(len(inside) - whole) <= 1
            else:
                assert whole / 2 - 1 <= len(inside) <= whole + 1
    # The center reaches the far border, so the near edge reaches size - side / 2.
    assert tops == set(range(round(height * (1 - math.sqrt(1 / 8))) + 1))
    assert lefts == set(range(round(width * (1 - math.sqrt(1 / 8))) + 1))


@pytest.mark.parametrize("mixer", MIXERS)
def test_partners_are_a_uniform_permutation(mixer):
    generator, seen = seeded(7), {}
    for _ in range(600):
        batch = mixer()(torch.zeros(3, 1, 1, 1), numbered_classes(3), generator=generator)
        order = tuple(batch.classes[:, 1].tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 6
    assert all(60 < count < 140 for count in seen.values())


@pytest.mark.parametrize("mixer", MIXERS)
def test_prob_decides_how_often_a_batch_is_mixed(mixer):
    images, targets, generator = numbered_pixels(3, 1, 5, 7), numbered_classes(3), seeded(8)
    unmixed = 0
    for _ in range(400):
        batch = mixer(alpha=1e9, prob=0.3)(images, targets, generator=generator)
        unmixed += (batch.mixing_ratio[:, 0] == 1).all().item()
    assert unmixed == pytest.approx(0.7 * 400, abs=40)


@pytest.mark.parametrize("mixer", MIXERS)
def test_unmixed_batch_is_a_copy_from_source_0(mixer):
    images, targets = numbered_pixels(3, 1, 5, 7), numbered_classes(3)
    batch = mixer(prob=0)(images, targets)
    assert torch.equal(batch.images, images)
    assert batch.images.data_ptr() != images.data_ptr()
    assert torch.equal(batch.classes, torch.stack([targets, targets], dim=1))
    assert (batch.labels[:, 0] == 1).all()
    assert (batch.labels[:, 1] == 0).all()


def random_states():
    python, numpy = random.getstate(), pickle.dumps(np.random.get_state())
    return torch.get_rng_state().tolist(), python, numpy


def result(batch):
    return [batch.images.tolist(), batch.labels.tolist(), batch.classes.tolist()]


@pytest.mark.parametrize("mixer", MIXERS)
def test_draws_come_from_the_generator_alone(mixer):
    images, targets = numbered_pixels(5, 1, 11, 13), numbered_classes(5)
    before = random_states()
    first, again, other = (mixer()(images, targets, generator=seeded(seed)) for seed in (0, 0, 1))
    assert random_states() == before
    assert result(first) == result(again) != result(other)


@pytest.mark.parametrize("mixer", MIXERS)
def test_draws_without_a_generator_follow_manual_seed(mixer):
    images, targets = numbered_pixels(5, 1, 11, 13), numbered_classes(5)
    with torch.random.fork_rng(devices=[]):
        batches = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            torch_before, *others_before = random_states()
            batches.append(mixer()(images, targets))
            torch_after, *others_after = random_states()
            assert torch_after != torch_before
            assert others_after == others_before
    first, again, other = batches
    assert result(first) == result(again) != result(other)
    assert result(first) == result(mixer()(images, targets, generator=seeded(0)))


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(5, 3, 7, 11), (1, 3, 7, 11), (5, 1, 7, 11)])
def test_dtype_and_memory_format_are_kept(mixer, dtype, shape):
    images = torch.randn(shape, generator=seeded(0)).to(dtype, memory_format=torch.channels_last)
    batch = mixer()(images, numbered_classes(shape[0]), generator=seeded(9))
    assert batch.images.dtype == dtype
    assert batch.images.stride() == images.stride()
    assert batch.labels.dtype == torch.float32
    plain = mixer()(images.contiguous(), numbered_classes(shape[0]), generator=seeded(9))
    assert torch.equal(batch.images, plain.images)


@pytest.mark.parametrize("mixer", MIXERS)
def test_images_that_share_memory_are_mixed_all_the_same(mixer):
    images = numbered_pixels(5, 1, 7, 11).expand(5, 3, 7, 11)
    batch = mixer()(images, numbered_classes(5), generator=seeded(9))
    plain = mixer()(images.contiguous(), numbered_classes(5), generator=seeded(9))
    assert torch.equal(batch.images, plain.images)


def test_cutmix_takes_bytes():
    images = numbered_pixels(3, 1, 7, 11).to(torch.uint8)
    batch = CutMix()(images, numbered_classes(3), generator=seeded(2))
    whole = CutMix()(images.float(), numbered_classes(3), generator=seeded(2))
    assert batch.images.dtype == torch.uint8
    assert torch.equal(batch.images.float(), whole.images)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.uint16])
def test_classes_are_int64_whatever_the_targets(mixer, dtype):
    batch = mixer()(torch.zeros(3, 1, 5, 7), numbered_classes(3).to(dtype))
    assert batch.classes.dtype == torch.int64
    assert torch.equal(batch.classes[:, 0], numbered_classes(3))


@pytest.mark.parametrize("mixer", MIXERS)
def test_default_device_and_dtype_do_not_matter(mixer):
    images, targets = numbered_pixels(5, 1, 11, 13), numbered_classes(5)
    plain = mixer()(images, targets, generator=seeded(3))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            batch = mixer()(images, targets, generator=seeded(3))
    finally:
        torch.set_default_dtype(torch.float32)
    assert result(batch) == result(plain)
    assert batch.labels.dtype == torch.float32


@needs_cuda
@pytest.mark.parametrize("mixer", MIXERS)
def test_cuda_batches_and_generators(mixer):
    images, targets = numbered_pixels(5, 3, 11, 13), numbered_classes(5)
    on_cpu = mixer()(images, targets, generator=seeded(3))
    on_gpu = mixer()(images.cuda(), targets.cuda(), generator=seeded(3))
    assert on_gpu.labels.is_cuda and on_gpu.classes.is_cuda
    torch.testing.assert_close(on_gpu.images.cpu(), on_cpu.images)
    assert torch.equal(on_gpu.labels.cpu(), on_cpu.labels)
    assert on_gpu.soft_targets(on_gpu.mixing_ratio, 17).is_cuda

    before = torch.cuda.get_rng_state().tolist()
    first, again, other = (
        mixer()(images.cuda(), targets.cuda(), generator=seeded(seed, "cuda")) for seed in (0, 0, 1)
    )
    assert torch.cuda.get_rng_state().tolist() == before
    assert result(first) == result(again) != result(other)


def handmade(classes):
    classes = torch.tensor(classes)
    images = torch.zeros(classes.shape[0], 1, 1, 1)
    return MixedBatch(images, torch.ones(*classes.shape, 1, 1) / classes.shape[1], classes)


@settings(deadline=None)
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 11), st.floats(0, 0.99), seeds)
def test_soft_targets_are_the_class_sums_of_the_labels(
    batch, sources, num_classes, smoothing, seed
):
    generator = seeded(seed)
    classes = torch.randint(num_classes, (batch, sources), generator=generator)
    labels = torch.rand(batch, sources, generator=generator).add(0.01)
    labels = (labels / labels.sum(1, keepdim=True)).requires_grad_()

    expected = torch.zeros(batch, num_classes, dtype=torch.float64)
    for image in range(batch):
        for source in range(sources):
            expected[image, classes[image, source]] += labels[image, source].item()
    expected = expected * (1 - smoothing) + smoothing / num_classes

    targets = handmade(classes.tolist()).soft_targets(labels, num_classes, smoothing)
    assert targets.dtype == torch.float32
    assert not targets.requires_grad
    torch.testing.assert_close(targets.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(targets.sum(1), torch.ones(batch))


def test_sources_of_the_same_class_add_up():
    batch = handmade([[2, 2], [2, 0]])
    targets = batch.soft_targets(torch.tensor([[0.25, 0.75], [0.25, 0.75]]), num_classes=3)
    assert targets.tolist() == [[0, 0, 1], [0.75, 0, 0.25]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_unaligned_targets_are_timms(smoothing):
    target = torch.tensor([4, 0, 4, 2, 6])
    batch = handmade(torch.stack([target, target.flip(0)], dim=1).tolist())
    labels = torch.tensor([[0.3, 0.7]]).expand(5, 2)
    expected = mixup_target(target, 7, lam=0.3, smoothing=smoothing)
    torch.testing.assert_close(batch.soft_targets(labels, 7, smoothing), expected)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.0}, r"alpha must be .* above 0, got 0.0.*prob=0"),
        ({"alpha": -1.0}, r"alpha .* got -1.0"),
        ({"alpha": math.nan}, r"alpha .* got nan"),
        ({"alpha": math.inf}, r"alpha must be finite .* got inf"),
        ({"prob": -0.1}, r"prob must be a probability in \[0, 1\], got -0.1"),
        ({"prob": 1.1}, r"prob .* got 1.1"),
        ({"prob": math.nan}, r"prob .* got nan"),
    ],
)
def test_settings_out_of_range_are_refused(mixer, settings, words):
    with pytest.raises(LabelError, match=f"{mixer.__name__}: {words}"):
        mixer(**settings)


IMAGES, TARGETS = torch.zeros(3, 1, 5, 7), torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize(
    ("images", "targets", "words"),
    [
        (IMAGES.numpy(), TARGETS, r"images must be a torch.Tensor, got ndarray.*collate"),
        (IMAGES, [0, 0, 0], r"targets must be a torch.Tensor, got list"),
        (IMAGES[0], TARGETS, r"images must be \(B, C, H, W\).*got \(1, 5, 7\).*batch"),
        (IMAGES[:0], TARGETS[:0], r"not empty, got \(0, 1, 5, 7\)"),
        (IMAGES, TARGETS[:2], r"targets must be \(B,\) = \(3,\).*got \(2,\)"),
        (
            IMAGES,
            torch.eye(9)[TARGETS],
            r"one class index an image, got \(3, 9\); turn one-hot targets into indices .*argmax",
        ),
        (
            IMAGES,
            torch.ones(3, 9),
            r"images of several classes.* have no index: pass torch.arange\(B\) as targets",
        ),
        (IMAGES, TARGETS[:, None], r"got \(3, 1\); pass one integer for each image"),
        (IMAGES, TARGETS.float(), r"integer class indices, got torch.float32.*long"),
        (IMAGES, TARGETS.bool(), r"integer class indices, got torch.bool"),
        (IMAGES, TARGETS.to("meta"), r"targets are on meta, images on cpu.*same device"),
        (
            IMAGES,
            torch.tensor([0, -7, 2]),
            r"target 1 is -7, but class indices start at 0; remove images",
        ),
    ],
)
def test_unusable_batches_are_refused(mixer, images, targets, words):
    state = torch.get_rng_state()
    with pytest.raises(LabelError, match=f"{mixer.__name__}: .*{words}"):
        mixer()(images, targets)
    assert torch.equal(torch.get_rng_state(), state)


def test_mixup_refuses_integer_images():
    with pytest.raises(LabelError, match=r"MixUp: images must be floating point.*uint8.*/ 255"):
        MixUp()(IMAGES.byte(), TARGETS)


LABELS = torch.tensor([[0.25, 0.75]]).expand(2, 2)


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (LABELS[:1], {}, r"labels must be \(B, K\) = \(2, 2\), got \(1, 2\).*mixing_ratio"),
        (LABELS[:, :, None, None], {}, r"got \(2, 2, 1, 1\)"),
        (LABELS.long(), {}, r"labels must be floating point, got torch.int64"),
        (
            LABELS.to("meta"),
            {},
            r"labels are on meta, the batch's classes on cpu; mix on the device that the model",
        ),
        (torch.tensor([[0.5, 0.5], [-0.5, 1.5]]), {}, r"row 1 of labels holds a negative .*-0.5"),
        (torch.tensor([[0.5, math.nan], [0.5, 0.5]]), {}, r"row 0 of labels .* NaN: \[0.5, nan\]"),
        (torch.tensor([[0.5, 0.5], [0.5, 0.5002]]), {}, r"row 1 of labels does not sum to one"),
        (torch.tensor([[0.5, math.inf], [0.5, 0.5]]), {}, r"row 0 of labels does not sum to one"),
        (LABELS, {"num_classes": 4}, r"image 1 .* \[0, 4\].* 0 … 3; num_classes=4"),
        (LABELS, {"num_classes": 0}, r"num_classes must be at least 1, got 0"),
        (LABELS, {"smoothing": -0.1}, r"smoothing must be in \[0, 1\), got -0.1"),
        (LABELS, {"smoothing": 1.0}, r"smoothing .* got 1.0"),
        (LABELS, {"smoothing": math.nan}, r"smoothing .* got nan"),
    ],
)
def test_unusable_labels_are_refused(labels, options, words):
    batch = handmade([[1, 3], [0, 4]])
    with pytest.raises(LabelError, match=f"soft_targets: .*{words}"):
        batch.soft_targets(labels, **{"num_classes": 5, **options})


def test_negative_classes_are_refused():
    with pytest.raises(LabelError, match=r"image 0 has sources of classes \[1, -1\]"):
        handmade([[1, -1]]).soft_targets(LABELS[:1], num_classes=5)


def test_rows_within_the_tolerance_are_taken():
    batch = handmade([[1, 3]])
    batch.soft_targets(torch.tensor([[0.5, 0.50005]]), num_classes=5)
