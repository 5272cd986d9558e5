"""`labeltrace train`: what it learns is exact to the bit, and what goes wrong breaks nothing."""

from __future__ import annotations

import csv
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import timm
import torch
from hypothesis import given, settings
from PIL import Image
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torchvision.transforms.functional import pil_to_tensor
from typer.testing import CliRunner, Result

from labeltrace import AlignedModule
from labeltrace.cli import app
from labeltrace.errors import TrainingError
from labeltrace.mixing import CutMix, MixUp
from labeltrace.training import PRESETS, MixingSettings, Recipe, train, with_changes
from labeltrace.training import images as image_files
from labeltrace.training.callbacks import Callback
from labeltrace.training.distributed import explain_lost_process
from labeltrace.training.objective import Objective, align_model
from labeltrace.training.sampling import Position, Sampling, process_batches
from labeltrace.training.train_step import Update
from tests.helpers.training_runs import DEAD, draw_images, tiny

STATE = "training_state.pth"


class StopAfter(Callback):
    """Ends a run after an update."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_update(self, update: Update) -> None:
        if update.number == self.number:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from beginning to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(tiny(data), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, killed in the fifth update; its last checkpoint is from behind the fourth."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(KeyboardInterrupt):
        train(tiny(data), folder, device="cpu", callback=StopAfter(5))
    return folder


def state(folder: Path) -> Any:
    """All that a run learnt, without the time that it took."""
    found = torch.load(folder / STATE, weights_only=True)
    for epoch in found["epochs"]:
        del epoch["seconds"]
    return found


def check_alike(found: Any, expected: Any, **tolerances: float) -> None:
    """Compare states, leaf by leaf."""
    (found_leaves, spec), (leaves, expected_spec) = map(tree_flatten, (found, expected))
    assert spec == expected_spec
    for leaf, right in zip(found_leaves, leaves, strict=True):
        if isinstance(right, Tensor | float):
            torch.testing.assert_close(leaf, right, **tolerances)
        else:
            assert leaf == right


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app.app, ["train", "--quiet", *arguments])


# What a run learns. -------------------------------------------------------------------------------


def test_killed_run_goes_on_to_the_same_bits(
    data: Path, undisturbed: Path, killed: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(killed, tmp_path / "again")
    before = state(folder)
    assert before["position"] == (1, 1)
    train(tiny(data), folder, device="cpu", resume=True)
    expected, found = state(undisturbed), state(folder)
    assert found["position"] == (2, 0)
    check_alike(found, expected, rtol=0, atol=0)
    name = "blocks.0.attn.qkv.weight"
    for part in ("model", "average"):
        assert not torch.equal(before["state"][part][name], found["state"][part][name])


def test_compiled_run_learns_the_same(
    data: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the backend that runs the traced graph as it is: inductor's kernels take a minute."""
    compiled: list[nn.Module] = []

    def compile_traced(module: nn.Module) -> None:
        compiled.append(module)
        plainly(module, backend="aot_eager", fullgraph=True)

    plainly = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", compile_traced)
    recipe = with_changes(tiny(data), {"model.compile": True})
    train(recipe, tmp_path, device="cpu")
    assert [type(module) for module in compiled] == [AlignedModule]
    found, expected = state(tmp_path)["state"]["model"], state(undisturbed)["state"]["model"]
    check_alike(found, expected, rtol=1e-5, atol=1e-6)


def test_best_weights_are_a_plain_models_and_score_what_the_log_says(
    data: Path, undisturbed: Path
) -> None:
    recipe = tiny(data)
    with (undisturbed / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["updates"] for row in rows] == ["3", "6"]
    model = timm.create_model(
        recipe.model.name,
        **{**recipe.model.options, "img_size": 8, "num_classes": 3},
        checkpoint_path=str(undisturbed / "best.pth"),
    ).eval()
    right = []
    for number, name in enumerate(("columns", "plain", "rows")):
        for file in sorted((data / "val" / name).iterdir()):
            pixels = pil_to_tensor(Image.open(file))[None] / 255
            logits = model((pixels - 0.5) / 0.5)
            right.append(logits.argmax().item() == number)
    assert len(right) == 21
    best = max(float(row["validation_accuracy"]) for row in rows)
    assert sum(right) / 21 == pytest.approx(best)


