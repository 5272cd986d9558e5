"""Views: the operator itself, given the number of each cell."""

import torch

from tests.rules.cases.case import Refusal, RuleCase, values
from tests.rules.cases.expected_labels import PADDED, moves, no_label, spread

ATEN = "torch.ops.aten."
BLOCKS = (2, 3, 10, 21)
"""Rows of 2 * 5 and columns of 3 * 7: windows."""
PIXELS = (2, 3, 10, 14)
IN_WINDOWS = "x.view(-1, 3, 2, 5, 3, 7).permute(0, 2, 4, 3, 5, 1)"

RESHAPED = {
    "x.view(x.shape[0], 3, 35)": "aten.view.default",
    "x.view(-1, 3, 1, 5, 7)": "aten.view.default",
    "x.mT.contiguous().view(-1, 3, 35)": "aten.view.default",
    "x.permute(0, 2, 3, 1).contiguous().view(-1, 35, 3)": "aten.view.default",
    "x.permute(0, 2, 3, 1).reshape(-1, 7, 3)": "aten.reshape",
    "x.permute(0, 2, 3, 1).flatten(0, 1).reshape(-1, 5, 7, 3)": "aten.reshape",
    "x.permute(0, 3, 2, 1).reshape(-1, 5, 7, 3)": "aten.reshape",
    "x.flatten(2).mT.reshape(-1, 7, 5, 3)": "aten.reshape",
    f"{ATEN}_unsafe_view(x, [x.shape[0], 3, 35])": "aten._unsafe_view",
    f"{ATEN}_unsafe_view(x.flatten(2), [-1, 3, 7, 5])": "aten._unsafe_view",
    f"{ATEN}_reshape_alias(x, [x.shape[0], 3, 35], [105, 35, 1])": "aten._reshape_alias",
    f"{ATEN}_reshape_copy(x.permute(0, 2, 3, 1), [-1, 35, 3])": "aten._reshape_copy",
    "x.flatten(2)": "aten.flatten",
    "x.flatten(-2)": "aten.flatten",
    "x.flatten(2, 2)": "aten.flatten",
    "x.permute(0, 2, 3, 1).flatten(0, 1)": "aten.flatten",
    "x.permute(0, 2, 3, 1)[:, :, 1:].flatten(0, -2)": "aten.flatten",
    "x.permute(2, 3, 0, 1).flatten(0, 1)": "aten.flatten",
    "x.flatten(2).unflatten(2, (5, 7))": "aten.unflatten",
    "x.flatten(2).mT.unflatten(-2, (5, -1))": "aten.unflatten",
    "x.flatten(1).unflatten(1, (3, -1))": "aten.unflatten",
    "x.unflatten(1, (1, 3))": "aten.unflatten",
    "x.flatten(0, 1).unflatten(0, (-1, 3))": "aten.unflatten",
    "x.flatten(2).view_as(x)": "aten.view_as",
    "x.flatten(2).view_as(x.mT)": "aten.view_as",
    "x.reshape_as(x.flatten(2))": "aten.reshape_as",
    "x[:, 0, 1:].ravel()": "aten.ravel",
    "x.permute(0, 2, 3, 1)[:, :4, :, 1].mT.ravel()": "aten.ravel",
}
SQUEEZED = {
    "x.squeeze()": (2, 3, 1, 7),
    "x.squeeze(2)": (2, 3, 1, 7),
    "x.squeeze(-2)": (2, 3, 1, 7),
    "x.squeeze((2, 4))": (2, 3, 1, 5, 1),
    "x.squeeze((1, 2))": (2, 1, 1, 5, 7),
    "x.squeeze([-1, 1])": (2, 3, 5, 1),
    "x.squeeze(1)": (2, 1, 5, 7),
    "x.squeeze(3)": (2, 3, 5, 7),
    "x[:, :1].squeeze(1)": (2, 3, 5, 7),
    "x[:, :, 1:2].squeeze(2)": (2, 3, 5, 7),
}
MERGED = {  # positions inside the axis of the channels
    "x.view(x.shape[0], 15, 7)": ("aten.view.default", 1),
    "x.permute(0, 2, 3, 1).flatten(2)": ("aten.flatten", 2),
    "x.flatten(1)": ("aten.flatten", 1),
    "x.permute(0, 2, 1, 3).flatten(2)": ("aten.flatten", 2),
    "x.permute(0, 3, 2, 1).reshape(-1, 7, 15)": ("aten.reshape", 2),
    "x.flatten(0, 1)": ("aten.flatten", 0),
}
WINDOWED = {
    f"{IN_WINDOWS}.reshape(-1, 5, 7, 3)": "aten.reshape",
    f"{IN_WINDOWS}.reshape(-1, 35, 3)": "aten.reshape",
    f"{IN_WINDOWS}.flatten(3, 4).flatten(1, 2)": "aten.flatten",
    f"{IN_WINDOWS}.reshape(-1, 35, 3).view(-1, 2, 3, 5, 7, 3).permute(0, 1, 3, 2, 4, 5)"
    ".reshape(-1, 10, 21, 3)": "aten.reshape",
    "x.unflatten(3, (3, 7)).unflatten(2, (2, -1))": "aten.unflatten",
    "x.view(-1, 3, 2, 5, 3, 7).permute(0, 3, 5, 2, 4, 1).flatten(0, 2)": "aten.flatten",
}
MOVED = {
    "x.permute(0, 2, 3, 1)": "aten.permute",
    "x.permute(0, -2, -1, 1)": "aten.permute",
    "x.permute(3, 1, 0, 2)": "aten.permute",
    "x.flatten(2).permute(2, 0, 1)": "aten.permute",
    f"{ATEN}permute_copy(x, [0, -1, 1, 2])": "aten.permute_copy",
    "x.transpose(1, 2)": "aten.transpose",
    "x.transpose(-1, -2)": "aten.transpose",
    "x.transpose(0, -1)": "aten.transpose",
    "x.transpose(2, 2)": "aten.transpose",
    "x.flatten(2).transpose(1, 2)": "aten.transpose",
    "x[0, :, 1].t()": "aten.t",
    "x[:, 2, :, 3].t()": "aten.t",
    "x[0, :, 1, 1].t()": "aten.t",
    f"{ATEN}swapaxes(x, 1, -1)": "aten.swapaxes",
    f"{ATEN}swapdims(x, -2, 1)": "aten.swapdims",
    f"{ATEN}numpy_T(x)": "aten.numpy_T",
    "x[:, 0, :, 0].T": "aten.numpy_T",
    "x.mT": "aten.mT",
    "x.flatten(2).mT": "aten.mT",
    "x.movedim(1, 3)": "aten.movedim",
    "x.movedim(-1, 0)": "aten.movedim",
    "x.movedim((1, 0), (-1, 2))": "aten.movedim",
    "x.movedim((3, 1, 0), (0, 2, 1))": "aten.movedim",
    f"{ATEN}moveaxis.int(x, 1, -1)": "aten.moveaxis",
    f"{ATEN}moveaxis.intlist(x, [1, 2], [-1, 1])": "aten.moveaxis",
    "x.unsqueeze(0)": "aten.unsqueeze",
    "x.unsqueeze(2)": "aten.unsqueeze",
    "x.unsqueeze(-1)": "aten.unsqueeze",
    "x.unsqueeze(-5)": "aten.unsqueeze",
    "x[:, 1].unsqueeze(1)": "aten.unsqueeze",
    "x.unsqueeze(4).transpose(1, 4)": "aten.transpose",
}
EXPANDED = {
    "x.expand(2, -1, -1, -1, -1)": "aten.expand",
    "x[:, :1].expand(-1, 11, -1, -1)": "aten.expand",
    "x[:, :1].expand(x.shape[0], 11, 5, 7)": "aten.expand",
    "x[:, 0].unsqueeze(1).expand(-1, 11, -1, -1)": "aten.expand",
    "x.unsqueeze(3).expand(-1, -1, -1, 11, -1)": "aten.expand",
    "x.unsqueeze(3).expand(-1, -1, -1, 11, -1).flatten(3)": "aten.expand",
    "x.unsqueeze(4).expand(-1, -1, -1, -1, 11).flatten(3)": "aten.expand",
    "x[:, :, 2].unsqueeze(2).expand(-1, -1, 11, -1)": "aten.expand",
    "x.unsqueeze(1).expand(-1, 11, -1, -1, -1).flatten(0, 1)": "aten.expand",
    "x.unsqueeze(3).permute(0, 1, 4, 3, 2).expand(-1, -1, -1, 2, -1)": "aten.expand",
    "x.expand(x.shape)": "aten.expand",
    "x[:, :1].expand_as(x)": "aten.expand_as",
    "torch.broadcast_tensors(x[:, :1], x)[0]": "aten.broadcast_tensors",
    "x.expand_as(x.expand(2, -1, -1, -1, -1))": "aten.expand_as",
    f"{ATEN}broadcast_to(x, [11, x.shape[0], 3, 5, 7])": "aten.broadcast_to",
    f"{ATEN}broadcast_to(x[:, :1], [x.shape[0], 11, 5, 7])": "aten.broadcast_to",
}

