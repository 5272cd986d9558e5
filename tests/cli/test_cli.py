"""The command line: what it prints, how it ends, and that the demonstration shows what happened."""

from __future__ import annotations

import functools
import json
import math
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision.transforms.v2.functional as vision
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import labeltrace
from labeltrace.cli import app
from labeltrace.cli import demo as demo_module
from labeltrace.demo import DemoModel, label_grid, label_maps, run_demo
from labeltrace.errors import LayoutError, WeightsUnavailableError
from labeltrace.model_loading import LoadedModel, load_model, timm_weights
from labeltrace.photographs import (
    mix_photographs,
    normalize,
    read_photograph,
    sample_photographs,
)
from tests.helpers.command_line_models import (
    Tiny,
)

QUIET = Console(quiet=True)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app.app, list(arguments), env={"COLUMNS": "200"})


def explain_json(name: str, *options: str) -> Any:
    result = run("explain", name, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# explain. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chatty", "instance", "Tiny"])
def test_json_is_one_document_with_the_counts_of_the_trace(name: str) -> None:
    document = explain_json(f"tests.helpers.command_line_models:{name}", "--image-size", "20")
    assert document["input_size"] == [3, 20, 20]
    assert document["mode"] == "eval"
    assert document["batch"]["dynamic"] is True
    assert document["batch"]["smallest"] == 2
    assert document["approximations"] == []
    counts = {name: count for name, count in document["counts"].items() if name != "constant"}
    assert counts == {"spatial aggregation": 2, "pointwise": 1, "channel mixing": 1}
    found = labeltrace.trace(Tiny().eval(), torch.zeros(2, 3, 20, 20))
    assert document["counts"] == found.counts()
    assert [node["name"] for node in document["nodes"]] == [node.name for node in found.nodes]
    modules = {node["operation"]: node["module"] for node in document["nodes"]}
    assert modules["pointwise"] == "norm"
    assert modules["channel mixing"] == "classifier"


def test_table_has_modules_counts_and_batch() -> None:
    result = run("explain", "tests.helpers.command_line_models:Tiny", "--image-size", "20")
    assert result.exit_code == 0
    for words in (
        "eval mode, input (3, 20, 20)",
        "patches",
        "aten.conv2d",
        "5 position",
        "Counts",
        "every node is exact",
        "Batch: dynamic, 2 or more images",
    ):
        assert words in result.stdout


def test_timm_models_are_traced_without_their_memory() -> None:
    document = explain_json("vit_tiny_patch16_224", "--image-size", "48")
    assert document["input_size"] == [3, 48, 48]
    assert document["counts"]["spatial mixing"] == 12
    assert document["counts"]["residual"] == 24
    assert any("10 position" in (node["layout"] or "") for node in document["nodes"])  # 9 + class
    loaded = load_model("vit_tiny_patch16_224", device="meta")
    assert all(parameter.is_meta for parameter in loaded.model.parameters())
    assert loaded.example().is_meta


def test_train_mode_is_told_from_eval_mode() -> None:
    train = explain_json("tests.helpers.command_line_models:Tiny", "--train", "--image-size", "20")
    assert train["mode"] == "train"
    found = labeltrace.trace(Tiny().train(), torch.zeros(2, 3, 20, 20))
    assert train["counts"] == found.counts()
    assert train["counts"] != labeltrace.trace(Tiny().eval(), torch.zeros(2, 3, 20, 20)).counts()


def test_approximations_are_counted_and_listed_alone() -> None:
    name = ("tests.helpers.command_line_models:Pooled", "--image-size", "24")
    document = explain_json(*name, "--approximate")
    (node,) = document["nodes"]
    assert "max_pool2d" in node["operator"]
    assert document["approximations"] == [
        {"reason": node["approximation"], "count": 1, "nodes": [node["name"]]}
    ]
    assert len(explain_json(*name)["nodes"]) > 1
    result = run("explain", *name, "--approximate")
    assert "Approximations" in result.stdout
    assert "aten.linear" not in result.stdout


def test_fixed_batch_says_why() -> None:
    name = ("tests.helpers.command_line_models:BatchOfTwo", "--image-size", "32")
    batch = explain_json(*name)["batch"]
    assert batch["dynamic"] is False
    assert batch["smallest"] == batch["largest"] == 2
    assert batch["fixed_because"]
    assert "Batch: fixed at 2, because " in run("explain", *name).stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deit_smal_patch16_224", ("no model named", "deit_small_patch16_224")),
        (
            "deit_small_patch16_224.fb_in2k",
            ("fb_in2k", "timm's weights of this model: deit_small_patch16_224.fb_in1k"),
        ),
        ("package.models", ("no model named", "package.module:factory")),
        ("", ("no model named",)),
        (
            "nowhere.models:build",
            ("there is no module 'nowhere' to import; install it, or run in the folder",),
        ),
        ("tests.nowhere:build", ("no module 'tests.nowhere'",)),
        (":build", ("importing", "Empty module name")),
        (
            "tests.helpers.command_line_models:chaty",
            ("has nothing named 'chaty'", "chatty"),
        ),
        ("tests.helpers.command_line_models:number", ("of type int", "callable")),
        (
            "tests.helpers.command_line_models:failing",
            ("seven is not even", "command_line_models.py:", "raise ValueError"),
        ),
        (
            "tests.helpers.command_line_models:needing_arguments",
            ("failed in its own code: TypeError", "depth"),
        ),
        (
            "tests.helpers.command_line_models:returning_nothing",
            ("returned a NoneType", "torch.nn.Module"),
        ),
        (
            "tests.helpers.command_line_models:Unruly",
            ("aten.cumprod", "labeltrace.align(model, rules="),
        ),
    ],
)
def test_errors_are_one_message_and_exit_code_one(name: str, words: tuple[str, ...]) -> None:
    result = run("explain", name)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_module_whose_own_import_fails_is_told_from_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needing_more.py").write_text("import a_thing_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    result = run("explain", "needing_more:build")
    assert result.exit_code == 1
    assert "needing_more.py:1: import a_thing_that_is_not_there" in result.stderr


