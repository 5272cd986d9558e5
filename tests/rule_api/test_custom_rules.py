"""Rules of the user's own: operators, module classes, functions; the four worked examples."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import labeltrace
from labeltrace.flow import Carry, Constant, Flow, Operation, Weights
from labeltrace.layout import channel, renumbered
from labeltrace.rule_api import registry
from labeltrace.rule_api.call import Call
from labeltrace.rule_helpers import custom_step
from labeltrace.rule_helpers.elementwise import carry

ROWS, COLUMNS, FEATURES, SOURCES = 5, 7, 3, 2


@pytest.fixture(autouse=True)
def only_built_in_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test files for good is forgotten after it."""
    monkeypatch.setattr(registry, "_registered", registry._registered)


def label_image(batch: int = 2, *sizes: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(batch, SOURCES, *(sizes or (ROWS, COLUMNS)), generator=generator)
    return labels / labels.sum(1, keepdim=True)


def aligned_labels(model: nn.Module, image: Tensor, labels: Tensor, **settings: object) -> Tensor:
    """The labels of a model's output; the forward half must be the model's own."""
    aligned = labeltrace.align(model, **settings)
    torch.manual_seed(0)
    outputs, result = aligned(image, labels)
    torch.manual_seed(0)
    assert torch.equal(outputs, model(image))
    assert result.dtype == torch.float32
    assert not result.requires_grad
    assert (result >= 0).all()
    return result


# A torch.library operator.


@torch.library.custom_op("labeltrace_tests::shifted", mutates_args=())
def shifted(x: Tensor, rows: int) -> Tensor:
    return x.roll(rows, 2) * 2


@shifted.register_fake
def _(x: Tensor, rows: int) -> Tensor:
    return torch.empty_like(x)


class Shifting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return shifted(x, 2).tanh()


def roll_rows(call: Call) -> Flow:
    rows = call["rows"]
    return custom_step(
        lambda labels: labels.roll(rows, 1),
        call["x"],
        call.output,
        channels=(1,),
        operation=Operation.RELAYOUT,
    )


TARGETS = [
    "labeltrace_tests.shifted",
    shifted,
    torch.ops.labeltrace_tests.shifted,
    torch.ops.labeltrace_tests.shifted.default,
]


@pytest.mark.parametrize("target", TARGETS, ids=["name", "custom_op", "packet", "overload"])
def test_rule_for_a_library_operator(target: object) -> None:
    image, labels = torch.randn(2, 3, ROWS, COLUMNS), label_image()
    result = aligned_labels(Shifting(), image, labels, rules={target: roll_rows})
    assert torch.equal(result, labels.roll(2, 2))


# Which rule wins.


def test_the_nearest_rule_wins() -> None:
    image, labels = torch.randn(2, 3, ROWS, COLUMNS), label_image()
    name = "labeltrace_tests.shifted"

    def by(rows: int):
        def rule(call: Call) -> Flow:
            return custom_step(
                lambda field: field.roll(rows, 1), call["x"], call.output, channels=(1,)
            )

        return rule

    labeltrace.register_rule(name)(by(1))
    with labeltrace.using_rules({name: by(2)}):
        with labeltrace.using_rules({name: by(3)}):
            within = labeltrace.align(Shifting())
            given = labeltrace.align(Shifting(), rules={name: by(4)})
        between = labeltrace.align(Shifting())
    outside = labeltrace.align(Shifting())
    for rows, aligned in enumerate((outside, between, within, given), start=1):
        assert torch.equal(aligned(image, labels)[1], labels.roll(rows, 2))


def test_a_second_rule_needs_override() -> None:
    labeltrace.register_rule("labeltrace_tests.shifted")(roll_rows)
    with pytest.raises(
        ValueError,
        match=r"is served by roll_rows \(.*test_custom_rules.py:\d+\) already.* can replace it",
    ):
        labeltrace.register_rule("labeltrace_tests.shifted")(roll_rows)
    with pytest.raises(ValueError, match=r"aten.linear is served by linear"):
        labeltrace.register_rule("aten.linear")(roll_rows)
    labeltrace.register_rule("labeltrace_tests.shifted", override=True)(lambda call: Constant())
    assert labeltrace.align(Shifting())(torch.randn(2, 3, 5, 7), label_image())[1] is None


@pytest.mark.parametrize("target", [3, None, int, print, torch.Tensor])
def test_targets_that_can_have_no_rule(target: object) -> None:
    with pytest.raises(TypeError, match="can have no rule"):
        labeltrace.align(Shifting(), rules={target: roll_rows})
    with pytest.raises(TypeError, match="is not a function"), labeltrace.using_rules({"a.b": 3}):
        pass


# A module class: a global filter, which mixes all positions in the frequency domain.


class GlobalFilter(nn.Module):
    """Every channel's image is convolved circularly with a kernel learned as a spectrum."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        spectrum = torch.randn(ROWS, COLUMNS // 2 + 1, FEATURES, 2, generator=generator)
        self.spectrum = nn.Parameter(spectrum)

    def forward(self, x: Tensor) -> Tensor:
        frequencies = torch.fft.rfft2(x, dim=(1, 2))
        frequencies = frequencies * torch.view_as_complex(self.spectrum)
        return torch.fft.irfft2(frequencies, s=x.shape[1:3], dim=(1, 2))


class Filtering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, FEATURES, 1)
        self.filter = GlobalFilter()

    def forward(self, x: Tensor) -> Tensor:
        return self.filter(self.first(x).permute(0, 2, 3, 1)) + 1


def mix_by_spectrum(labels: Tensor, spectrum: Tensor) -> Tensor:
    """Labels (B, H, W, K) convolved with the mean of the channels' normalized kernels."""
    sizes = labels.shape[1:3]
    kernels = torch.fft.irfft2(torch.view_as_complex(spectrum), s=sizes, dim=(0, 1)).abs()
    kernel = (kernels / kernels.sum((0, 1))).mean(-1)
    product = torch.fft.rfft2(labels, dim=(1, 2)) * torch.fft.rfft2(kernel)[..., None]
    return torch.fft.irfft2(product, s=sizes, dim=(1, 2)).clamp_min(0)


def global_filter(call: Call) -> Flow:
    return custom_step(
        mix_by_spectrum,
        call["input0"],
        call.output,
        channels=(3,),
        tensors=[call.parameters["spectrum"]],
    )


def test_global_filter_mixes_as_its_jacobian_says() -> None:
    model, image, labels = Filtering().double(), torch.randn(2, 3, ROWS, COLUMNS), label_image()
    image = image.double()
    result = aligned_labels(model, image, labels, rules={GlobalFilter: global_filter})
    x = torch.randn(1, ROWS, COLUMNS, FEATURES, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(model.filter, x)[0, :, :, :, 0]
    matrices = torch.stack([jacobian[:, :, c, :, :, c] for c in range(FEATURES)]).abs()
    matrices = matrices / matrices.sum((3, 4), keepdim=True)
    expected = torch.einsum("hwij,bkij->bhwk", matrices.mean(0), labels.double())
    torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=0)


def test_a_module_is_one_node_of_the_trace() -> None:
    image = torch.randn(2, 3, ROWS, COLUMNS)
    trace = labeltrace.trace(Filtering(), image, rules={GlobalFilter: global_filter})
    filters = [node for node in trace.nodes if node.module_path.startswith("filter")]
    assert [(node.operator, str(node.operation)) for node in filters] == [
        ("GlobalFilter", "spatial mixing")
    ]


def test_a_module_whose_rule_refuses_it_is_told_once() -> None:
    def refuse(call: Call) -> Flow:
        raise labeltrace.LayoutError("the spectrum is of another size")

    with pytest.raises(
        labeltrace.LayoutError, match=r"(?s)1 node that.*the spectrum is of another"
    ):
        labeltrace.align(
            Filtering(), torch.randn(2, 3, ROWS, COLUMNS), rules={GlobalFilter: refuse}
        )


def test_the_rule_of_a_base_class_serves_its_subclasses() -> None:
    class Renamed(GlobalFilter):
        pass

    model = Filtering()
    model.filter = Renamed()
    image, labels = torch.randn(2, 3, ROWS, COLUMNS), label_image()
    assert aligned_labels(model, image, labels, rules={GlobalFilter: global_filter}) is not None


# A module class with inner values: deformable attention by grid_sample.


class DeformableAttention(nn.Module):
    """Every position samples the image at learned offsets and weighs the samples by a softmax."""

    def __init__(self, channels: int, points: int = 3) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(channels, 2 * points, 1)
        self.scores = nn.Conv2d(channels, points, 1)
        self.points = points

    def forward(self, x: Tensor) -> Tensor:
        batch, _, rows, columns = x.shape
        y = torch.linspace(-1, 1, rows, device=x.device).view(1, 1, rows, 1)
        x_axis = torch.linspace(-1, 1, columns, device=x.device).view(1, 1, 1, columns)
        offsets = self.offsets(x).tanh().view(batch, self.points, 2, rows, columns)
        places = torch.stack((x_axis + offsets[:, :, 0], y + offsets[:, :, 1]), -1)
        samples = [
            F.grid_sample(x, places[:, point], padding_mode="border", align_corners=True)
            for point in range(self.points)
        ]
        weights = self.scores(x).softmax(1)
        return (torch.stack(samples, 2) * weights[:, None]).sum(2)


def sample_labels(labels: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    """Labels (B, H, W, K) read at ``places`` (B, P, H, W, 2), weighed by (B, P, H, W)."""
    image = labels.movedim(-1, 1)
    samples = [
        F.grid_sample(image, places[:, point], padding_mode="border", align_corners=True)
        for point in range(places.shape[1])
    ]
    return (torch.stack(samples, 1) * weights[:, :, None]).sum(1).movedim(1, -1)


def deformable_attention(call: Call) -> Flow:
    return custom_step(
        sample_labels,
        call["input0"],
        call.output,
        channels=(1,),
        tensors=[call.inner["stack"], call.inner["softmax"]],
    )


def test_deformable_attention_reads_labels_where_it_reads_values() -> None:
    torch.manual_seed(3)
    attention = DeformableAttention(3)
    image, labels = torch.randn(2, 3, ROWS, COLUMNS), label_image()
    rules = {DeformableAttention: deformable_attention}
    result = aligned_labels(nn.Sequential(attention, nn.ReLU()), image, labels, rules=rules)
    # The offsets and scores are those of the image; the values may be anything, labels too.
    padded = torch.cat((labels, torch.zeros(2, 1, ROWS, COLUMNS)), 1)
    original = attention.offsets, attention.scores
    fixed = original[0](image), original[1](image)
    attention.offsets, attention.scores = (_Given(value) for value in fixed)
    expected = attention(padded)[:, :SOURCES]
    torch.testing.assert_close(result, expected.detach(), atol=1e-5, rtol=0)


class _Given(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        return self.value


# Token pruning: topk and gather, whose indices are known only when the model runs.


class Pruning(nn.Module):
    def __init__(self, kept: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, FEATURES, 1)
        self.score = nn.Linear(FEATURES, 1)
        self.kept = kept

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        indices = self.score(tokens).squeeze(-1).topk(self.kept, 1).indices
        return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, FEATURES))


def topk(call: Call) -> tuple[Flow, ...]:
    kept = renumbered((call["self"].traced_layout.axes[0], channel(call.output[1])))
    return Weights(layout=kept), Weights(layout=kept)


def gather_tokens(call: Call) -> Flow:
    def gathered(labels: Tensor, indices: Tensor) -> Tensor:
        return labels.gather(1, indices[..., :1].expand(-1, -1, labels.shape[-1]))

    return custom_step(
        gathered,
        call["self"],
        call.output,
        channels=(2,),
        tensors=[call["index"]],
        operation=Operation.RELAYOUT,
    )


def test_pruned_tokens_keep_their_labels() -> None:
    torch.manual_seed(4)
    model, image, labels = Pruning(), torch.randn(2, 3, ROWS, COLUMNS), label_image()
    rules = {"aten.topk": topk, "aten.gather": gather_tokens}
    result = aligned_labels(model, image, labels, rules=rules)
    tokens = model.embed(image).flatten(2).transpose(1, 2)
    kept = model.score(tokens).squeeze(-1).topk(3, 1).indices
    for sample in range(2):
        for place, index in enumerate(kept[sample].tolist()):
            row, column = divmod(index, COLUMNS)
            assert torch.equal(result[sample, place], labels[sample, :, row, column])


# A Python function that models call.


def reversed_rows(x: Tensor) -> Tensor:
    return x[:, :, torch.arange(x.shape[2] - 1, -1, -1)] * 1.5


class Reversing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return reversed_rows(reversed_rows(x) + 1).sigmoid()


def reverse(call: Call) -> Flow:
    return custom_step(lambda labels: labels.flip(1), call["input0"], call.output, channels=(1,))


def test_rule_for_a_function() -> None:
    image, labels = torch.randn(2, 3, ROWS, COLUMNS), label_image()
    function = reversed_rows
    rules = {reversed_rows: reverse}
    assert torch.equal(aligned_labels(Reversing(), image, labels, rules=rules), labels)
    trace = labeltrace.trace(Reversing(), image, rules=rules)
    assert [n.operator for n in trace.nodes if n.operator == "reversed_rows"] == [
        "reversed_rows",
        "reversed_rows",
    ]
    assert sys.modules[__name__].reversed_rows is function  # put back after the capture


def test_a_function_that_cannot_be_seen_is_refused() -> None:
    def hidden(x: Tensor) -> Tensor:
        return x

    with pytest.raises(
        labeltrace.CaptureError, match="hidden has a rule but is bound to no module"
    ):
        labeltrace.trace(
            Reversing(), torch.randn(2, 3, 5, 7), rules={hidden: reverse}, engine="captured"
        )


# Rules that return nonsense.


def wrong_axes(call: Call) -> Flow:
    return carry(call["x"], (*call.output[:-1], 11))


def no_flow(call: Call) -> object:
    return "nothing"


def too_many(call: Call) -> tuple[Flow, ...]:
    return (carry(call["x"], call.output),) * 2


def transposed_positions(call: Call) -> Flow:
    layout = call["x"].traced_layout
    return Carry(
        operation=Operation.POINTWISE,
        layout=renumbered((*layout.axes[:2], channel(ROWS), channel(COLUMNS))),
        source=call["x"],
    )


NONSENSE = {
    wrong_axes: "cannot be repeated|returned the layout",
    no_flow: r"the rule no_flow \(.*test_custom_rules.py:\d+\) returned str instead of a flow",
    too_many: r"the rule too_many \(.*:\d+\) returned 2 flows for 1 outputs",
    transposed_positions: r"the rule transposed_positions .* carries a label with the positions of",
}


@pytest.mark.parametrize("rule", NONSENSE, ids=lambda rule: rule.__name__)
def test_nonsense_is_reported_with_the_rules_own_line(rule: object) -> None:
    with pytest.raises(labeltrace.LayoutError, match=NONSENSE[rule]):
        labeltrace.align(
            Shifting(), torch.randn(2, 3, ROWS, COLUMNS), rules={"labeltrace_tests.shifted": rule}
        )


def test_a_label_function_that_returns_nonsense_is_reported() -> None:
    def rule(call: Call) -> Flow:
        return custom_step(lambda labels: labels.mean(1), call["x"], call.output, channels=(1,))

    aligned = labeltrace.align(Shifting(), rules={"labeltrace_tests.shifted": rule})
    with pytest.raises(
        labeltrace.LabelError, match=r"test_custom_rules.py:\d+\) returned \(2, 7, 2\)"
    ):
        aligned(torch.randn(2, 3, ROWS, COLUMNS), label_image())


def test_custom_steps_run_detached_and_outside_autocast() -> None:
    seen: list[tuple[bool, bool, torch.dtype]] = []

    def watch(labels: Tensor, weight: Tensor) -> Tensor:
        autocast = torch.is_autocast_enabled("cpu")
        seen.append((torch.is_grad_enabled(), autocast, (labels @ labels.mT).dtype))
        assert not weight.requires_grad
        return labels

    def rule(call: Call) -> Flow:
        return custom_step(
            watch,
            call["input0"],
            call.output,
            channels=(1,),
            tensors=[call.parameters["weight"]],
        )

    aligned = labeltrace.align(nn.Sequential(nn.Conv2d(3, 2, 1)), rules={nn.Conv2d: rule})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        aligned(torch.randn(2, 3, ROWS, COLUMNS), label_image())
    assert set(seen) == {(False, False, torch.float32)}