CASES = (
    *(RuleCase(name, code, moves) for code, name in RESHAPED.items()),
    *(RuleCase("aten.squeeze", code, moves, shape=shape) for code, shape in SQUEEZED.items()),
    *(RuleCase(name, code, spread(moves, dim)) for code, (name, dim) in MERGED.items()),
    *(RuleCase(name, code, moves, shape=BLOCKS) for code, name in WINDOWED.items()),
    RuleCase(
        "aten.reshape",
        "x.view(-1, 3, 2, 5, 3, 7).permute(0, 2, 4, 1, 3, 5).reshape(-1, 2, 3, 105)",
        spread(moves, 3),
        shape=BLOCKS,
    ),
    *(RuleCase(name, code, moves) for code, name in MOVED.items()),
    *(RuleCase(name, code, moves) for code, name in EXPANDED.items()),
    # Blocks of pixels become channels, and channels blocks of pixels.
    RuleCase("aten.pixel_unshuffle", "F.pixel_unshuffle(x, 2)", spread(moves, 1), shape=PIXELS),
    RuleCase("aten.pixel_shuffle", "F.pixel_shuffle(x, 2)", moves, shape=(2, 12, 5, 7)),
    RuleCase(
        "aten.pixel_shuffle", "F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2)", moves, shape=PIXELS
    ),
    # A block's rows are channels, its columns positions.
    RuleCase(
        "aten.pixel_shuffle",
        "F.pixel_shuffle(x.unflatten(3, (-1, 2)).movedim(4, 2).flatten(1, 2), 2)",
        moves,
        shape=(2, 6, 5, 14),
    ),
    # Channels last.
    RuleCase("aten.view.default", "x.view(-1, 35, 3)", moves, shape=(2, 5, 7, 3), channel_dim=3),
    RuleCase("aten.flatten", "x.flatten(0, 2)[3:]", moves, shape=(2, 5, 7, 3), channel_dim=3),
    RuleCase("aten.permute", "x.permute(0, 3, 1, 2)", moves, shape=(2, 5, 7, 3), channel_dim=3),
    # A single position repeated, and a batch taken apart.
    RuleCase("aten.expand", "x.expand(-1, -1, 5, -1)", moves, shape=(2, 3, 1, 7)),
    RuleCase("aten.broadcast_to", "x[:, :, 1:2].broadcast_to(x.shape)", moves),
    RuleCase("aten.view.default", "x.view(2, 2, 3, 5, 7).mT", moves, shape=(4, 3, 5, 7)),
    RuleCase("aten.view.default", "x.view(3, -1, 3, 35)[1]", moves, shape=(6, 3, 5, 7)),
    # The other tensor gives the shape alone.
    RuleCase("aten.view_as", "self.table.view_as(x[0])", no_label, {"table": values(105)}),
    RuleCase("aten.reshape_as", "self.table.reshape_as(x[0])", no_label, {"table": values(105)}),
    RuleCase("aten.expand_as", "self.row.expand_as(x)", no_label, {"row": values(7)}),
    RuleCase(
        "aten.expand_as",
        "torch.cat([self.row.expand_as(x[:, :, :1]), x], 2)",
        moves,
        {"row": torch.full((7,), PADDED)},
    ),
)

REFUSED = (
    Refusal("x.permute(2, 0, 3, 1).reshape(35, -1, 3)", "cuts through a factor"),
    Refusal("x.view(x.shape[0], 5, 3, 7)", "cuts through a factor"),
    Refusal("x.permute(0, 2, 3, 1).reshape(-1, 3, 35)", "cuts through a factor"),
    Refusal("x.permute(0, 2, 1, 3).reshape(-1, 3, 5, 7)", "cuts through a factor"),
)