def test_targets_move_with_the_content_and_only_then() -> None:
    torch.manual_seed(0)
    options = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", **options, num_classes=5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # so that attention looks somewhere
    images, targets = torch.randn(6, 3, 8, 8), torch.arange(6) % 5

    def loss(mixer: CutMix | MixUp, align: Any) -> Tensor:
        torch.manual_seed(1)
        objective = Objective(mixer, align != "off", num_classes=5, smoothing=0.1)
        return objective(align_model(model, align), images, targets)

    pasted = [loss(CutMix(mode="elem"), align) for align in ("full", "last", "off")]
    assert len({round(value.item(), 3) for value in pasted}) == 3
    blended = [loss(MixUp(), align) for align in ("full", "last", "off")]
    torch.testing.assert_close(blended[0], blended[2])  # every token has the same label
    torch.testing.assert_close(blended[1], blended[2])


def test_recipe_of_deit_runs_on_small_images(data: Path, tmp_path: Path) -> None:
    small = tiny(data)
    recipe = with_changes(
        PRESETS["deit-small"],
        {
            **{"model": small.model, "batch": 12, "schedule.epochs": 1},
            **{"data.folder": str(data), "data.workers": 0, "model.gradient_checkpointing": True},
        },
    )
    result = train(recipe, tmp_path, device="cpu")
    assert recipe.precision == "fp16" and recipe.data.repeats == 3
    assert recipe.learning_rate == pytest.approx(5e-4 * 12 / 512)
    assert 0 < result.history.epochs[0].training_loss < 2


def test_command_says_what_it_did(tmp_path: Path) -> None:
    result = run(
        *("-o", str(tmp_path), "--epochs", "1", "--warmup-epochs", "0", "--batch", "359"),
        *("--model-option", "embed_dim=12", "--model-option", "depth=1", "--align", "last"),
        *("--model-option", "patch_size=4", "--mixing", "mix", "--tensorboard"),
    )
    assert result.exit_code == 0, result.output
    for words in ("1437 images of 10 classes", "4 updates of 359", "last layer", "on 360 images"):
        assert words in result.stdout
    assert {file.name for file in tmp_path.iterdir()} == {
        *("best.pth", "last.pth", "log.csv", "recipe.json", "tensorboard", STATE)
    }
    again = run("-o", str(tmp_path))
    assert again.exit_code == 1 and "holds a run already" in again.stderr
    other = run("-o", str(tmp_path), "--resume", "--seed", "5", "--batch", "359")
    assert other.exit_code == 1
    assert "is another one" in other.stderr and "seed: 0 then, 5 now" in other.stderr


