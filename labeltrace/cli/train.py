"""`labeltrace train`."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console

from labeltrace.cli.errors import report_errors
from labeltrace.mixing.pairing import Mode, Partner
from labeltrace.training import PRESETS, Recipe, train, with_changes
from labeltrace.training.callbacks import Callback, CallbackList, ProgressBar, TensorBoard
from labeltrace.training.parallel import Engine
from labeltrace.training.recipe import Alignment, Precision, Schedule, Strategy
from labeltrace.training.summary import summary

EXIT_INTERRUPTED = 130  # the exit code that shells report after Ctrl-C


def _choice(words: Any, help_text: str) -> Any:
    return typer.Option(metavar="|".join(get_args(words)), help=help_text)


def train_command(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Images in train/CLASS/ and val/CLASS/, or CIFAR; default: scikit-learn's digits.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", file_okay=False, help="Folder for all files.")
    ] = Path("run"),
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(PRESETS),
            help="Default settings; default: digits, or deit-small with --data.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder, if there is one.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="A timm name, or package.module:factory.")
    ] = None,
    model_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option of the model; can be repeated."),
    ] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Height and width.")] = None,
    pretrained: Annotated[
        bool | None, typer.Option("--pretrained", help="Start from timm's trained weights.")
    ] = None,
    initial_weights: Annotated[
        Path | None, typer.Option(help="Start from this checkpoint of the same model.")
    ] = None,
    grad_checkpointing: Annotated[
        bool | None, typer.Option("--grad-checkpointing", help="Recompute to save memory.")
    ] = None,
    compiled: Annotated[bool | None, typer.Option("--compile", help="Use torch.compile.")] = None,
    mixing: Annotated[str | None, _choice(Strategy, "How images are mixed.")] = None,
    align: Annotated[
        str | None,
        _choice(Alignment, "Align through the whole model, its last layer's attention, or not."),
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Parameter of lambda's Beta distribution.")
    ] = None,
    mixup_alpha: Annotated[float | None, typer.Option(help="The same for MixUp in mix.")] = None,
    switch: Annotated[float | None, typer.Option(help="Probability of CutMix in mix.")] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Side of a patch in pixels.")] = None,
    mode: Annotated[str | None, _choice(Mode, "Which images share a draw.")] = None,
    partner: Annotated[str | None, _choice(Partner, "How partners are found.")] = None,
    smoothing: Annotated[float | None, typer.Option(help="Label smoothing.")] = None,
    auto_augment: Annotated[str | None, typer.Option(help="A policy in timm's notation.")] = None,
    erasing: Annotated[float | None, typer.Option(help="Probability of erasing.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeated augmentation.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that read images.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="One of timm's.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate for this batch size.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient.")] = None,
    schedule: Annotated[str | None, _choice(Schedule, "Learning rate schedule.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs, warm-up included.")] = None,
    warmup_epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of warm-up.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images in one update, over all processes.")
    ] = None,
    accumulation: Annotated[
        int | None, typer.Option(min=1, help="Micro-batches of each process per update.")
    ] = None,
    precision: Annotated[str | None, _choice(Precision, "bf16 and fp16 use autocast.")] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Evaluate and export a moving average of weights.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    checkpoint_updates: Annotated[
        int | None, typer.Option(min=1, help="Also write the state every so many updates.")
    ] = None,
    engine: Annotated[
        str, _choice(Engine, "How several processes share the model (torchrun).")
    ] = "ddp",
    device: Annotated[
        str | None, typer.Option(help="Default: an accelerator if available.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write logs for TensorBoard.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train an image classifier with labels that follow the tokens.

    Without data, train a small ViT on digits, on a CPU, offline. On several GPUs or machines:
    torchrun --nproc-per-node 8 -m labeltrace train ...
    """
    chosen = _preset_name(preset, data)
    changes = {
        "data.folder": None if data is None else str(data),
        "model.image_size": image_size,
        "model.pretrained": pretrained,
        "model.initial_weights": None if initial_weights is None else str(initial_weights),
        "model.gradient_checkpointing": grad_checkpointing,
        "model.compile": compiled,
        "mixing.strategy": mixing,
        "mixing.align": align,
        "mixing.alpha": alpha,
        "mixing.mixup_alpha": mixup_alpha,
        "mixing.switch": switch,
        "mixing.patch": patch,
        "mixing.mode": mode,
        "mixing.partner": partner,
        "mixing.smoothing": smoothing,
        "data.auto_augment": auto_augment,
        "data.erasing": erasing,
        "data.repeats": repeats,
        "data.workers": workers,
        "optimizer.name": optimizer,
        "optimizer.learning_rate": lr,
        "optimizer.weight_decay": weight_decay,
        "optimizer.clip_norm": clip_norm,
        "schedule.name": schedule,
        "schedule.epochs": epochs,
        "schedule.warmup_epochs": warmup_epochs,
        "batch": batch,
        "accumulation": accumulation,
        "precision": precision,
        "ema_decay": ema_decay,
        "seed": seed,
        "checkpoint_updates": checkpoint_updates,
    }
    given: dict[str, Any] = {name: v for name, v in changes.items() if v is not None}
    with report_errors():
        recipe = _with_model(PRESETS[chosen], model, model_option or ())
        if lr is not None:
            given["optimizer.reference_batch"] = None
        recipe = with_changes(recipe, given)
        result = _train(
            recipe, output, resume, engine, device, _make_callback(output, quiet, tensorboard)
        )
    if result.is_first:
        typer.echo(summary(result))


def _train(
    recipe: Recipe, output: Path, resume: bool, engine: Any, device: str | None, callback: Callback
) -> Any:
    try:
        return train(recipe, output, resume=resume, engine=engine, device=device, callback=callback)
    except KeyboardInterrupt as error:
        typer.echo("Interrupted. Continue from the last checkpoint with --resume.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error


def _with_model(recipe: Recipe, name: str | None, options: Sequence[str]) -> Recipe:
    """The recipe with another model, which does not get the preset's options."""
    given = dict(_parse_option(text) for text in options)
    if name is None:
        return with_changes(recipe, {"model.options": {**recipe.model.options, **given}})
    return with_changes(
        recipe, {"model.name": name, "model.options": given, "model.image_size": None}
    )


def _parse_option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is no option: write --model-option name=value")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _preset_name(name: str | None, data: Path | None) -> str:
    chosen = name or ("digits" if data is None else "deit-small")
    if chosen not in PRESETS:
        raise typer.BadParameter(f"there is no preset {chosen!r}; there are {', '.join(PRESETS)}")
    if chosen != "digits" and data is None:
        raise typer.BadParameter(f"the preset {chosen} needs images: give a folder with --data")
    return chosen


def _make_callback(output: Path, quiet: bool, tensorboard: bool) -> Callback:
    if os.environ.get("RANK", "0") != "0":
        return Callback()
    bar = () if quiet else (ProgressBar(Console(stderr=True)),)
    board = (TensorBoard(output / "tensorboard"),) if tensorboard else ()
    return CallbackList((*bar, *board))
