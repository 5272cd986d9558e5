"""Every mixing strategy, mode and partner against counts of pixels, one by one."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labeltrace.errors import LabelError
from labeltrace.mixing import BlockMix, CutMix, MixUp, PatchMix, RandomChoice

PASTING = [CutMix(), PatchMix(patch=3), BlockMix(patch=2), PatchMix(ratio=0.4, patch=5)]
STRATEGIES = [*PASTING, MixUp(0.7)]
WAYS = [
    (mode, partner)
    for mode in ("batch", "pair", "elem")
    for partner in ("permutation", "flip", "roll")
    if (mode, partner) != ("pair", "roll")
]
NUM_CLASSES = 7

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def numbers(*shape):
    """Images whose every value is its own index, so that it tells the image and the place."""
    return torch.arange(math.prod(shape), dtype=torch.float64).view(shape)


def named(strategy):
    return f"{type(strategy).__name__}-{getattr(strategy, 'ratio', None)}"


def check_by_counting(images, targets, batch):
    """Compute labels, ratios and targets from the values of the pixels alone."""
    count, _, height, width = images.shape
    for image in range(count):
        own = images[image, 0].tolist()
        mixed = batch.images[image, 0].tolist()
        (partner,) = {
            round(value) for value in partners_told_by(batch, image) if value is not None
        } or {image}
        theirs = images[partner, 0].tolist()
        labels = batch.labels[image].expand(2, height, width).tolist()
        kept = 0.0
        for y in range(height):
            for x in range(width):
                if partner == image:
                    assert mixed[y][x] == pytest.approx(own[y][x])
                    kept += labels[0][y][x]
                    continue
                share = (mixed[y][x] - theirs[y][x]) / (own[y][x] - theirs[y][x])
                assert labels[0][y][x] == pytest.approx(share, abs=1e-6)
                assert labels[1][y][x] == pytest.approx(1 - share, abs=1e-6)
                kept += share
        ratio = kept / (height * width)
        assert batch.mixing_ratio[image].tolist() == pytest.approx([ratio, 1 - ratio], abs=1e-6)
        expected = [0.1 / NUM_CLASSES] * NUM_CLASSES
        expected[targets[image]] += 0.9 * ratio
        expected[targets[partner]] += 0.9 * (1 - ratio)
        soft = batch.soft_targets(batch.mixing_ratio, NUM_CLASSES, smoothing=0.1)[image]
        assert soft.tolist() == pytest.approx(expected, abs=1e-6)


def partners_told_by(batch, image):
    """The partner's number at each pixel, from the three channels; None where nothing is mixed.

    Channels are i, i² and 1 of sample i, plus the place: v(j - i) and v(j² - i²) were added.
    """
    first, second = batch.images[image, 1].flatten(), batch.images[image, 2].flatten()
    for number, square in zip(first.tolist(), second.tolist(), strict=True):
        change = number - image
        yield (square - image**2) / change - image if abs(change) > 1e-4 else None


def telling_images(batch, height, width):
    """Channel 0 tells the pixel; channels 1 and 2 hold the number of the sample and its square."""
    sample = torch.arange(batch, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, height, width)
    return torch.cat([numbers(batch, 1, height, width), sample, sample**2], dim=1)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([*STRATEGIES, "mix"]),
    st.sampled_from(WAYS),
    st.integers(1, 5),
    st.sampled_from([(7, 11), (11, 6), (5, 13), (6, 8)]),
    st.sampled_from([1.0, 0.6]),
    st.integers(0, 2**63 - 1),
)
def test_labels_ratios_and_targets_are_those_counted(strategy, way, batch, size, prob, seed):
    mode, partner = way
    together = STRATEGIES if strategy == "mix" else [strategy]
    mixers = [replace(one, mode=mode, partner=partner, prob=prob) for one in together]
    mixer = RandomChoice(mixers) if strategy == "mix" else mixers[0]
    images, targets = telling_images(batch, *size), torch.arange(batch) % 3
    before = images.clone()
    mixed = mixer(images, targets, generator=seeded(seed))
    assert torch.equal(images, before)
    assert mixed.images.dtype == torch.float64
    assert mixed.labels.dtype == torch.float32
    assert ((mixed.labels >= 0) & (mixed.labels <= 1)).all()
    torch.testing.assert_close(mixed.labels.sum(1), torch.ones_like(mixed.labels[:, 0]))
    check_by_counting(images, targets, mixed)


def mixed_by(mixer, batch, size=(11, 13), seed=0):
    return mixer(telling_images(batch, *size), torch.arange(batch), generator=seeded(seed))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=named)
def test_modes_say_which_images_share_a_draw(strategy):
    for seed in range(20):
        labels = mixed_by(replace(strategy, mode="batch"), 7, seed=seed).labels
        assert (labels == labels[:1]).all()

        for partner in ("flip", "permutation"):
            batch = mixed_by(replace(strategy, mode="pair", partner=partner), 7, seed=seed)
            partners = batch.classes[:, 1]
            assert torch.equal(partners[partners], torch.arange(7))
            assert (partners == torch.arange(7)).sum() == 1  # of seven, one is left over
            assert torch.equal(batch.labels, batch.labels[partners])
            pairs = {labels.numpy().tobytes() for labels in batch.labels}
            assert len(pairs) > 1

        # With 143 pixels and no fixed ratio, no two of the six draws are alike but by chance.
        each = mixed_by(replace(strategy, mode="elem"), 7, seed=seed).labels
        assert len({labels.numpy().tobytes() for labels in each}) >= 4


@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=named)
def test_partners_by_flip_and_roll(strategy, mode):
    flipped = mixed_by(replace(strategy, mode=mode, partner="flip"), 5).classes[:, 1]
    rolled = mixed_by(replace(strategy, mode=mode, partner="roll"), 5).classes[:, 1]
    assert flipped.tolist() == [4, 3, 2, 1, 0]
    assert rolled.tolist() == [4, 0, 1, 2, 3]


@pytest.mark.parametrize(("batch", "pairings"), [(3, 3), (4, 3)])
def test_random_pairs_are_uniform(batch, pairings):
    mixer, generator, seen = MixUp(mode="pair"), seeded(1), Counter()
    images = torch.zeros(batch, 1, 1, 1)
    for _ in range(450):
        partners = mixer(images, torch.arange(batch), generator=generator).classes[:, 1]
        seen[tuple(partners.tolist())] += 1
    assert len(seen) == pairings
    assert all(110 < count < 190 for count in seen.values())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=named)
def test_prob_is_drawn_for_each_draw(strategy):
    batch = mixed_by(replace(strategy, mode="elem", partner="flip", prob=0.3), 400, (7, 6))
    unmixed = (batch.classes[:, 0] == batch.classes[:, 1]).sum().item()
    assert unmixed == pytest.approx(280, abs=40)
    kept = batch.classes[:, 0] == batch.classes[:, 1]
    assert (batch.labels[kept, 0] == 1).all()
    assert torch.equal(batch.images[kept], telling_images(400, 7, 6)[kept])


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_cutmix_pastes_one_box_an_image(mode):
    for seed in range(20):
        for pasted in mixed_by(CutMix(mode=mode), 5, seed=seed).labels[:, 1] == 1:
            rows, columns = (pasted.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
            box = torch.zeros(11, 13, dtype=torch.bool)
            if rows:
                box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            assert torch.equal(pasted, box)


# Patches and blocks.


def patches_of(batch, patch):
    """Rows and columns of patches that come from the partner, by the labels of the first image."""
    pasted = batch.labels[0, 1]
    cells = [[cell for cell in row.split(patch, dim=1)] for row in pasted.split(patch, dim=0)]
    assert all(cell.unique().numel() == 1 for row in cells for cell in row)
    return torch.tensor([[cell[0, 0].item() for cell in row] for row in cells])


@pytest.mark.parametrize("kind", [PatchMix, BlockMix])
@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.4, 0.75, 1.0])
@pytest.mark.parametrize("size", [(42, 70), (37, 59)])
def test_whole_patches_are_pasted_up_to_the_ratio(kind, ratio, size):
    """Where 7 does not divide the size, the last row and column of patches are smaller."""
    count = math.ceil(size[0] / 7) * math.ceil(size[1] / 7)
    for seed in range(10):
        batch = mixed_by(kind(ratio=ratio, patch=7), 2, size, seed)
        assert patches_of(batch, 7).sum() == round(ratio * count)


@pytest.mark.parametrize("kind", [PatchMix, BlockMix])
def test_shares_of_patches_follow_lambda(kind):
    """With alpha = 1 every count of patches is as likely, but the ends half as much."""
    images, targets = torch.zeros(1100, 1, 6, 15), torch.zeros(1100).long()
    batch = kind(patch=3, mode="elem")(images, targets, generator=seeded(2))
    grid = Counter((10 * batch.mixing_ratio[:, 1]).round().int().tolist())
    assert set(grid) == set(range(11))
    assert all(70 < grid[count] < 155 for count in range(1, 10))
    assert 30 < grid[0] < 85 and 30 < grid[10] < 85


def test_random_patches_are_a_uniform_subset():
    mixer, generator, seen = PatchMix(ratio=0.5, patch=2), seeded(3), Counter()
    for _ in range(600):
        batch = mixer(torch.zeros(1, 1, 4, 4), torch.zeros(1).long(), generator=generator)
        seen[tuple(patches_of(batch, 2).flatten().tolist())] += 1
    assert len(seen) == 6
    assert all(60 < count < 140 for count in seen.values())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 17), st.integers(1, 23), st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_blocks_reach_every_count_on_every_grid(rows, columns, share, seed):
    count = round(share * rows * columns)
    pasted = BlockMix().draw_patches(count, rows, columns, seeded(seed))
    assert pasted.shape == (rows, columns)
    assert pasted.sum() == count


def borders(grid):
    """How often a patch and its neighbor are of two images."""
    return (grid[1:] != grid[:-1]).sum() + (grid[:, 1:] != grid[:, :-1]).sum()


def test_blocks_are_blocks():
    generator = seeded(4)
    blocks = [BlockMix().draw_patches(78, 14, 14, generator) for _ in range(60)]
    patches = [PatchMix().draw_patches(78, 14, 14, generator) for _ in range(60)]
    assert sum(map(borders, blocks)) < 0.4 * sum(map(borders, patches))
    assert torch.stack(blocks).any(0).all()  # they fall anywhere, up to the corners


def test_blocks_lean_to_no_side():
    generator = seeded(7)
    pasted = sum(BlockMix().draw_patches(16, 9, 11, generator).double() for _ in range(400))
    share = pasted / pasted.sum()
    assert (share.sum(1) * torch.arange(9)).sum() == pytest.approx(4, abs=0.4)
    assert (share.sum(0) * torch.arange(11)).sum() == pytest.approx(5, abs=0.4)


def test_blocks_are_flat_and_upright_alike():
    """Blocks of 16 patches, on a grid so large that nothing is cut: 0.3 is 2 × 7 at the most."""
    generator, tall, wide, sides = seeded(5), 0, 0, set()
    for _ in range(400):
        grid = BlockMix().draw_patches(16, 41, 43, generator)
        first = grid & (grid.sum(1, keepdim=True) > 1) & (grid.sum(0, keepdim=True) > 1)
        height, width = first.any(1).sum().item(), first.any(0).sum().item()
        tall, wide = tall + (height > width), wide + (width > height)
        sides |= {height, width}
    assert tall + wide > 250
    assert tall == pytest.approx(wide, abs=60)
    assert {2, 3, 4, 5, 6, 7} <= sides <= set(range(2, 12))


# Mix.


def test_mix_picks_as_often_as_asked():
    mixer = RandomChoice([CutMix(), MixUp(), PatchMix(patch=3)], [0.5, 0.2, 0.3])
    generator = seeded(6)
    picked = Counter(type(mixer.choose(generator)).__name__ for _ in range(2000))
    assert picked["CutMix"] == pytest.approx(1000, abs=90)
    assert picked["MixUp"] == pytest.approx(400, abs=75)
    even = Counter(
        type(RandomChoice(STRATEGIES[:2]).choose(generator)).__name__ for _ in range(800)
    )
    assert even["CutMix"] == pytest.approx(400, abs=80)


@pytest.mark.parametrize(("mode", "most"), [("batch", 1), ("pair", 2), ("elem", 2)])
def test_mix_switches_once_a_draw(mode, most):
    """In batch mode a batch is pasted or blended, in the others both may be found in one."""
    mixer = RandomChoice([CutMix(mode=mode, partner="flip"), MixUp(mode=mode, partner="flip")])
    seen = set()
    for seed in range(30):
        batch = mixed_by(mixer, 8, seed=seed)
        blended = ((batch.labels > 0) & (batch.labels < 1)).flatten(1).any(1)
        assert mode != "pair" or torch.equal(blended, blended.flip(0))
        seen.add(blended.unique().numel())
        if mode == "batch":
            assert batch.labels.shape[2:] == ((1, 1) if blended.all() else (11, 13))
    assert max(seen) == most


def test_mix_with_one_sure_strategy_draws_what_that_strategy_draws():
    sure = RandomChoice((MixUp(), CutMix()), (0, 1))
    for seed in range(20):
        generator, after = seeded(seed), seeded(seed)
        torch.rand((), generator=after, dtype=torch.float64)  # what the choice takes
        images, targets = telling_images(5, 7, 6), torch.arange(5)
        batch = sure(images, targets, generator=generator)
        plain = CutMix()(images, targets, generator=after)
        assert torch.equal(batch.images, plain.images)
        assert torch.equal(batch.labels, plain.labels)


def test_a_draw_at_the_very_end_falls_on_a_strategy_that_is_possible(monkeypatch):
    """The probabilities may sum to a little less than one."""
    mixer = RandomChoice([CutMix(), BlockMix(), MixUp()], [0.5, 0.4999999, 0])
    monkeypatch.setattr("labeltrace.mixing.random_choice.draw_uniform", lambda _: 1 - 2**-53)
    assert isinstance(mixer.choose(None), BlockMix)


# What images may be.


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("strategy", [*STRATEGIES, RandomChoice], ids=named)
def test_dtype_memory_format_and_draws(strategy, mode):
    if strategy is RandomChoice:
        mixer = RandomChoice([replace(one, mode=mode) for one in STRATEGIES])
    else:
        mixer = replace(strategy, mode=mode)
    images = torch.randn(5, 3, 12, 10, generator=seeded(0), dtype=torch.float64)
    exact = mixer(images, torch.arange(5), generator=seeded(9))
    state = torch.get_rng_state()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        given = images.to(dtype, memory_format=torch.channels_last)
        batch = mixer(given, torch.arange(5), generator=seeded(9))
        assert batch.images.dtype == dtype
        assert batch.images.stride() == given.stride()
        assert torch.equal(batch.labels, exact.labels)
        assert torch.equal(batch.classes, exact.classes)
        labels = batch.labels.double()
        own, theirs = given.double(), given.double()[batch.classes[:, 1]]
        blend = own * labels[:, :1] + theirs * labels[:, 1:]
        once_rounded = torch.finfo(dtype).eps / 2
        torch.testing.assert_close(batch.images.double(), blend, rtol=once_rounded, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("strategy", PASTING, ids=named)
def test_pasting_takes_bytes(strategy):
    images = torch.arange(3 * 7 * 11).view(3, 1, 7, 11).to(torch.uint8)
    for mixer in (strategy, RandomChoice([strategy])):
        batch = mixer(images, torch.arange(3), generator=seeded(2))
        whole = mixer(images.float(), torch.arange(3), generator=seeded(2))
        assert batch.images.dtype == torch.uint8
        assert torch.equal(batch.images.float(), whole.images)


@needs_cuda
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_cuda_batches(mode):
    mixer = RandomChoice([replace(one, mode=mode) for one in STRATEGIES])
    images, targets = torch.randn(5, 3, 12, 10, generator=seeded(0)), torch.arange(5)
    for seed in range(10):
        on_cpu = mixer(images, targets, generator=seeded(seed))
        on_gpu = mixer(images.cuda(), targets.cuda(), generator=seeded(seed))
        assert on_gpu.labels.is_cuda and on_gpu.classes.is_cuda
        torch.testing.assert_close(on_gpu.images.cpu(), on_cpu.images)
        assert torch.equal(on_gpu.labels.cpu(), on_cpu.labels)


# Errors.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: CutMix(mode="element"),
            "CutMix: the mode of a mixing strategy must be one of batch, pair, elem, got 'element'",
        ),
        (
            lambda: MixUp(partner="self"),
            "the partner of a mixing strategy must be one of permutation, flip, roll",
        ),
        (lambda: MixUp(mode="pair", partner="roll"), "partner roll does not form pairs"),
        (lambda: PatchMix(ratio=1.1), r"PatchMix: ratio must be a share .* in \[0, 1\], got 1.1"),
        (lambda: BlockMix(ratio=math.nan), "ratio must be a share of the patches .* got nan"),
        (lambda: PatchMix(patch=0), "patch must be a side in whole pixels, 1 or more, got 0"),
        (lambda: BlockMix(patch=2.5), "BlockMix: patch must be a side in whole pixels.*got 2.5"),
        (lambda: PatchMix(alpha=0), "PatchMix: alpha must be finite and above 0, got 0"),
        (
            lambda: RandomChoice([]),
            r"RandomChoice: at least one mixing strategy is needed, such as CutMix\(\)",
        ),
        (
            lambda: RandomChoice([CutMix]),
            "strategies must be CutMix, MixUp, PatchMix or BlockMix objects",
        ),
        (
            lambda: RandomChoice([CutMix(), MixUp(mode="elem")]),
            "strategies must have the same mode and partner.*batch.*elem",
        ),
        (
            lambda: RandomChoice([CutMix()], [0.5, 0.5]),
            "one probability for each strategy.*got 2 for 1",
        ),
        (
            lambda: RandomChoice([CutMix(), MixUp()], [0.6, 0.5]),
            r"must not be negative and must sum to one, got \[0.6, 0.5\]",
        ),
        (lambda: RandomChoice([CutMix(), MixUp()], [1.5, -0.5]), "must not be negative.*-0.5"),
        (lambda: RandomChoice([CutMix(), MixUp()], [math.nan, 1]), "must not be negative.*nan"),
    ],
)
def test_unusable_settings_are_refused(make, words):
    with pytest.raises(LabelError, match=words):
        make()


@pytest.mark.parametrize(
    "mixer", [PatchMix(), BlockMix(), RandomChoice([CutMix(), BlockMix()])], ids=str
)
def test_images_of_one_patch_are_refused(mixer):
    mixer(torch.zeros(2, 1, 16, 17), torch.arange(2), generator=seeded(0))
    with pytest.raises(LabelError, match=r"images of 16 × 8 pixels are a single patch of 16; set"):
        mixer(torch.zeros(2, 1, 16, 8), torch.arange(2))


def test_mix_refuses_integers_if_any_strategy_blends():
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(
        LabelError, match=r"RandomChoice: images must be floating point.*uint8.*blend"
    ):
        RandomChoice([CutMix(), MixUp()], [1, 0])(images, torch.arange(2))
