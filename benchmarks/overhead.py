"""What labels add to a training step, beside the plain step and the paper's own method.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --models deit_small_patch16_224 --batch 1 2 4 8 --repeats 5
    python benchmarks/overhead.py --models deit_small_patch16_224 --resolution 224 384 512 --batch 2
    python benchmarks/overhead.py --modes eager compiled --memory --json overhead.json
    python benchmarks/overhead.py --device cuda --batch 256 --modes eager compiled \\
        --precisions float32 bfloat16 --steps 10

Three methods train the same model on the same CutMix-ed batch: `plain` makes its targets of the
mixing ratio, `aligned` of aligned labels over two sources, `paper` keeps a label over 1000 classes
at every token, as the paper does, with attention maps written out (see dense_labels.py).  They take
turns in one process, in another order each turn, so that what else the machine does and how warm
it is falls on all alike.  Ratios are medians over the turns of each turn's own ratio to `plain`,
with quartiles.

All that labels add runs in the forward pass, which is timed by itself too (in train mode, recording
for backward), `--forwards` times for each step: many short turns say more than few long ones.  `by
forward` is the ratio of a step that follows: one and what labels add to the forward pass, over the
plain step, with the standard error of the medians.  Aligned's part of what the paper's method adds
is that of a forward pass too; what attention that is not fused adds to the backward pass is left
out.

`floor` is the ratio that arithmetic alone allows: the operations of the step and the labels over
those of the step (see arithmetic.py).

Freed memory stays with the process where the C library is glibc (see freed_memory.py).

Peak memory is all that torch allocates at once for the model, its capture (and compilation) and two
steps; on a processor with `--memory` alone.

On a machine that others use as well, `--clock cpu --threads 1` counts the processor's seconds.
The capture, once for each mode and input size, is not timed here: see trace_time.py.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from arithmetic import Arithmetic, operations_of
from freed_memory import keep_freed_memory
from machine import machine
from peak_memory import peak_memory
from rich.console import Console
from rich.table import Table
from training_step import METHODS, PRECISIONS, Case, TrainingStep
from turns import CLOCKS, Ratio, by_job, ratio, take_turns

MODELS = (
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_b16_224",
    "convnext_tiny",
)

Seconds = dict[str, tuple[float, ...]]
"""Of each method, a number a turn."""


@dataclass(frozen=True)
class Result:
    """Seconds of steps and of forward passes; peak memory in MiB; operations by method."""

    case: Case
    step: Seconds
    forward: Seconds
    peak_memory: dict[str, float]
    arithmetic: dict[str, Arithmetic]

    def step_ratio(self, method: str) -> Ratio:
        """A step over the plain one."""
        return ratio(self.step[method], self.step["plain"])

    def forward_ratio(self, method: str) -> Ratio:
        """A forward pass over the plain one."""
        return ratio(self.forward[method], self.forward["plain"])

    def step_by_forward(self, method: str) -> Ratio:
        """A step over the plain one, by what labels add to the forward pass."""
        part = statistics.median(self.forward["plain"]) / statistics.median(self.step["plain"])
        found = self.forward_ratio(method)
        return Ratio(
            1 + part * (found.median - 1),
            1 + part * (found.lower_quartile - 1),
            1 + part * (found.upper_quartile - 1),
            part * found.standard_error,
        )

    def floor(self, method: str) -> float:
        """The ratio of a step that arithmetic alone allows."""
        counted = self.arithmetic[method]
        return 1 + counted.labels / counted.step

    def part_of_paper(self) -> tuple[float, float] | None:
        """What aligned labels add to a forward pass over what the paper's method adds, if it does.

        With its standard error.
        """
        if not {"aligned", "paper"} <= self.forward.keys():
            return None
        aligned, paper = self.forward_ratio("aligned"), self.forward_ratio("paper")
        added = paper.median - 1
        if added <= 0:
            return None
        part = (aligned.median - 1) / added
        return part, math.hypot(aligned.standard_error, part * paper.standard_error) / added

    def summary(self) -> dict[str, Any]:
        """All of these."""
        found: dict[str, Any] = {"part_of_paper": self.part_of_paper()}
        for method in self.step:
            found[method] = {
                "step_seconds": statistics.median(self.step[method]),
                "forward_seconds": statistics.median(self.forward[method]),
                "step": asdict(self.step_ratio(method)),
                "forward": asdict(self.forward_ratio(method)),
                "step_by_forward": asdict(self.step_by_forward(method)),
            }
        for method in self.arithmetic:
            found[method]["floor"] = self.floor(method)
        return found


def measure(case: Case, options: argparse.Namespace) -> Result:
    """Time one case."""
    training = TrainingStep(case, options.methods)
    steps = {method: partial(training.step, method) for method in options.methods}
    forwards = {method: partial(training.forward, method) for method in options.methods}
    how = (options.device, options.clock, options.steps)
    for turn in range(options.warmup):
        take_turns(steps, turn, *how)
        take_turns(forwards, turn, *how)
    training.check_methods()
    step_turns: list[dict[str, float]] = []
    forward_turns: list[dict[str, float]] = []
    for turn in range(options.repeats):
        step_turns.append(take_turns(steps, turn, *how))
        for again in range(turn * options.forwards, (turn + 1) * options.forwards):
            forward_turns.append(take_turns(forwards, again, *how))
    del training, steps, forwards  # the peak is that of one method
    return Result(
        case,
        by_job(step_turns),
        by_job(forward_turns),
        _peak_memory(case, options),
        operations_of(case, options.methods),
    )


def _peak_memory(case: Case, options: argparse.Namespace) -> dict[str, float]:
    if case.device == "cpu" and not options.memory:  # a profile takes long
        return {}
    return {m: peak_memory(partial(train, case, m), case.device) for m in options.methods}


def train(case: Case, method: str) -> None:
    """Two steps, the second of which finds the optimizer's moments."""
    training = TrainingStep(case, (method,))
    for _ in range(2):
        training.step(method)


