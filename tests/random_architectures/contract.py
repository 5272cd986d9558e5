"""What the labels of any architecture are checked for."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from labeltrace import AlignedModule
from tests.oracles.soundness import check_soundness
from tests.random_architectures.inputs import BATCH, identity, images_of, random_labels
from tests.random_architectures.state import Architecture, Promise

TOLERANCE = {"atol": 1e-5, "rtol": 0}


def check_contract(architecture: Architecture, aligned: AlignedModule, training: bool) -> None:
    """All that the contract says of any model."""
    model = architecture.model.train(training)
    plain = copy.deepcopy(model)
    images, cells = images_of(architecture), identity(architecture)
    dim = architecture.channel_dim

    def run(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return aligned(images, labels)

    # The forward half is the model, bit for bit.
    torch.manual_seed(0)
    expected = plain(images)
    state = torch.random.get_rng_state()
    outputs, provenance = run(images, cells)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(outputs, expected)
    assert_same_state(model, plain)

    shape = list(outputs.shape)
    shape[dim] = cells.shape[1]
    assert list(provenance.shape) == shape
    assert_distributions(provenance, dim)

    # Linear in the label: any K sources are the one-hot basis times the label image.
    flows = sources_last(provenance, architecture)
    for sources in (2, 3):
        labels = random_labels(architecture, sources)
        result = run(images, labels)[1]
        assert_distributions(result, dim)
        product = flows @ labels.flatten(2).mT
        torch.testing.assert_close(sources_last(result, architecture), product, **TOLERANCE)

    # One label everywhere stays.
    shares = torch.tensor([0.2, 0.3, 0.5])
    uniform = shares[None, :, None, None].expand(BATCH, -1, 1, 1)
    result = sources_last(run(images, uniform)[1], architecture)
    torch.testing.assert_close(result, shares.expand_as(result), **TOLERANCE)


def check_batch(architecture: Architecture, aligned: AlignedModule, order: list[int]) -> None:
    """Images keep their own labels, in any order and alone."""
    architecture.model.eval()
    images, labels = images_of(architecture), random_labels(architecture, 3)
    together = aligned(images, labels)[1]
    permuted = aligned(images[order], labels[order])[1]
    torch.testing.assert_close(permuted, together[order], **TOLERANCE)
    for image in range(BATCH):
        alone = aligned(images[image : image + 1], labels[image : image + 1])[1]
        torch.testing.assert_close(alone, together[image : image + 1], **TOLERANCE)


def check_sources(architecture: Architecture, aligned: AlignedModule) -> None:
    """Soundness: a position has a source only if the Jacobian says that it can read it."""
    images, cells = images_of(architecture, 2), identity(architecture, 2)
    check_soundness(
        architecture.model.eval(),
        aligned(images, cells)[1],
        images,
        cells[:1],
        equal=architecture.promise is Promise.EQUAL,
        prior=architecture.prior,
        channel_dim=architecture.channel_dim,
    )


def assert_distributions(labels: Tensor, dim: int) -> None:
    assert labels.dtype == torch.float32
    assert not labels.requires_grad
    assert bool((labels >= 0).all()), f"negative or NaN: {labels.min()}"
    torch.testing.assert_close(labels.sum(dim), torch.ones_like(labels.sum(dim)), **TOLERANCE)


def assert_same_state(first: nn.Module, second: nn.Module) -> None:
    for (name, value), other in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


def sources_last(labels: Tensor, architecture: Architecture) -> Tensor:
    """(B, positions, K)."""
    if labels.dim() == 2:
        return labels[:, None]
    return labels.movedim(architecture.channel_dim, -1).flatten(1, -2)
