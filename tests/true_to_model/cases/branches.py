"""Branches, loops and sizes that depend on values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.true_to_model.case import (
    CHANNELS,
    COLUMNS,
    ROWS,
    WIDTH,
    Patches,
    Seen,
    each,
    patches,
    pictures,
    prior,
    tokens,
    twin,
)


def _bright(index: int) -> tuple[Any, ...]:
    """Images whose mean has the sign of one call or the other."""
    return ((pictures(index) + (3 if index % 2 else -3)).requires_grad_(),)


class Branch(nn.Module):
    """Images to a map of patches, by a branch on the mean of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(CHANNELS, WIDTH, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return y.flip(3) if x.sum() > 0 else y


def _by_sign(seen: Seen) -> Tensor:
    return patches(seen).flip(3) if seen.inputs[0].sum() > 0 else patches(seen)


@twin(calls=4, inputs=_bright, labels=_by_sign)
def branch_on_a_sum() -> nn.Module:
    return Branch()


@twin(calls=4, inputs=_bright, labels=_by_sign)
def branch_by_item() -> nn.Module:
    class ByItem(Branch):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return y.flip(3) if x.mean().item() > 0 else y

    return ByItem()


@twin(calls=4, inputs=_bright, labels=_by_sign)
def branch_on_tolist() -> nn.Module:
    class ByList(Branch):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return y.flip(3) if sum(x.flatten().tolist()) > 0 else y

    return ByList()


@twin(calls=4, inputs=_bright, labels=_by_sign)
def branch_on_numpy() -> nn.Module:
    class ByArray(Branch):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return y.flip(3) if x.detach().numpy().mean() > 0 else y

    return ByArray()


@twin(calls=4, inputs=_bright, labels=_by_sign)
def branch_by_any_and_equal() -> nn.Module:
    class ByAny(Branch):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            if torch.equal(x, y) or bool((x == 100).any()):
                return y * 0
            return y.flip(3) if torch.allclose(x.mean().sign(), torch.ones(())) else y

    return ByAny()


@twin(labels=patches)
def loop_until_small() -> nn.Module:
    def halved(self: Any, x: Tensor) -> Tensor:
        self.steps = 0
        while x.abs().max() > 1:
            x = x / 2
            self.steps += 1
        return x

    return Patches(halved)


@twin(labels=patches)
def number_from_item_scales() -> nn.Module:
    return Patches(lambda self, x: x / x.detach().abs().max().item())


@twin(labels=patches)
def number_from_item_as_tensor_scales() -> nn.Module:
    return Patches(lambda self, x: x * torch.tensor(x.detach().std().item()))


@twin(labels=lambda seen: patches(seen)[..., : seen.outputs.shape[-1]])
def number_from_item_is_a_size() -> nn.Module:
    def cut(self: Any, x: Tensor) -> Tensor:
        columns = 1 + int(x.detach().abs().sum().item()) % 6
        return x[..., :columns]

    return Patches(cut)


@twin(labels=lambda seen: patches(seen).roll(seen.model.shift, 3))
def number_from_item_rolls() -> nn.Module:
    def rolled(self: Any, x: Tensor) -> Tensor:
        self.shift = int(x.detach().argmax()) % 7
        return x.roll(self.shift, 3)

    return Patches(rolled)


@twin(calls=4, labels=patches)
def early_exit() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.depth = 0
        for layer in self.layers:
            x = x + layer(x)
            self.depth += 1
            if x.mean().sigmoid() > 0.5:
                break
        return x

    layers = nn.ModuleList([nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(5)])
    return Patches(forward, layers=layers)


@twin(calls=4, labels=patches)
def adaptive_depth_by_halting() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        halted, total = torch.zeros(x.shape[0]), 0
        while bool((halted < 1).any()) and total < 6:
            halted = halted + self.halt(x.mean((2, 3))).sigmoid().squeeze(1).detach()
            x = self.layer(x).tanh()
            total += 1
        self.total = total
        return x

    return Patches(forward, halt=nn.Linear(WIDTH, 1), layer=nn.Conv2d(WIDTH, WIDTH, 1))


def _kept_tokens(seen: Seen) -> Tensor:
    label = tokens(seen)
    return torch.gather(label, 1, seen.model.kept[..., None].expand(-1, -1, label.shape[2]))


@twin(labels=_kept_tokens)
def tokens_chosen_by_their_size() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        self.kept = x.square().sum(-1).topk(5, dim=1).indices
        return x.gather(1, self.kept[..., None].expand(-1, -1, x.shape[2]))

    return Patches(forward)


@twin(labels=each(prior))
def list_of_parts_of_several_lengths() -> nn.Module:
    def forward(self: Any, x: Tensor) -> list[Tensor]:
        pieces = []
        for sample in x.split(1):
            pieces.append(sample.mean((2, 3)) * len(pieces))
        return [torch.cat(pieces), x.mean((2, 3))]

    return Patches(forward)


@twin(
    labels=lambda seen: [
        label[None, :, : out.shape[2]]
        for label, out in zip(patches(seen), seen.outputs, strict=True)
    ]
)
def ragged_list_cut_by_values() -> nn.Module:
    def forward(self: Any, x: Tensor) -> list[Tensor]:
        lengths = [1 + int(n) % 5 for n in x.detach().abs().sum((1, 2, 3)).tolist()]
        return [sample[None, :, :n] for sample, n in zip(x, lengths, strict=True)]

    return Patches(forward)


def _two_images(index: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(index)
    large = torch.randn(2, CHANNELS, ROWS, COLUMNS, generator=generator)
    small = torch.randn(2, CHANNELS, 6, 2 + 2 * index, generator=generator)
    return ([large.requires_grad_(), small],)


@twin(inputs=_two_images, labels=lambda seen: [patches(seen), None], unlabeled=(1,))
def list_of_images_of_several_sizes() -> nn.Module:
    class Ragged(Patches):
        def forward(self, x: list[Tensor]) -> list[Tensor]:
            return [self.stem(image) for image in x]

    return Ragged(lambda self, x: x)


@twin(calls=4, labels=prior)
def experts_chosen_by_a_number() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        chosen = int(self.gate(x).mean(0).argmax())
        self.counts[chosen] += 1
        return self.experts[chosen](x)

    experts = nn.ModuleList([nn.Linear(WIDTH, 5) for _ in range(3)])
    return Patches(forward, gate=nn.Linear(WIDTH, 3), experts=experts, counts=[0, 0, 0])


@twin(calls=4, labels=prior)
def experts_chosen_for_each_sample() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        chosen = self.gate(x).argmax(1).tolist()
        return torch.cat(
            [self.experts[n](sample) for n, sample in zip(chosen, x.split(1), strict=True)]
        )

    experts = nn.ModuleList([nn.Linear(WIDTH, 5) for _ in range(3)])
    return Patches(forward, gate=nn.Linear(WIDTH, 3), experts=experts)


@twin(labels=tokens)
def mixture_of_experts_over_tokens() -> nn.Module:
    """Boolean masks choose the tokens of each expert, and `index_add` puts them back."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        flat = x.reshape(-1, x.shape[2])
        weights, chosen = self.gate(flat).softmax(-1).max(-1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            (where,) = torch.where(chosen == number)
            out = out.index_add(0, where, expert(flat[where]) * weights[where, None])
        return out.view_as(x)

    experts = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
    return Patches(forward, gate=nn.Linear(WIDTH, 3), experts=experts)


@twin(labels=tokens)
def tokens_masked_and_put_back() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        mask = x.mean(-1) > 0
        out = x.clone()
        out[mask] = self.layer(x[mask])
        return out

    return Patches(forward, layer=nn.Linear(WIDTH, WIDTH))


@twin(labels=lambda seen: tokens(seen).flatten(0, 1)[seen.model.mask.flatten()])
def tokens_kept_by_a_mask() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        self.mask = x.detach().mean(-1) > 0
        return x[self.mask]

    return Patches(forward)


@twin(labels=tokens)
def loss_only_where_values_say_so() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        self.aux_loss = x.square().mean() if x.mean() > 0 else None
        return x

    return Patches(forward)


@twin(labels=patches)
def assertion_on_values() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        assert torch.isfinite(x).all()
        torch._assert(bool(x.abs().max() < 1e6), "too large")
        return x

    return Patches(forward)


@twin(labels=patches)
def formatted_and_printed_values() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.text = f"{x.mean():.3f} {x.std().item():.2f} {x[0, 0, 0]}"
        return x

    return Patches(forward)


@twin(labels=patches)
def recursion_by_value() -> nn.Module:
    def forward(self: Any, x: Tensor, depth: int = 0) -> Tensor:
        if depth > 4 or x.abs().mean() < 0.3:
            self.depth = depth
            return x
        return forward(self, self.layer(x) * 0.7, depth + 1)

    return Patches(forward, layer=nn.Conv2d(WIDTH, WIDTH, 1))


@twin(calls=2, labels=patches)
def nothing_passes_the_threshold() -> nn.Module:
    """A mask that chooses nothing."""

    def forward(self: Any, x: Tensor) -> Tensor:
        self.found = torch.nonzero(x > 1e9).shape[0]
        return x if self.found == 0 else x.flip(2)

    return Patches(forward)


@twin(refuses="leave torch")
def features_computed_in_numpy() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        array = np.sort(x.detach().numpy(), axis=1)
        return torch.from_numpy(array) * 2

    return Patches(forward)


@twin(refuses="leave torch", context=lambda index: torch.no_grad())
def features_added_from_numpy() -> nn.Module:
    return Patches(lambda self, x: x + torch.as_tensor(np.tanh(np.asarray(x))))


@twin(refuses="leave torch")
def features_from_a_list() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return self.head(torch.tensor([sorted(row) for row in x.tolist()]))

    return Patches(forward, head=nn.Linear(WIDTH, 3))


@twin(refuses="a number of the image leaves torch")
def number_comes_back_as_an_output() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Any:
        return {"map": x, "spread": torch.tensor([x.std().item(), 1.0]) * 2}

    return Patches(forward)


@twin(labels=lambda seen: [patches(seen), None], unlabeled=(1,))
def constant_made_in_forward_is_an_output() -> nn.Module:
    def forward(self: Any, x: Tensor) -> list[Tensor]:
        self.mean = x.mean().item()
        return [x, torch.tensor(0.0)]

    return Patches(forward)


@twin(refuses="vmap")
def image_inside_vmap() -> nn.Module:
    return Patches(lambda self, x: torch.vmap(lambda one: one / (1 + one.square().sum()))(x))


@twin(labels=patches)
def attention_map_logged_as_an_array() -> nn.Module:
    """An array of the image's values that never comes back."""

    def forward(self: Any, x: Tensor) -> Tensor:
        self.map = x.detach().mean(1).numpy().copy()
        return self.layer(x)

    class Positions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = np.linspace(0, 1, x.shape[2], dtype=np.float32)[:, None]
            return x + torch.from_numpy(np.sin(rows)) + torch.tensor([0.25])

    return Patches(forward, layer=Positions())


@twin(labels=patches)
def grid_of_positions_from_numpy() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        grid = np.stack(np.meshgrid(*map(np.arange, x.shape[2:]), indexing="ij")).sum(0)
        return x + torch.tensor(grid.tolist(), dtype=torch.float32) / x.shape[2]

    return Patches(forward)


@twin(labels=patches)
def mask_from_numpy_gates() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        mask = x.detach().numpy() > 0
        return x * torch.from_numpy(mask) * torch.from_numpy(mask.astype(np.float32))

    return Patches(forward)