def table(results: Sequence[Result], title: str) -> Table:
    """One row a case."""
    found = Table(title=title)
    headings = ("model", "batch", "pixels", "tokens", "mode", "precision", "plain\nstep ms")
    for heading in headings:
        found.add_column(heading, justify="left" if heading in ("model", "mode") else "right")
    methods = [method for method in METHODS[1:] if method in results[0].step]
    for method in methods:
        found.add_column(f"{method}:\nstep (quartiles)", justify="right")
        found.add_column("\nby forward", justify="right")
        found.add_column("\nforward", justify="right")
        found.add_column("\nfloor", justify="right")
    if len(methods) == 2:
        found.add_column("aligned's part\nof paper's extra", justify="right")
    if results[0].peak_memory:
        found.add_column("peak MiB\nplain", justify="right")
        for method in methods:
            found.add_column(f"ratio:\n{method}", justify="right")
    for result in results:
        found.add_row(*_row(result, methods))
    return found


def _row(result: Result, methods: Sequence[str]) -> Iterator[str]:
    case = result.case
    yield from (case.model, str(case.batch), str(case.resolution))
    yield str(result.arithmetic[methods[0]].tokens) if methods else ""
    yield from (case.mode, case.precision, f"{1e3 * statistics.median(result.step['plain']):.1f}")
    for method in methods:
        step = result.step_ratio(method)
        yield f"{step.median:.3f} ({step.lower_quartile:.3f}–{step.upper_quartile:.3f})"
        by_forward = result.step_by_forward(method)
        yield f"{by_forward.median:.4f} ± {by_forward.standard_error:.4f}"
        yield f"{result.forward_ratio(method).median:.3f}"
        yield f"{result.floor(method):.4f}"
    if len(methods) == 2:
        part = result.part_of_paper()
        yield "–" if part is None else f"{part[0]:.2f} ± {part[1]:.2f}"
    if result.peak_memory:
        plain = result.peak_memory["plain"]
        yield f"{plain:.0f}"
        yield from (f"{result.peak_memory[method] / plain:.3f}" for method in methods)


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """All combinations of the settings asked for."""
    settings = (options.resolution, options.batch, options.modes, options.precisions)
    for model in options.models:
        for resolution, batch, mode, precision in itertools.product(*settings):
            yield Case(model, batch, resolution, mode, precision, options.device)


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    kept = keep_freed_memory()
    progress = Console(stderr=True)
    results: list[Result] = []
    for case in cases(options):
        progress.print(f"{case} ...", style="dim")
        results.append(measure(case, options))
        torch.compiler.reset()
    title = "A training step with labels, over the plain step"
    Console(width=None if sys.stdout.isatty() else 220).print(table(results, title))
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        measured = [asdict(result) | {"summary": result.summary()} for result in results]
        found = machine(options.device) | {"freed_memory_kept": kept}
        document = {"machine": found, "options": settings, "results": measured}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, help="timm names")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--batch", nargs="+", type=int, default=[8], help="images a step")
    parser.add_argument("--resolution", nargs="+", type=int, default=[224], help="pixels a side")
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager"])
    parser.add_argument(
        "--precisions", nargs="+", choices=tuple(PRECISIONS), default=["float32"], help="autocast's"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--memory", action="store_true", help="peak memory on a processor too")
    parser.add_argument("--repeats", type=int, default=11, help="turns that are counted")
    parser.add_argument(
        "--forwards", type=int, default=1, help="turns of forward passes for each turn of steps"
    )
    parser.add_argument("--warmup", type=int, default=2, help="turns before those")
    parser.add_argument("--steps", type=int, default=1, help="steps timed together in one turn")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, help="of the processor; torch's choice without it")
    parser.add_argument("--json", type=Path, help="a file for every number")
    options = parser.parse_args()
    for name in ("repeats", "forwards", "warmup", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if "plain" not in options.methods:
        parser.error("--methods needs plain: all else is compared with it")
    if options.clock == "cpu" and options.device != "cpu":
        parser.error("--clock cpu does not see what a GPU does")
    return options


if __name__ == "__main__":
    main()
