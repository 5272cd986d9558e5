"""`labeltrace zoo families` and `labeltrace zoo sweep`."""

from __future__ import annotations

import datetime
import difflib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from labeltrace import models_zoo
from labeltrace.cli.errors import report_errors
from labeltrace.models_zoo.family import MEASURED_FILE
from labeltrace.progress import counting_bar
from labeltrace.zoo_sweep import coverage, expected, records, workers
from labeltrace.zoo_sweep.records import Outcome, Task

RESULTS = Path("zoo_sweep.jsonl")
PAGE = Path("docs/coverage.md")
DEFAULTS = workers.Limits()

app = typer.Typer(help="The architectures that labeltrace is tested on.", no_args_is_help=True)


@app.command("families")
def list_families() -> None:
    """List the families: source, number of models, the smallest, its images, papers."""
    table = Table("family", "source", "models", "smallest", "images", "papers (arXiv)")
    for family in models_zoo.families():
        sizes = f"{family.sizes.smallest} to {family.sizes.native}"
        papers = ", ".join(paper.arxiv for paper in family.papers)
        members = str(len(family.members))
        table.add_row(family.name, family.source, members, family.smallest, sizes, papers)
    Console().print(table)


@app.command()
def sweep(
    family: Annotated[
        list[str] | None, typer.Option(help="Only this family; can be repeated.")
    ] = None,
    all_members: Annotated[
        bool, typer.Option("--all", help="All models of each family, not only the smallest.")
    ] = False,
    numeric: Annotated[
        bool, typer.Option("--numeric", help="Also check numbers, on each family's smallest model.")
    ] = False,
    numeric_of: Annotated[
        int | None,
        typer.Option(min=1, help="Check numbers of only so many families, others every day."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Models checked at once.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep passed results, run the rest.")
    ] = False,
    results: Annotated[Path, typer.Option(help="The file of results, JSON lines.")] = RESULTS,
    page: Annotated[
        Path | None,
        typer.Option(help=f"The page to write; default: {PAGE}, or none with --family."),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Results of an earlier sweep with other libraries: a further column."),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Record the counts as the expected counts.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=1, help="Time limit of one model.")
    ] = DEFAULTS.seconds,
    gibibytes: Annotated[
        float, typer.Option(min=0.1, help="Memory limit of one model.")
    ] = DEFAULTS.gibibytes,
) -> None:
    """Check the models of the zoo, each in a separate process, and write the coverage page."""
    with report_errors():
        families = _select_families(family)
        with_numbers = _families_with_numbers(families, numeric, numeric_of)
        tasks = expected.plan(families, all_members=all_members, numeric=with_numbers)
        done = _finished_outcomes(results, tasks, resume)
        limits = workers.Limits(seconds, gibibytes)
        for outcome in _run_with_progress(
            records.unfinished(tasks, done), len(tasks), jobs, limits
        ):
            final = outcome if record else expected.compare_with_expected(outcome)
            records.append(results, final)
            done.append(final)
    if record:
        expected.record(MEASURED_FILE, done)
    page = page or (None if family else PAGE)
    if page:
        page.parent.mkdir(parents=True, exist_ok=True)
        command = _command(family, all_members, numeric, numeric_of)
        sweeps = [_in_order(tasks, done), *(records.read(file) for file in compare or ())]
        page.write_text(coverage.render_page(sweeps, command), encoding="utf-8")
    _print_summary(done, results, page)
    if not all(outcome.passed for outcome in done):
        raise typer.Exit(1)


def _select_families(names: Sequence[str] | None) -> tuple[models_zoo.Family, ...]:
    known = {family.name: family for family in models_zoo.families()}
    for name in names or ():
        if name not in known:
            close = ", ".join(difflib.get_close_matches(name, known)) or "none"
            raise typer.BadParameter(
                f"there is no family {name!r}; similar names: {close}; all: labeltrace zoo families"
            )
    return tuple(known[name] for name in dict.fromkeys(names)) if names else models_zoo.families()


def _families_with_numbers(
    families: Sequence[models_zoo.Family], numeric: bool, count: int | None
) -> Sequence[models_zoo.Family]:
    """The families whose numbers are checked."""
    if count is not None:
        return expected.select_for_day(families, count, datetime.date.today().toordinal())
    return families if numeric else ()


def _finished_outcomes(file: Path, tasks: Sequence[Task], resume: bool) -> list[Outcome]:
    """The outcomes to keep, and alone in the file; without `--resume` it is renamed to .old."""
    if not resume and file.exists():
        file.replace(file.with_name(file.name + ".old"))
    wanted = set(tasks)
    kept = records.passed_with(records.read(file), records.versions())
    records.write(file, kept)
    return [outcome for outcome in kept if outcome.task in wanted]


def _run_with_progress(
    tasks: Sequence[Task], total: int, jobs: int, limits: workers.Limits
) -> Iterator[Outcome]:
    """Run the tasks with a progress bar; failures are printed immediately."""
    console = Console(stderr=True)
    with counting_bar(console) as progress:
        bar = progress.add_task("Sweep", total=total, completed=total - len(tasks))
        for outcome in workers.run(tasks, jobs, limits):
            progress.update(bar, advance=1, description=outcome.task.model)
            if not outcome.passed:
                name = f"{outcome.task.family}: {outcome.task.model} ({outcome.task.check})"
                console.print(f"{name}: {outcome.first_line}", markup=False, soft_wrap=True)
            yield outcome


def _command(
    family: Sequence[str] | None, all_members: bool, numeric: bool, numeric_of: int | None
) -> str:
    chosen = [word for name in family or () for word in ("--family", name)]
    flags = ["--all"] * all_members + ["--numeric"] * numeric
    flags += ["--numeric-of", str(numeric_of)] if numeric_of is not None else []
    return shlex.join(["labeltrace", "zoo", "sweep", *chosen, *flags])


def _in_order(tasks: Sequence[Task], done: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes in the order of the tasks."""
    found = {outcome.task: outcome for outcome in done}
    return [found[task] for task in tasks]


def _print_summary(done: Sequence[Outcome], results: Path, page: Path | None) -> None:
    passed = sum(outcome.passed for outcome in done)
    typer.echo(f"{passed} of {len(done)} checks passed. Results: {results}")
    if page:
        typer.echo(f"Page: {page}")
