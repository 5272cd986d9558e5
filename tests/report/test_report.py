"""What a report holds, against attention rollout, windows drawn by hand, and the trace itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from labeltrace import labels_at
from labeltrace.cli import app
from labeltrace.errors import ReportError
from labeltrace.flow import Operation
from labeltrace.inspection.observer import Observer
from labeltrace.report import atomic_text_file, render_page
from labeltrace.report.build import MANY_PLACES, MIN_SIDE, _side_length
from tests.helpers.small_models import (
    attention_maps,
    small_convnext,
    small_swin,
    small_vit,
)
from tests.helpers.small_reports import (
    document,
    images_and_labels,
    levels,
    loaded,
    maxima_of_tokens,
    node_named,
    report_of,
    shares,
)

HALF_A_LEVEL = 0.5 / 255 + 1e-6
CELLS = (5, 7)  # small_vit's patches
MODELS = [small_vit, small_swin, small_convnext, maxima_of_tokens]


@pytest.mark.parametrize("make", MODELS)
def test_every_node_of_the_trace_is_there_once_and_folds_into_its_modules(
    make: Callable[[], nn.Module],
) -> None:
    report, model = document(make), make()
    observer = Observer(model, torch.zeros(1, *loaded(make).input_size))
    traced = [n for n in observer.trace.nodes if n.operation is not Operation.CONSTANT]
    nodes, modules = report["nodes"], report["modules"]
    assert [n["name"] for n in nodes] == [
        observer.trace.capture.traced_input,
        *(n.name for n in traced),
    ]
    kinds = {path: type(module).__name__ for path, module in model.named_modules()}
    for node, expected in zip(nodes[1:], traced, strict=True):
        assert node["path"] == expected.module_path and node["operator"] == expected.operator
        assert [nodes[i]["name"] for i in node["inputs"]] == list(expected.inputs)
        assert node["rule"] and (node["map"] is None) is not expected.labeled
        assert bool(node["why"]) is (node["map"] is None)
    for index, module in enumerate(modules):
        inside = [n for n in nodes if f"{n['path']}.".startswith(f"{module['path']}.")]
        assert len(inside) > 1 and module["kind"] == kinds[module["path"]]
        outer = module["parent"]
        assert outer is None or outer < index
        for node in inside:  # the innermost of its modules is this one or lies in it
            chain = [node["module"]]
            while chain[-1] is not None:
                chain.append(modules[chain[-1]]["parent"])
            assert index in chain


@pytest.mark.parametrize("make", MODELS)
def test_label_maps_are_the_labels_at_every_node(make: Callable[[], nn.Module]) -> None:
    report, (images, labels) = document(make), images_and_labels(make)
    observer = Observer(make(), images)
    names = [node["name"] for node in report["nodes"] if node["map"] is not None]
    for name, found in labels_at(observer, images, labels, names).items():
        shown = report["maps"][node_named(report, name)["map"]]
        second = found.labels[0, :, 1]
        assert shown["tokens"] == len(second)
        assert shown["mean"] == pytest.approx(float(second.mean()), abs=1e-4)
        if found.grid is None:
            assert shown["shares"] is None and shown["why"]
            continue
        assert (shown["rows"], shown["columns"]) == found.grid.shape
        if max(found.grid.shape) <= 56:
            expected = found.map()[0, 1]
            assert (levels(shown["shares"]) / 255 - expected).abs().max() <= HALF_A_LEVEL


def test_sources_of_a_plain_vit_are_attention_rollout() -> None:
    report, (images, _) = document(small_vit), images_and_labels(small_vit)
    tokens = torch.cat([torch.full((1, 35), 1 / 35), torch.eye(35)]).double()  # class token first
    rolled = {}
    for index, attention in enumerate(attention_maps(small_vit(), images)):
        tokens = (tokens + attention[0] @ tokens) / 2
        rolled[f"blocks.{index} · Block"] = tokens
    layers = {layer["title"]: layer["sources"] for layer in report["layers"]}
    assert set(rolled) <= set(layers) and tuple(report["cells"]) == CELLS
    for title, expected in rolled.items():
        found = report["sources"][layers[title]]
        assert (found["rows"], found["columns"], found["others"]) == (*CELLS, [0])
        assert (found["kept_rows"], found["kept_columns"]) == ([*range(5)], [*range(7)])
        wanted = torch.cat([expected[1:], expected[:1]]).unflatten(1, CELLS)
        peaks = wanted.flatten(1).amax(1)[:, None, None]
        off = (shares(found) / peaks).sqrt() - (wanted / peaks).sqrt()
        assert off.abs().max() <= HALF_A_LEVEL + 1e-3  # peaks have five digits
        assert max(found["elsewhere"]) < 1e-4


def test_what_attention_reads_is_its_matrix_and_the_rest_is_the_class_token() -> None:
    report, (images, _) = document(small_vit), images_and_labels(small_vit)
    mixing = [n for n in report["nodes"] if n["operation"] == "spatial mixing"]
    for node, attention in zip(mixing, attention_maps(small_vit(), images), strict=True):
        reach = report["reaches"][node["reach"]]
        assert reach["entering"] == 36 and (reach["windows"], reach["tiles"]) == (0, 0)
        assert reach["read"] == [35, 35]  # of those that lie in the image
        found = torch.tensor(reach["sources"]["elsewhere"])
        expected = torch.cat([attention[0, 1:, 0], attention[0, :1, 0]])
        torch.testing.assert_close(found, expected.float(), atol=2e-5, rtol=0)
        total = shares(reach["sources"]).flatten(1).sum(1) + found
        torch.testing.assert_close(total, torch.ones(36).double(), atol=0.02, rtol=0)


def windows(size: int, shift: int) -> Tensor:
    """Which window of two each of ``size`` positions is in, after a shift with a mask."""
    return (torch.arange(size) + shift) // 2


@pytest.mark.parametrize(("block", "shift"), [("layers.0.blocks.0", 0), ("layers.0.blocks.1", 1)])
def test_swins_windows_are_those_of_its_shift(block: str, shift: int) -> None:
    report = document(small_swin)
    (node,) = (
        n
        for n in report["nodes"]
        if n["path"] == f"{block}.attn" and n["operation"] == "spatial mixing"
    )
    reach = report["reaches"][node["reach"]]
    rows, columns = windows(6, shift), windows(10, shift)
    expected = rows[:, None] * 100 + columns
    found = levels(reach["groups"]).long()
    pairs = {*zip(found.flatten().tolist(), expected.flatten().tolist(), strict=True)}
    assert len(pairs) == len(expected.unique()) == len(found.unique()) == reach["windows"]
    read = {int(rows.bincount()[r] * columns.bincount()[c]) for r in rows for c in columns}
    assert reach["read"] == [min(read), max(read)]
    inside = shares(reach["sources"])  # nothing from other windows
    sampled = expected[reach["sources"]["kept_rows"]][:, reach["sources"]["kept_columns"]]
    for cells, window in zip(inside, sampled.flatten(), strict=True):
        assert (cells > 0).logical_and(expected != window).sum() == 0


def test_patch_merging_is_tiles_of_two_by_two() -> None:
    report = document(small_swin)
    (node,) = (
        n
        for n in report["nodes"]
        if "downsample" in n["path"] and n["operation"] == "spatial aggregation"
    )
    reach = report["reaches"][node["reach"]]
    assert (reach["tiles"], reach["windows"], reach["read"]) == (15, 0, [4, 4])
    tile = torch.arange(6)[:, None] // 2 * 5 + torch.arange(10) // 2
    assert torch.equal(levels(reach["groups"]).long(), tile)


def test_layers_go_from_the_image_through_blocks_and_mergers_to_the_output() -> None:
    layers = [layer["title"].partition(" ")[0] for layer in document(small_swin)["layers"]]
    blocks = ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.downsample", "layers.1.blocks.0"]
    assert layers == ["the", "patch_embed", *blocks, "head"]
    report = document(maxima_of_tokens)
    titles = [layer["title"] for layer in report["layers"]]
    assert titles[1].endswith("spatial aggregation") and report["layers"][0]["sources"] is None
    rough = [n for n in report["nodes"] if n["approximation"]]
    assert rough and rough[-1]["operator"] == "aten.amax"
    hidden = [report["maps"][n["map"]] for n in report["nodes"] if n["map"] is not None]
    assert any(shown["tokens"] == 11 and "no places" in shown["why"] for shown in hidden)


def test_many_places_have_smaller_samples() -> None:
    assert [
        _side_length(28, count) for count in (MANY_PLACES, MANY_PLACES + 4, 4 * MANY_PLACES + 16)
    ] == [28, 14, 7]
    assert _side_length(28, 10**6) <= MIN_SIDE


def test_the_page_holds_its_data_and_asks_for_nothing_else() -> None:
    text = render_page(report_of(small_vit))
    start = text.index('id="data">') + len('id="data">')
    assert json.loads(text[start : text.index("</script>", start)]) == document(small_vit)
    assert "{{" not in text[:start] and "sourceMappingURL" not in text
    assert len(text) < 2**20


# Files.


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("before")
    with pytest.raises(ZeroDivisionError), atomic_text_file(target) as write:
        raise ZeroDivisionError
    assert target.read_text() == "before" and list(tmp_path.iterdir()) == [target]
    with atomic_text_file(target) as write:
        write("after")
    assert target.read_text() == "after" and list(tmp_path.iterdir()) == [target]
    for path, words in [(tmp_path, "is a folder"), (tmp_path / "no" / "x.html", "must exist")]:
        with pytest.raises(ReportError, match=words), atomic_text_file(path):
            pytest.fail("the path was accepted as writable")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such_model"], "no model named"),
        (["vit_tiny_patch16_224", "--images", "no.png", "no.png"], "no.png cannot be read"),
        (["vit_tiny_patch16_224", "-o", "nowhere/report.html"], "nowhere"),
        (["vit_tiny_patch16_224", "--image-size", "0x3"], "no image size; write 224, or 192x320"),
        (
            ["tests.helpers.small_reports:maxima_of_tokens"],
            "224 x 224 pixels. Set another size with --image-size",
        ),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_no_file(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app.app, ["report", *arguments])
    assert result.exit_code != 0 and words in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_page_for_images_that_are_not_square(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    name = "tests.helpers.small_reports:maxima_of_tokens"
    result = CliRunner().invoke(
        app.app, ["report", name, "--image-size", "20x28", "-o", str(target)]
    )
    assert result.exit_code == 0, result.output
    assert str(target) in result.output and "MB" in result.output
    assert '"height":20,"width":28' in target.read_text(encoding="utf-8")