# Samples. -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_samples_depend_on_the_place_in_the_run_alone(drawn: st.DataObject) -> None:
    processes, accumulation, size, repeats = (drawn.draw(st.integers(1, 3)) for _ in range(4))
    parts = processes * accumulation
    samples = drawn.draw(st.integers(parts * size, 31))
    sampling = Sampling(samples, parts * size, parts, epochs=2, repeats=repeats, seed=7)

    def batches(position: Position, of_parts: range) -> Iterator[Any]:
        return sampling.batches(position, of_parts)

    whole = list(batches(Position(0, 0), range(parts)))
    assert len(whole) == 2 * sampling.updates * parts
    position = Position(drawn.draw(st.integers(0, 1)), drawn.draw(st.integers(0, sampling.updates)))
    skipped = (position.epoch * sampling.updates + position.updates) * parts
    assert list(batches(position, range(parts))) == whole[skipped:]
    for process in range(processes):
        own = range(process * accumulation, (process + 1) * accumulation)
        alone = list(batches(Position(0, 0), own))
        assert alone == [batch for i, batch in enumerate(whole) if i % parts in own]
    first = [draw for batch in whole[: len(whole) // 2] for draw in batch]
    assert len({draw.seed for draw in first}) == len(first) == sampling.updates * sampling.batch
    counts = torch.tensor([draw.image for draw in first]).bincount()
    assert counts.max() <= repeats


def test_every_validation_image_is_counted_once() -> None:
    shares = [process_batches(17, 4, process, 3) for process in range(3)]
    assert [[len(batch) for batch in share] for share in shares] == [[4, 2]] * 3
    indices = [index for share in shares for batch in share for index in batch]
    assert sorted(index for index in indices if index >= 0) == list(range(17))


# Two processes. -----------------------------------------------------------------------------------


def test_two_processes_learn_what_one_learns_and_survive_a_death(
    data: Path, undisturbed: Path, killed: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").symlink_to(data)
    shutil.copytree(killed, tmp_path / "fsdp2")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    ended = subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.helpers.training_runs", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 1
    assert re.search(rf"exitcode +: {DEAD} ", ended.stderr), ended.stderr
    expected = state(undisturbed)
    for engine in ("ddp", "fsdp2"):  # the second goes on from a state of one process
        found = state(tmp_path / engine)
        assert found["position"] == (2, 0)
        for part in ("state", "epochs", "fingerprint"):
            check_alike(found[part], expected[part], rtol=1e-4, atol=2e-5)
    assert state(tmp_path / "lost")["position"] == (0, 1)  # of the update before the death


def test_what_is_left_of_a_run_says_that_a_process_died() -> None:
    with (
        pytest.raises(TrainingError, match="another process of this run died"),
        explain_lost_process(),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer")
    with pytest.raises(RuntimeError, match="another matter"), explain_lost_process():
        raise RuntimeError("another matter")


# What goes wrong. ---------------------------------------------------------------------------------


def spoilt(data: Path, tmp_path: Path, fault: str) -> Path:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    if fault == "one class":
        for part in ("train", "val"):
            for name in ("plain", "rows"):
                shutil.rmtree(folder / part / name)
    elif fault == "other classes":
        shutil.rmtree(folder / "val" / "rows")
    elif fault == "no images":
        shutil.rmtree(folder / "train" / "rows")
        (folder / "train" / "rows").mkdir()
    elif fault == "no folder":
        shutil.rmtree(folder / "val")
    else:
        content = b"" if fault == "empty" else (folder / "train/rows/0.png").read_bytes()[:90]
        for file in (folder / "train" / "rows").iterdir():
            file.write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("one class", ("has one class, 'columns'",)),
        ("other classes", ("must have the same classes", "rows")),
        ("no images", ("rows", "Found no valid file")),
        ("no folder", ("there is no folder", "holds train/ and val/")),
        ("empty", ("train/rows/", "cannot be read: the file is empty")),
        ("cut off", ("train/rows/", "cannot be read: ", "or remove it")),
    ],
)
def test_images_that_cannot_be_used(
    data: Path, tmp_path: Path, fault: str, words: tuple[str, ...]
) -> None:
    folder = spoilt(data, tmp_path, fault)
    result = run(
        *("--data", str(folder), "-o", str(tmp_path / "run"), "--preset", "digits"),
        *("--batch", "12", "--device", "cpu"),
    )
    assert result.exit_code == 1
    assert "error: " in result.stderr and "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "run" / STATE).exists()


@pytest.mark.parametrize(
    ("settings_given", "words"),
    [
        (("--initial-weights", "{undisturbed}/best.pth"), "is a checkpoint of another model"),
        (("--initial-weights", "{undisturbed}/log.csv"), "cannot be read as a checkpoint"),
        (("--batch", "40"), "39 training images, fewer than a batch of 40"),
        (("--batch", "10", "--accumulation", "3"), "cannot be cut into 3 equal parts"),
        (("--mixing", "cutmax"), "strategy must be one of none, cutmix"),
        (("--optimizer", "adamm"), "no optimizer named 'adamm'"),
    ],
)
def test_settings_that_cannot_be_used(
    data: Path, undisturbed: Path, tmp_path: Path, settings_given: tuple[str, ...], words: str
) -> None:
    told = (text.format(undisturbed=undisturbed) for text in settings_given)
    base = ("--data", str(data), "--preset", "digits", "--batch", "12", "-o", str(tmp_path))
    result = run(*base, *told)
    assert result.exit_code == 1
    assert words in result.stderr and "Traceback" not in result.stderr


def test_full_disk_leaves_the_last_checkpoint(data: Path, killed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(killed, tmp_path / "full")
    before = (folder / STATE).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(TrainingError, match=f"{STATE} cannot be written: File too large"):
            train(tiny(data), folder, device="cpu", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / STATE).read_bytes() == before
    assert not list(folder.glob("*.unfinished"))


def test_diverging_run_stops_before_its_weights_are_lost(data: Path, tmp_path: Path) -> None:
    recipe = with_changes(tiny(data, checkpoint_updates=1), {"optimizer.learning_rate": 1e30})
    recipe = with_changes(recipe, {"schedule.name": "constant"})
    with pytest.raises(
        TrainingError, match=r"the (loss|gradient) is (nan|inf) in update \d of epoch 1"
    ):
        train(recipe, tmp_path, device="cpu")
    weights = state(tmp_path)["state"]["model"].values()
    assert all(weight.isfinite().all() for weight in weights)


def test_death_of_a_worker_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "read_image", lambda path: os._exit(3))
    recipe: Recipe = with_changes(
        tiny(data), {"data.workers": 1, "mixing": MixingSettings(align="off")}
    )
    with pytest.raises(TrainingError, match="a process that reads images died"):
        train(recipe, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model-option", "depth"), "is no option: write --model-option name=value"),
        (("--preset", "deit"), "there is no preset 'deit'; there are digits"),
        (("--preset", "deit-small"), "the preset deit-small needs images: give a folder"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments: tuple[str, ...], says: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())
