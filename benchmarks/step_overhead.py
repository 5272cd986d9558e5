"""What labels add to a training step: forward, backward and optimizer, with labels and without.

    python benchmarks/step_overhead.py
    python benchmarks/step_overhead.py --models deit_small_patch16_224 --batch 8 --repeats 5
    python benchmarks/step_overhead.py --device cuda --batch 256 --autocast bfloat16 --steps 10

Both steps train the same model on the same CutMix-ed batch; one asks for aligned labels and makes
its targets of them, the other makes its targets of the mixing ratio. They take turns in one run,
each going first every other turn, so that what else the machine does and how warm it is falls on
both alike; ratios are medians over the turns of each turn's own ratio. The forward pass by itself
(in train mode, recording for backward) is timed likewise: all that labels add happens there.

On a machine that others use as well, `--clock cpu --threads 1` counts the processor's seconds.
The capture, once for each mode and input size, is not timed here: see trace_time.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from timm.data import resolve_model_data_config
from torch import Tensor

import labeltrace

MODELS = (
    "deit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s16_224",
    "mixer_b16_224",
    "convnext_tiny",
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
NUM_CLASSES = 1000


@dataclass(frozen=True)
class Pair:
    """Seconds of one job without labels and with them, a number a turn."""

    plain_seconds: tuple[float, ...]
    labelled_seconds: tuple[float, ...]

    @property
    def summary(self) -> dict[str, float]:
        pairs = zip(self.labelled_seconds, self.plain_seconds, strict=True)
        ratios = [labelled / plain for labelled, plain in pairs]
        low, high = _quartiles(ratios)
        return {
            "plain": statistics.median(self.plain_seconds),
            "labelled": statistics.median(self.labelled_seconds),
            "ratio": statistics.median(ratios),
            "lower_quartile_of_ratio": low,
            "upper_quartile_of_ratio": high,
        }


@dataclass(frozen=True)
class Result:
    """One model's figures; peak memory in MiB, on a GPU only."""

    model: str
    step: Pair
    forward: Pair
    plain_peak_memory: float | None
    labelled_peak_memory: float | None


