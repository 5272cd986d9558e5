"""The report page in a real browser: what clicks and keys do, against the data in the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from labeltrace.report import render_page as page_text
from tests.helpers.small_models import small_swin, small_vit
from tests.helpers.small_reports import document, report_of, shares

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BLOCK = "layers.0.blocks.1"
HEAT_COVERS = 0.82  # of the photograph below


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("LABELTRACE_REQUIRE_BROWSER"):
            pytest.fail("there is no Chromium, which these tests are to run in; `make browser`")
        pytest.skip("there is no Chromium on the path; `make browser` installs one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def show(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens the page of a small model; at the end nothing was complained of or asked for."""
    folder: Path = tmp_path_factory.mktemp("pages")
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    complaints: list[str] = []
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on("console", lambda message: complaints.append(message.text))
    view = context.new_page()
    opened: set[str] = set()

    def open_page(make: Callable[[], nn.Module]) -> Any:
        file = folder / f"{make.__name__}.html"
        if not file.exists():
            file.write_text(page_text(report_of(make)), encoding="utf-8")
        opened.add(file.as_uri())
        view.goto(file.as_uri())
        view.wait_for_selector("body[data-ready]", timeout=20_000)
        return view

    yield open_page
    assert not complaints
    assert set(asked) <= opened | {url for url in asked if url.startswith("data:")}


def shown(report: dict[str, Any], opened: set[int]) -> set[str]:
    """What the graph shows while these modules are unfolded, by the ids of its elements."""

    def around(module: int | None) -> list[int]:
        return [] if module is None else [*around(report["modules"][module]["parent"]), module]

    found = set()
    for index, node in enumerate(report["nodes"]):
        for module in around(node["module"]):
            found.add(f"m{module}")
            if module not in opened:
                break
        else:
            found.add(f"n{index}")
    return found


def open_at_first(report: dict[str, Any]) -> set[int]:
    return {index for index, module in enumerate(report["modules"]) if module["open"]}


def module_named(report: dict[str, Any], path: str) -> int:
    return [module["path"] for module in report["modules"]].index(path)


def on_screen(view: Any) -> set[str]:
    return set(view.evaluate("graph.nodes().map((element) => element.id())"))


def chosen(view: Any) -> str:
    found: str = view.evaluate("idOf(current.chosen)")
    return found


def settled(view: Any) -> None:
    """Wait until what was chosen last is drawn; arrays are unpacked in the background."""
    view.evaluate("refresh()")


def click_element(view: Any, element: str) -> None:
    view.evaluate("(id) => { graph.center(graph.getElementById(id)); }", element)
    place = view.evaluate("(id) => graph.getElementById(id).renderedPosition()", element)
    box = view.locator("#graph").bounding_box()
    view.mouse.click(box["x"] + place["x"], box["y"] + place["y"])
    settled(view)


def click_cell(view: Any, canvas: str, row: int, column: int, rows: int, columns: int) -> None:
    box = view.locator(canvas).bounding_box()
    x, y = (column + 0.5) * box["width"] / columns, (row + 0.5) * box["height"] / rows
    view.locator(canvas).click(position={"x": x, "y": y})
    settled(view)


def note(view: Any, figure: str) -> str:
    return str(view.locator(f"#figure-{figure} .note").inner_text())


def percent(share: float, digits: int = 1) -> str:
    number = Decimal(100 * share).quantize(Decimal(10) ** -digits, ROUND_HALF_UP)  # as toFixed does
    return f"{number} %"


@pytest.mark.parametrize("make", [small_swin, small_vit])
def test_it_opens_with_something_to_see(
    show: Callable[..., Any], make: Callable[[], nn.Module]
) -> None:
    view, report = show(make), document(make)
    assert on_screen(view) == shown(report, open_at_first(report))
    assert report["model"] in view.inner_text("h1") and "Random weights." in view.inner_text(
        "#lead"
    )
    module = report["modules"][int(chosen(view)[1:])]
    assert view.inner_text("#chosen") == f"{module['path']} · {module['kind']}"
    assert view.inner_text("#inside ol") and view.inner_text("#facts dl")
    for figure in ("image", "reach", "tokens"):
        box = view.locator(f"#figure-{figure} canvas").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(
            report["width"] / report["height"], rel=0.01
        )
        assert note(view, figure)