def test_models_are_found_in_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Conv2d(3, 5, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    document = explain_json("my_models:build", "--image-size", "3")
    assert document["counts"] == {"channel mixing": 1}


def test_a_model_that_branches_on_values_is_explained_as_it_ran() -> None:
    result = run("explain", "tests.helpers.command_line_models:Branching")
    assert result.exit_code == 0, result.stderr


def test_image_smaller_than_the_model_allows() -> None:
    result = run("explain", "tests.helpers.command_line_models:Tiny", "--image-size", "3")
    assert result.exit_code == 1
    assert "(2, 3, 3, 3)" in result.stderr


# Photographs. -------------------------------------------------------------------------------------


def test_missing_scikit_learn_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = run("demo", "-o", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert result.exit_code == 1
    assert "pip install scikit-learn" in result.stderr
    assert "pip install 'labeltrace[demo]'" in result.stderr


def test_photographs_are_square_and_in_range() -> None:
    for photograph in sample_photographs(37):
        assert photograph.pixels.shape == (3, 37, 37)
        assert photograph.pixels.dtype == torch.float32
        assert 0 <= photograph.pixels.min() < 0.2 and 0.8 < photograph.pixels.max() <= 1


def test_own_image_keeps_its_middle(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    wide = Image.new("RGB", (30, 10), "blue")
    wide.paste("red", (10, 0, 15, 10))
    wide.paste("white", (15, 0, 20, 10))
    wide.save(path)
    photograph = read_photograph(path, 10)
    assert photograph.name == "wide"
    expected = torch.ones(3, 10, 10)
    expected[1:, :, :5] = 0
    assert torch.equal(photograph.pixels, expected)


def test_normalize_is_torchvisions() -> None:
    pixels = torch.rand(2, 3, 5, 7)
    mean, std = [0.1, 0.2, 0.3], [0.7, 1.1, 1.3]
    torch.testing.assert_close(
        normalize(pixels, mean, std), vision.normalize(pixels, mean=mean, std=std)
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not an image", "is not an image in a format that Pillow reads"),
        (None, "cannot be read: No such file or directory; give the path of an image"),
    ],
)
def test_unreadable_image_is_one_error(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    result = run("demo", "--images", str(path), str(path), "-o", str(tmp_path))
    assert result.exit_code == 1
    assert f"picture.png {words}" in result.stderr
    assert "Traceback" not in result.stderr


# The demonstration. -------------------------------------------------------------------------------


class Still(nn.Module):
    """Patches and nothing else, so that labels stay where they are; features in any layout."""

    def __init__(self, arrangement: str) -> None:
        super().__init__()
        self.arrangement = arrangement
        self.patches = nn.Conv2d(3, 7, 32, stride=32)
        self.class_tokens = nn.Parameter(torch.zeros(1, 2, 7))
        self.num_prefix_tokens = 2 if arrangement == "prefixed tokens" else 0
        self.classifier = nn.Linear(7, 11)

    def forward_features(self, images: Tensor) -> Tensor:
        features = self.patches(images)
        if self.arrangement == "channels first":
            return features
        if self.arrangement == "channels last":
            return features.permute(0, 2, 3, 1)
        tokens = features.flatten(2).transpose(1, 2)
        if self.arrangement == "tokens":
            return tokens
        return torch.cat([self.class_tokens.expand(len(images), -1, -1), tokens], 1)

    def forward_head(self, features: Tensor) -> Tensor:
        if self.arrangement == "channels first":
            features = features.flatten(2).transpose(1, 2)
        if self.arrangement == "channels last":
            features = features.flatten(1, 2)
        return self.classifier(features[:, self.num_prefix_tokens :].mean(1))


ARRANGEMENTS = ("channels first", "channels last", "tokens", "prefixed tokens")
MODELS = [DemoModel(arrangement.title(), arrangement) for arrangement in ARRANGEMENTS]


def load_still(name: str, pretrained: bool = False) -> LoadedModel:
    if pretrained and name != "tokens":
        raise WeightsUnavailableError("the weights are on the moon")
    return LoadedModel(Still(name), (3, 224, 224))


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_maps_lie_as_the_image_does(arrangement: str) -> None:
    batch = mix_photographs(sample_photographs())
    maps = label_maps("still", load_still(arrangement), batch)
    by_hand = torch.stack(
        [
            torch.stack([patch.mean() for patch in row.split(32, 1)])
            for row in batch.labels[0, 0].split(32, 0)
        ]
    )
    assert by_hand.unique().numel() > 2  # the box cuts through patches
    assert (by_hand - by_hand.T).abs().max() > 0.5  # rows cannot pass for columns
    torch.testing.assert_close(maps.original, by_hand)
    torch.testing.assert_close(maps.aligned, by_hand)
    assert maps.ratio_before == pytest.approx(by_hand.mean().item())
    assert maps.ratio_after == pytest.approx(by_hand.mean().item())


def test_grid_needs_a_square_and_one_channel_axis() -> None:
    with pytest.raises(LayoutError, match="6 tokens after 1 prefix tokens form no square map"):
        label_grid(torch.zeros(1, 7, 5), torch.zeros(1, 7, 2), prefix_tokens=1)
    with pytest.raises(LayoutError, match="neither tokens"):
        label_grid(torch.zeros(1, 7), torch.zeros(1, 2))


def test_mixture_is_the_two_photographs_where_labels_say() -> None:
    first, second = sample_photographs(64)
    batch = mix_photographs((first, second))
    share = batch.labels[0, 0]
    torch.testing.assert_close(batch.images[0], share * first.pixels + (1 - share) * second.pixels)
    assert 0.3 < share.mean() < 0.7
    assert torch.equal(mix_photographs((first, second)).images, batch.images)


def test_tiny_models_of_timm_blend_labels() -> None:
    tiny = {
        "vit": {"img_size": 64, "patch_size": 16, "embed_dim": 12, "depth": 2, "num_heads": 3},
        "swin": {
            **{"img_size": 64, "patch_size": 4, "embed_dim": 6, "window_size": 4},
            **{"depths": (2, 2), "num_heads": (1, 2)},
        },
        "convnext": {"depths": (1, 1, 1, 1), "dims": (4, 6, 8, 10)},
    }
    names = {
        "vit": "vit_tiny_patch16_224",
        "swin": "swin_tiny_patch4_window7_224",
        "convnext": "convnext_atto",
    }

    def load(name: str, pretrained: bool) -> LoadedModel:
        return LoadedModel(timm.create_model(names[name], **tiny[name]), (3, 64, 64))

    before = torch.get_rng_state()
    result = run_demo(
        sample_photographs(64), [DemoModel(name, name) for name in tiny], load=load, console=QUIET
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert [maps.aligned.shape for maps in result.maps] == [(4, 4), (8, 8), (2, 2)]
    for maps in result.maps:
        assert maps.original.mean().item() == pytest.approx(maps.ratio_before, abs=1e-6)
        assert maps.original.min() <= maps.aligned.min()
        assert maps.aligned.max() <= maps.original.max()
        assert (maps.aligned - maps.original).abs().max() > 0.01
    for maps in result.maps[1:]:  # these average their tokens
        assert maps.ratio_after == pytest.approx(maps.aligned.mean().item(), abs=1e-6)


def demo_with_still_models(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    with_still = functools.partial(run_demo, models=MODELS, load=load_still)
    monkeypatch.setattr(demo_module, "run_demo", with_still)
    return run("demo", *arguments)


def test_demo_prints_ratios_and_writes_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "folder"
    result = demo_with_still_models(monkeypatch, "-o", str(folder))
    assert result.exit_code == 0, result.output
    share = f"{100 * mix_photographs(sample_photographs()).mixing_ratio[0, 0].item():.3f}"
    for model in MODELS:
        row = next(line for line in result.stdout.splitlines() if f"│ {model.title} " in line)
        assert row.count(share) == 2  # labels stood still
        assert "+0.000" in row
        assert "random" in row
    assert "Random weights" in result.stdout
    (figure,) = folder.iterdir()
    assert str(figure) in result.stdout
    with Image.open(figure) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 800


def test_demo_without_weights_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = demo_with_still_models(monkeypatch, "--pretrained", "-o", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert result.stderr.count("the weights are on the moon") == 1
    assert result.stderr.count("has random weights") == 3
    weights = [line.split("│")[2].strip() for line in result.stdout.splitlines() if "│" in line]
    assert [word for word in weights if word in ("random", "trained")] == [
        "random",
        "random",
        "trained",
        "random",
    ]
    assert "Random weights of Channels First, Channels Last, Prefixed Tokens" in result.stdout


def test_output_that_cannot_be_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below"):
        result = run("demo", "-o", str(path))
        assert result.exit_code == 2
        assert "Traceback" not in result.stderr
    told = " ".join(re.findall(r"\w+", result.stderr))  # without the box around it
    assert "cannot create the folder" in told


# Trained weights. ---------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_weights, "try_to_load_from_cache", lambda *_: None)


def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_unreachable_hub_is_tried_once(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()  # a port where nobody answers
    no_cache(monkeypatch)
    no_proxy(monkeypatch)
    monkeypatch.setattr(timm_weights.constants, "ENDPOINT", address)
    tried: list[object] = []
    connect = socket.create_connection

    def counting(*arguments: Any) -> socket.socket:
        tried.append(arguments)
        return connect(*arguments)

    monkeypatch.setattr(socket, "create_connection", counting)
    with pytest.raises(WeightsUnavailableError, match=r"127\.0\.0\.1 cannot be reached"):
        load_model("vit_tiny_patch16_224", pretrained=True)
    assert len(tried) == 1


def test_proxy_is_tried_in_the_place_of_the_hub(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_cache(monkeypatch)
    no_proxy(monkeypatch)
    monkeypatch.setattr(timm_weights.constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")

    def download(name: str, **options: Any) -> nn.Module:
        assert options == {"pretrained": True}
        raise OSError("the proxy said no")

    monkeypatch.setattr(timm, "create_model", download)
    with pytest.raises(
        WeightsUnavailableError, match="its weights could not be downloaded: OSError: the proxy"
    ):
        load_model("vit_tiny_patch16_224", pretrained=True)


def test_cached_weights_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = timm.create_model("test_vit")
    path = tmp_path / "model.safetensors"
    save_file(trained.state_dict(), path)
    asked: list[tuple[str, str]] = []

    def cached(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(path)

    monkeypatch.setattr(timm_weights, "try_to_load_from_cache", cached)
    monkeypatch.setattr(socket, "create_connection", None)
    loaded = load_model("test_vit", pretrained=True).model
    assert asked == [(timm.get_pretrained_cfg("test_vit").hf_hub_id, "model.safetensors")]
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


@pytest.mark.parametrize("name", ["mixer_s16_224", "tests.helpers.command_line_models:Tiny"])
def test_models_without_trained_weights(name: str) -> None:
    with pytest.raises(WeightsUnavailableError):
        load_model(name, pretrained=True)


def test_example_has_the_models_size_and_dtype() -> None:
    loaded = LoadedModel(Tiny().double(), (3, 5, 7))
    assert loaded.example().shape == (2, 3, 5, 7)
    assert loaded.example().dtype == torch.float64
    assert math.prod(LoadedModel(nn.Flatten(), (1, 2, 3)).example(5).shape) == 30