class Bench:
    """A model, its optimizer and one mixed batch; each method is a job that can be timed."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.device = torch.device(options.device)
        self.autocast = DTYPES[options.autocast] if options.autocast else None
        dtype = DTYPES[options.dtype]
        with self.device:
            model = timm.create_model(name, num_classes=NUM_CLASSES)
            images = torch.rand(options.batch, *resolve_model_data_config(model)["input_size"])
            targets = torch.randint(NUM_CLASSES, (options.batch,))
        self.aligned = labeltrace.align(model.to(dtype).train())
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        self.batch = labeltrace.CutMix()(images.to(dtype), targets)
        self.mixing_ratio = self.batch.mixing_ratio  # plain CutMix knows it without a label image

    def plain_forward(self) -> tuple[Tensor, Tensor]:
        """(logits, labels): the mixing ratio stands for the labels."""
        with self._precision():
            return self.aligned(self.batch.images), self.mixing_ratio

    def labelled_forward(self) -> tuple[Tensor, Tensor]:
        """(logits, labels)."""
        with self._precision():
            return self.aligned(self.batch.images, self.batch.labels)

    def plain_step(self) -> None:
        self._step(self.plain_forward)

    def labelled_step(self) -> None:
        self._step(self.labelled_forward)

    def _step(self, forward: Callable[[], tuple[Tensor, Tensor]]) -> None:
        logits, labels = forward()
        targets = self.batch.soft_targets(labels, NUM_CLASSES, smoothing=0.1)
        labeltrace.soft_cross_entropy(logits, targets).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


def measure(name: str, options: argparse.Namespace) -> Result:
    """Time one model."""
    bench = Bench(name, options)
    jobs = (bench.plain_step, bench.labelled_step, bench.plain_forward, bench.labelled_forward)
    for _ in range(options.warmup):
        for job in jobs:
            job()
    peaks = [_peak_memory(job, bench.device) for job in jobs[:2]]
    turns = [_turn(jobs, turn, bench.device, options) for turn in range(options.repeats)]
    plain_step, labelled_step, plain_forward, labelled_forward = zip(*turns, strict=True)
    return Result(
        name, Pair(plain_step, labelled_step), Pair(plain_forward, labelled_forward), *peaks
    )


def _turn(
    jobs: Sequence[Callable[[], object]],
    turn: int,
    device: torch.device,
    options: argparse.Namespace,
) -> list[float]:
    """Time every job once, in the other direction every other turn; seconds in the jobs' order."""
    clock = CLOCKS[options.clock]
    order = range(len(jobs)) if turn % 2 == 0 else reversed(range(len(jobs)))
    seconds = [0.0] * len(jobs)
    for index in order:
        _synchronise(device)
        start = clock()
        for _ in range(options.steps):
            jobs[index]()
        _synchronise(device)
        seconds[index] = (clock() - start) / options.steps
    return seconds


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _peak_memory(job: Callable[[], object], device: torch.device) -> float | None:
    """MiB that a job needs at most, all that is allocated included; None without a GPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    job()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were taken on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def table(results: Sequence[Result], title: str) -> Table:
    found = Table(title=title)
    found.add_column("model")
    for heading in ("plain ms", "with labels ms", "ratio", "quartiles"):
        found.add_column(f"step:\n{heading}", justify="right")
    for heading in ("plain ms", "with labels ms", "ratio"):
        found.add_column(f"forward:\n{heading}", justify="right")
    memory = any(result.plain_peak_memory for result in results)
    if memory:
        found.add_column("peak MiB:\nplain", justify="right")
        found.add_column("peak MiB:\nwith labels", justify="right")
    for result in results:
        step, forward = result.step.summary, result.forward.summary
        cells = [
            f"{1e3 * step['plain']:.1f}",
            f"{1e3 * step['labelled']:.1f}",
            f"{step['ratio']:.3f}",
            f"{step['lower_quartile_of_ratio']:.3f}–{step['upper_quartile_of_ratio']:.3f}",
            f"{1e3 * forward['plain']:.1f}",
            f"{1e3 * forward['labelled']:.1f}",
            f"{forward['ratio']:.3f}",
        ]
        if memory:
            cells += [f"{result.plain_peak_memory:.0f}", f"{result.labelled_peak_memory:.0f}"]
        found.add_row(result.model, *cells)
    return found


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    progress = Console(stderr=True)
    results: list[Result] = []
    for name in options.models:
        progress.print(f"{name} ...", style="dim")
        results.append(measure(name, options))
    precision = f"{options.dtype}, autocast {options.autocast or 'off'}"
    title = f"A training step with labels (K = 2), batch {options.batch}, {precision}"
    Console(width=None if sys.stdout.isatty() else 140).print(table(results, title))
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        measured = [
            asdict(result)
            | {"step_summary": result.step.summary, "forward_summary": result.forward.summary}
            for result in results
        ]
        document = {
            "machine": machine(torch.device(options.device)),
            "options": settings,
            "results": measured,
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm names")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--repeats", type=int, default=11, help="turns that are counted")
    parser.add_argument("--warmup", type=int, default=2, help="turns before those")
    parser.add_argument("--steps", type=int, default=1, help="steps timed together in one turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="the model's")
    parser.add_argument("--autocast", choices=("bfloat16", "float16"), help="off without it")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, help="of the processor; torch's choice without it")
    parser.add_argument("--json", type=Path, help="a file for every number")
    options = parser.parse_args()
    for name in ("batch", "repeats", "warmup", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if options.clock == "cpu" and options.device != "cpu":
        parser.error("--clock cpu does not see what a GPU does")
    return options


if __name__ == "__main__":
    main()