def test_modules_fold_and_unfold_by_click_and_no_boxes_overlap(show: Callable[..., Any]) -> None:
    view, report = show(small_swin), document(small_swin)
    first, block = open_at_first(report), module_named(report, BLOCK)
    click_element(view, f"m{block}")
    assert on_screen(view) == shown(report, first | {block}) > shown(report, first)
    assert chosen(view) == f"m{block}"
    view.click("#unfold")
    assert on_screen(view) == shown(report, set(range(len(report["modules"]))))
    single = "graph.nodes(':childless')"
    boxes = view.evaluate(f"{single}.map((one) => one.boundingBox({{ includeOverlays: false }}))")
    for one, other in combinations(boxes, 2):
        apart_x = one["x2"] <= other["x1"] or other["x2"] <= one["x1"]
        assert apart_x or one["y2"] <= other["y1"] or other["y2"] <= one["y1"]
    view.click("#fold")
    assert on_screen(view) == shown(report, first)


@pytest.mark.parametrize("wanted", ["residual", "aten.matmul", "blocks.1.mlp", "layer_norm_3"])
def test_search_finds_and_jumps(show: Callable[..., Any], wanted: str) -> None:
    view, report = show(small_swin), document(small_swin)
    fields = ("name", "operator", "operation", "path")
    expected = [
        index
        for index, node in enumerate(report["nodes"])
        if any(wanted in node[field] for field in fields)
    ]
    view.keyboard.press("/")
    view.keyboard.type(wanted)
    told = view.locator("#hits")
    assert told.inner_text() == f"{len(expected)} hits"
    for number, index in enumerate(expected[:3], 1):
        view.keyboard.press("Enter")
        assert told.inner_text() == f"{number} of {len(expected)}"
        assert chosen(view) == f"n{index}" and f"n{index}" in on_screen(view)
    settled(view)
    assert report["nodes"][index]["name"] in view.inner_text("#chosen")
    view.keyboard.press("Escape")
    assert view.input_value("#search") == "" and told.inner_text() == ""


def test_the_slider_goes_through_the_layers(show: Callable[..., Any]) -> None:
    view, report = show(small_swin), document(small_swin)
    view.focus("#layer")
    view.keyboard.press("Home")
    for layer in report["layers"]:
        assert layer["title"] in view.inner_text("#layer-title")
        expected = f"n{layer['node']}" if layer["module"] is None else f"m{layer['module']}"
        assert chosen(view) == expected
        settled(view)
        shown_map = report["maps"][report["nodes"][layer["node"]]["map"]]
        assert f"together are {percent(shown_map['mean'])}" in note(view, "tokens")
        assert view.locator("#figure-tokens canvas").is_visible() is bool(shown_map["rows"])
        view.keyboard.press("ArrowRight")
    assert int(view.input_value("#layer")) == len(report["layers"]) - 1


def heat_is_true(
    view: Any, figure: str, sources: dict[str, Any], token: int, skip: set[tuple[int, int]]
) -> None:
    """Each cell's pixel is the color of its share, blended with the photograph."""
    found = shares(sources)[token]
    rows, columns = found.shape
    roots = (found / max(float(found.max()), 4 / found.numel())).sqrt()
    read = """([figure, rows, columns]) => {
        const { canvas } = figures[figure];
        const copy = new OffscreenCanvas(canvas.width, canvas.height);
        const pen = copy.getContext("2d", { willReadFrequently: true });
        pen.drawImage(canvas, 0, 0);
        return Array.from({ length: rows * columns }, (_, cell) => {
            const x = ((cell % columns + 0.5) * canvas.width) / columns;
            const y = ((Math.floor(cell / columns) + 0.5) * canvas.height) / rows;
            return pen.getImageData(x, y, 1, 1).data[1];
        });
    }"""
    greens = view.evaluate(read, [figure, rows, columns])
    stops = [255, 190, 40, 0]
    for cell, green in enumerate(greens):
        row, column = divmod(cell, columns)
        place = float(roots[row, column]) * 3
        low = min(int(place), 2)
        heat = stops[low] + (stops[low + 1] - stops[low]) * (place - low)
        if (row, column) not in skip:
            least = HEAT_COVERS * heat
            assert least - 3 <= green <= least + (1 - HEAT_COVERS) * 255 + 3, (row, column)


def test_a_click_on_a_token_shows_where_its_content_came_from(show: Callable[..., Any]) -> None:
    view, report = show(small_vit), document(small_vit)
    layer = next(one for one in report["layers"] if one["title"].startswith("blocks.1"))
    view.evaluate("(index) => goToLayer(index)", report["layers"].index(layer))
    sources = report["sources"][layer["sources"]]
    for row, column in [(1, 5), (4, 0)]:
        click_cell(view, "#figure-tokens canvas", row, column, 5, 7)
        token = row * 7 + column
        told = note(view, "image")
        assert f"row {row + 1}, column {column + 1}" in told
        assert percent(sources["peaks"][token]) in told
        around = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)}  # its frame
        heat_is_true(view, "image", sources, token, around)
        (node,) = (
            n
            for n in report["nodes"]
            if n["path"] == "blocks.1.attn" and n["operation"] == "spatial mixing"
        )
        reach = report["reaches"][node["reach"]]["sources"]
        heat_is_true(view, "reach", reach, token, around)
        assert percent(reach["elsewhere"][token]) in note(view, "reach")
    view.click("#others button")
    settled(view)
    even = sources["peaks"][35] * 35 < 1.5
    told = (
        "token 0 holds about as much"
        if even
        else f"token 0 came from: {percent(sources['peaks'][35])}"
    )
    assert told in note(view, "image").replace("Token", "token")
    assert view.get_attribute("#others button", "aria-pressed") == "true"


def test_a_click_on_the_image_shows_which_tokens_hold_it(show: Callable[..., Any]) -> None:
    view, report = show(small_vit), document(small_vit)
    layer = next(one for one in report["layers"] if one["title"].startswith("blocks.2"))
    view.evaluate("(index) => goToLayer(index)", report["layers"].index(layer))
    held = shares(report["sources"][layer["sources"]])
    click_cell(view, "#figure-image canvas", 3, 2, 5, 7)
    assert percent(float(held[:, 3, 2].max()), 2) in note(view, "tokens")
    click_cell(view, "#figure-image canvas", 0, 6, 5, 7)
    both = held[:, 3, 2] + held[:, 0, 6]
    assert percent(float(both.max()), 2) in note(view, "tokens")
    view.keyboard.press("Escape")
    settled(view)
    assert "together are" in note(view, "tokens")


def test_everything_is_reached_by_keyboard_alone(show: Callable[..., Any]) -> None:
    view, report = show(small_swin), document(small_swin)
    reached: dict[str, str] = {}
    for _ in range(60):
        view.keyboard.press("Tab")
        name, outline = view.evaluate(
            "() => { const at = document.activeElement;"
            " return [at.id || at.closest('figure')?.id || at.tagName,"
            " getComputedStyle(at).outlineStyle]; }"
        )
        if name in reached and name == "layer":
            break
        reached[name] = outline
    parts = {"layer", "search", "fold", "unfold", "zoom-in", "fit", "graph", "stretch"}
    figures = {"figure-image", "figure-reach", "figure-tokens"}
    assert parts | figures <= set(reached)
    assert all(reached[name] not in ("none", "") for name in parts | figures)

    view.focus("#graph")
    view.keyboard.press("Home")
    assert chosen(view) == "n0"
    while chosen(view) != f"m{module_named(report, BLOCK)}":
        before = chosen(view)
        view.keyboard.press("ArrowDown")
        assert chosen(view) != before
    opened = open_at_first(report) | {module_named(report, BLOCK)}
    view.keyboard.press("Enter")
    assert on_screen(view) == shown(report, opened)
    assert "unfolded" in view.inner_text("#announcement")
    view.keyboard.press("ArrowDown")
    assert report["nodes"][int(chosen(view)[1:])]["path"].startswith(BLOCK)
    view.keyboard.press("ArrowLeft")
    view.keyboard.press("ArrowLeft")
    assert on_screen(view) == shown(report, open_at_first(report))

    settled(view)
    view.focus("#figure-tokens canvas")
    for _ in range(9):
        view.keyboard.press("ArrowUp")
        settled(view)
        view.keyboard.press("ArrowLeft")
        settled(view)
    assert "row 1, column 1 " in note(view, "image")
    view.keyboard.press("ArrowDown")
    settled(view)
    assert "row 2, column 1 " in note(view, "image")
    view.focus("#figure-image canvas")
    view.keyboard.press("ArrowUp")
    view.keyboard.press("Enter")
    settled(view)
    assert note(view, "image").startswith("1 of ")
