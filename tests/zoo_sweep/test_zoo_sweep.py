"""The sweep: no model stops it, it goes on where it stopped, it finds faults, and its page tells
what the results say."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

import labeltrace
from labeltrace import AlignedModule, models_zoo
from labeltrace.cli import app, zoo
from labeltrace.errors import CheckError, RecordsError, WorkerError
from labeltrace.models_zoo import Family
from labeltrace.rule_api.registry import current
from labeltrace.zoo_sweep import checks, coverage, expected, records, workers
from labeltrace.zoo_sweep.records import Check, Outcome, Status, Task
from labeltrace.zoo_sweep.workers import Limits
from tests.helpers.command_line_models import Pooled
from tests.helpers.misbehaving_factories import leave_at_once

NOW = records.versions()


RELU = Task("tests", "torch.nn:ReLU")


def task(
    name: str, check: Check = Check.STRUCTURAL, module: str = "tests.helpers.command_line_models"
) -> Task:
    return Task("tests", f"{module}:{name}", check, image_size=32)


def unruly(name: str) -> Task:
    return task(name, module="tests.helpers.misbehaving_factories")


# Workers. -----------------------------------------------------------------------------------------


def test_no_model_stops_the_sweep() -> None:
    """Each of these takes its process along, and the next model runs in a fresh one."""
    tasks = [
        RELU,
        unruly("crashing"),
        unruly("leaving"),
        unruly("eating"),
        replace(RELU, family=""),
    ]
    found = {outcome.task: outcome for outcome in workers.run(tasks, 1, Limits(gibibytes=1))}
    first, crashed, left, ate, last = (found[each] for each in tasks)
    assert first.passed and last.passed
    assert first.findings["nodes"] == last.findings["nodes"] == 1
    assert crashed.status is left.status is Status.CRASHED
    assert "SIGSEGV" in crashed.first_line
    assert "in crashing" in crashed.error  # Python's own account of where it was
    assert "exit code 7" in left.first_line
    assert ate.status is Status.OUT_OF_MEMORY
    assert all(outcome.versions == NOW for outcome in found.values())


def test_model_without_end_is_stopped() -> None:
    tasks = [unruly("hanging"), replace(unruly("hanging"), family="")]
    outcomes = list(workers.run(tasks, 2, Limits(seconds=0.5)))
    assert {outcome.task for outcome in outcomes} == set(tasks)
    assert all(outcome.status is Status.TIMED_OUT for outcome in outcomes)
    assert "0.5 s" in outcomes[0].first_line


def test_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_serve", leave_at_once)
    with pytest.raises(WorkerError, match="before it was ready, with exit code 7"):
        list(workers.run([RELU]))


# Checks. ------------------------------------------------------------------------------------------


def test_structural_check_says_what_the_trace_says() -> None:
    found = checks.structural(task("Pooled"))
    trace = labeltrace.trace(Pooled().eval(), torch.zeros(2, 3, 32, 32))
    assert found["counts"] == trace.counts()
    assert found["nodes"] == len(trace.nodes)
    assert found["approximations"] == {trace.approximate[0].approximation: 1}
    assert found["approximations_following_maxima"] == {}
    assert found["batch"] == [2, None]
    assert found["parameters"] == sum(parameter.numel() for parameter in Pooled().parameters())
    assert set(found["seconds"]) == {"build", "capture", "trace", "generate"}
    fixed = checks.structural(task("BatchOfTwo"))
    assert fixed["batch"] == [2, 2]
    assert fixed["fixed_batch_reason"]


def test_unknown_operators_are_named() -> None:
    outcome = workers._check(task("Unruly"), checks.structural, NOW)
    assert outcome.status is Status.FAILED
    assert outcome.findings == {"unknown_operators": ["aten.cumprod"]}
    assert "aten.cumprod" in outcome.first_line


class Changed(nn.Module):
    """An aligned model, with its results spoilt."""

    def __init__(self, model: nn.Module, spoil: Callable[..., Any]) -> None:
        super().__init__()
        self.aligned = AlignedModule(model, current())
        self.module = model
        self.spoil = spoil

    def forward(self, images: Tensor, labels: Tensor) -> Any:
        return self.spoil(self.module, *self.aligned(images, labels))

    def trace(self, images: Tensor) -> labeltrace.Trace:
        return self.aligned.trace(images)


def one_bit_off(_: nn.Module, outputs: Tensor, labels: Tensor) -> Any:
    return torch.nextafter(outputs, outputs + 1), labels


def drawing(_: nn.Module, outputs: Tensor, labels: Tensor) -> Any:
    torch.rand(1)
    return outputs, labels


def counting(model: nn.Module, outputs: Tensor, labels: Tensor) -> Any:
    model.get_buffer("norm.num_batches_tracked").add_(1)
    return outputs, labels


def negative(_: nn.Module, outputs: Tensor, labels: Tensor) -> Any:
    return outputs, torch.cat((labels[:, :1] - 1, labels[:, 1:-1], labels[:, -1:] + 1), 1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (one_bit_off, "output 0 differs"),
        (drawing, "random state"),
        (counting, "buffer norm.num_batches_tracked differs"),
        (negative, "smallest entry"),
        (
            lambda _, outputs, labels: (outputs, labels * 1.0001),
            "row sums of a label differ from one",
        ),
        (lambda _, outputs, labels: (outputs, labels.half()), "float16"),
        (lambda _, outputs, labels: (outputs, labels.mT), "has shape"),
        (lambda _, outputs, labels: (outputs, None), "no output has a label"),
    ],
)
def test_numeric_check_finds_what_is_wrong(
    spoil: Callable[..., Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checks.numeric(task("Tiny", Check.NUMERIC))
    assert found["row_error"] <= 1e-5
    assert found["one_trace"] == {"eval": True, "train": True}
    monkeypatch.setattr(checks.labeltrace, "align", lambda model: Changed(model, spoil))
    with pytest.raises(CheckError, match=re.escape(words)):
        checks.numeric(task("Tiny", Check.NUMERIC))


def test_model_of_a_fixed_batch_is_captured_for_each() -> None:
    found = checks.numeric(
        task("BranchingOnBatch", Check.NUMERIC, "tests.helpers.misbehaving_factories")
    )
    assert found["one_trace"] == {"eval": False, "train": False}


# Results. -----------------------------------------------------------------------------------------


def outcome(model: str, status: Status = Status.PASSED, **findings: Any) -> Outcome:
    error = "" if status is Status.PASSED else f"{model} is wrong:\n  very wrong"
    return Outcome(Task("tests", model), status, error, findings, NOW)


def test_lines_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.jsonl"
    written = [outcome("a", nodes=3, counts={"constant": 2}), outcome("b", Status.TIMED_OUT)]
    records.write(file, written[:1])
    records.append(file, written[1])
    assert records.read(file) == written
    with file.open("a") as stream:
        stream.write(written[0].to_line()[:-9])  # killed in the middle of a line
    assert records.read(file) == written
    assert records.read(tmp_path / "nowhere") == []
    file.write_text(f"{{}}\n{written[0].to_line()}")
    with pytest.raises(RecordsError, match=r"results\.jsonl:1: "):
        records.read(file)


def test_only_what_passed_on_the_same_libraries_is_kept() -> None:
    old = replace(outcome("c"), versions={**NOW, "timm": "0.0"})
    edited = replace(outcome("d"), versions={**NOW, "labeltrace": "another source"})
    build = NOW["torch"].partition("+")[0] + "+another"
    built = replace(outcome("e"), versions={**NOW, "torch": build})
    kept = records.passed_with(
        [outcome("a"), outcome("b", Status.CRASHED), old, edited, built], NOW
    )
    assert [each.task.model for each in kept] == ["a", "d", "e"]
    tasks = [Task("tests", name) for name in "abcd"] + [Task("tests", "a", Check.NUMERIC)]
    assert records.unfinished(tasks, kept) == [tasks[1], tasks[2], tasks[4]]


# The command. -------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Stands for the workers, so that commands take no time."""
    stand_in = Runs()
    monkeypatch.setattr(zoo.workers, "run", stand_in)
    return stand_in


class Runs:
    """Answers for workers: fails for the models in ``failing``, is interrupted before the rest."""

    def __init__(self) -> None:
        self.calls: list[list[Task]] = []
        self.failing: set[str] = set()
        self.interrupted_after: int | None = None

    def __call__(self, tasks: list[Task], jobs: int, limits: Limits) -> Iterator[Outcome]:
        self.calls.append(tasks)
        for number, each in enumerate(tasks):
            if number == self.interrupted_after:
                raise KeyboardInterrupt
            yield finished(each, failed=each.model in self.failing)


SECONDS = {"build": 0.5, "capture": 3.0, "trace": 0.25, "generate": 0.125}


def finished(
    each: Task,
    *,
    failed: bool = False,
    approximations: Mapping[str, int] | None = None,
    fixed: str = "",
) -> Outcome:
    if failed:
        return Outcome(each, Status.FAILED, "no rule for aten.nothing", {}, NOW)
    findings: dict[str, Any] = {"seconds": SECONDS}
    if each.check is Check.STRUCTURAL:
        findings |= {"counts": {"constant": 5}, "approximations": dict(approximations or {})}
        left = {reason: n for reason, n in (approximations or {}).items() if reason != "maximum"}
        findings |= {"approximations_following_maxima": left}
        findings |= {"fixed_batch_reason": fixed, "nodes": 5}
    return Outcome(each, Status.PASSED, "", findings, NOW)


def sweep(folder: Path, *options: str) -> Result:
    files = ["--results", str(folder / "results.jsonl"), "--page", str(folder / "page.md")]
    return CliRunner().invoke(app.app, ["zoo", "sweep", *files, *options])


TWO = ("--family", "vgg", "--family", "volo", "--all", "--numeric", "--record")


@pytest.fixture(autouse=True)
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that `--record` writes, in the place of the package's own."""
    file = tmp_path / "measured.json"
    file.write_text('{"versions": {}, "members": {}}')
    monkeypatch.setattr(zoo, "MEASURED_FILE", file)
    return file


def test_interrupted_sweep_goes_on_where_it_stopped(runs: Runs, tmp_path: Path) -> None:
    families = [f for f in models_zoo.families() if f.name in ("vgg", "volo")]
    tasks = expected.plan(families, all_members=True, numeric=families)
    assert len(tasks) == 8 + 11 + 2
    runs.interrupted_after, runs.failing = 12, {"vgg13"}
    assert sweep(tmp_path, *TWO).exit_code != 0
    runs.interrupted_after = None
    assert sweep(tmp_path, *TWO, "--resume").exit_code == 1
    failed = next(each for each in tasks if each.model == "vgg13")
    assert runs.calls == [tasks, [failed, *tasks[12:]]]
    runs.failing.clear()
    assert sweep(tmp_path, *TWO, "--resume").exit_code == 0
    assert sweep(tmp_path, *TWO, "--resume").exit_code == 0
    assert runs.calls[2:] == [[failed], []]
    done = records.read(tmp_path / "results.jsonl")
    assert {each.task for each in done} == set(tasks)
    assert all(each.passed for each in done)
    sweep(tmp_path, *TWO)  # from the start, and nothing is lost
    assert runs.calls[4] == tasks
    assert records.read(tmp_path / "results.jsonl.old") == done


def test_failures_are_told_and_end_in_exit_code_one(runs: Runs, tmp_path: Path) -> None:
    runs.failing = {"volo_d1_224"}
    result = sweep(tmp_path, "--family", "volo", "--record")
    assert result.exit_code == 1
    assert "volo: volo_d1_224 (structural): failed: no rule for aten.nothing" in result.stderr
    assert "0 of 1 checks passed" in result.stdout


def test_numbers_of_a_few_families_take_turns(runs: Runs, tmp_path: Path) -> None:
    families = models_zoo.families()
    days = [expected.select_for_day(families, 12, day) for day in range(7, 7 + len(families))]
    assert all(len(set(names(day))) == 12 for day in days)
    assert set(names([family for day in days[:11] for family in day])) == set(names(families))
    assert not set(names(days[0])) & set(names(days[1]))
    sweep(tmp_path, "--numeric-of", "5", "--record")
    checked = [each.family for each in runs.calls[0] if each.check is Check.NUMERIC]
    assert len(checked) == 5
    assert len(runs.calls[0]) == len(families) + 5


def names(families: Iterable[Family]) -> list[str]:
    return [family.name for family in families]


def test_without_names_it_is_the_smallest_of_each_family(runs: Runs, tmp_path: Path) -> None:
    sweep(tmp_path, "--record")
    families = models_zoo.families()
    assert [each.model for each in runs.calls[0]] == [family.smallest for family in families]


def test_unknown_family_is_an_error(runs: Runs, tmp_path: Path) -> None:
    result = sweep(tmp_path, "--family", "vgh")
    assert result.exit_code == 2
    assert "vgg" in result.stderr
    assert not runs.calls


def test_families_are_listed() -> None:
    result = CliRunner().invoke(app.app, ["zoo", "families"])
    assert result.exit_code == 0
    assert all(family.name[:9] in result.stdout for family in models_zoo.families())


# Expectations. ------------------------------------------------------------------------------------


def test_counts_that_changed_are_a_failure() -> None:
    family = next(family for family in models_zoo.families() if family.approximations)
    same = Outcome(
        Task(family.name, family.smallest),
        Status.PASSED,
        "",
        {"counts": dict(family.counts), "approximations": dict(family.approximations)},
        family.measured_with,
    )
    assert expected.compare_with_expected(same) == same
    more = {**family.counts, "residual": family.counts.get("residual", 0) + 1}
    for findings in ({"counts": more}, {"approximations": {}}):
        judged = expected.compare_with_expected(
            replace(same, findings={**same.findings, **findings})
        )
        assert judged.status is Status.FAILED
        assert next(iter(findings)) in judged.error
    other = replace(same, findings={"counts": {}}, versions={**family.measured_with, "timm": "0.0"})
    assert expected.compare_with_expected(other) == other


def test_counts_of_smallest_members_are_recorded(recorded: Path) -> None:
    vgg, volo = (models_zoo.find(name) for name in ("vgg", "volo"))
    assert vgg and volo
    first = finished(Task("vgg", vgg.smallest), approximations={"a reason": 2})
    others = [finished(Task("vgg", "vgg19")), finished(Task("volo", volo.smallest), failed=True)]
    expected.record(recorded, [first, *others])
    entry = {"counts": {"constant": 5}, "approximations": {"a reason": 2}}
    libraries = {name: NOW[name] for name in records.MODEL_LIBRARIES}
    assert json.loads(recorded.read_text()) == {
        "versions": libraries,
        "members": {vgg.smallest: entry},
    }
    expected.record(recorded, [finished(Task("volo", volo.smallest))])
    assert list(json.loads(recorded.read_text())["members"]) == [vgg.smallest, volo.smallest]
    newer = replace(first, versions={**NOW, "timm": "9.9"})
    expected.record(recorded, [newer])
    document = json.loads(recorded.read_text())
    assert document["versions"]["timm"] == "9.9"
    assert list(document["members"]) == [vgg.smallest]


# The page. ----------------------------------------------------------------------------------------


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without its own."""
    lines = page[page.index(heading) :].splitlines()
    tables = itertools.groupby(lines, lambda line: line.startswith("|"))
    table = next(list(found) for is_table, found in tables if is_table)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[2:]]


def test_page_in_the_docs_has_every_family() -> None:
    page = (Path(__file__).parents[2] / "docs" / "coverage.md").read_text(encoding="utf-8")
    families = models_zoo.families()
    assert [row[:2] for row in rows(page, "## Families")] == [[f.name, f.source] for f in families]


def test_families_may_be_exact_where_maxima_are_followed() -> None:
    pooled = finished(Task("vgg", "vgg11"), approximations={"maximum": 3})
    (family,) = coverage.group_by_family([pooled])
    assert not family.is_exact and family.is_exact_following_maxima
    (family,) = coverage.group_by_family([pooled, finished(Task("vgg", "vgg13"), failed=True)])
    assert not family.is_exact_following_maxima
    older = {name: pooled.findings[name] for name in ("approximations", "seconds")}
    (family,) = coverage.group_by_family([replace(pooled, findings=older)])
    assert not family.is_exact_following_maxima  # nobody has looked


def test_page_tells_what_the_results_say() -> None:
    """One family exact, one with two kinds of approximation and a fixed batch, one that fails."""
    results = [
        finished(Task("vgg", "vgg11")),
        finished(Task("vgg", "vgg13")),
        finished(Task("vgg", "vgg11", Check.NUMERIC, 32)),
        finished(Task("volo", "volo_d1_224"), approximations={"maximum": 3, "a|b": 4}),
        finished(Task("volo", "volo_d2_224"), approximations={"maximum": 5}, fixed="it is [two]"),
        finished(Task("volo", "volo_d3_448")),
        finished(Task("volo", "volo_d1_224", Check.NUMERIC, 32), failed=True),
        finished(Task("tnt", "tnt_s_patch16_224"), failed=True),
        replace(
            finished(Task("tnt", "tnt_b_patch16_224"), approximations={"maximum": 7}),
            versions={**NOW, "timm": "0.5"},
        ),
    ]
    page = coverage.render_page([results], "labeltrace zoo sweep --all")
    assert "labeltrace zoo sweep --all\n" in page
    summary = dict(rows(page, "# Coverage"))
    assert summary["models traced"] == "6 of 7 (85.7%)"
    assert summary["families with every model traced"] == "2 of 3 (66.7%)"
    assert summary["models exact"] == "3 of 6 (50.0%)"
    assert summary["families exact"] == "1 of 3 (33.3%)"
    assert summary["families exact with `rules=labeltrace.FOLLOW_MAXIMA`"] == "1 of 3 (33.3%)"
    assert summary["models with a dynamic batch"] == "5 of 6 (83.3%)"
    assert summary["families with correct numbers"] == "1 of 2 (50.0%)"
    assert summary["processor seconds, capture; trace and label graph"] == "18; 2"
    versions = dict(rows(page, "Measured with"))
    assert versions["torch"] == NOW["torch"]
    assert versions["timm"] == f"{NOW['timm']} (8 results), 0.5 (1 results)"
    seconds = ["3.00", "0.38"]
    assert rows(page, "## Families") == [
        ["vgg", "timm", "2/2", "2/2", "", "dynamic", *seconds, "correct"],
        ["volo", "timm", "3/3", "1/3", "1, 2", "fixed in 1", *seconds, "failed"],
        ["tnt", "timm", "1/2", "0/1", "1", "dynamic", *seconds, ""],
    ]
    assert rows(page, "## Approximations") == [
        ["1", "maximum", "15", "volo, tnt"],
        ["2", "a\\|b", "4", "volo"],
    ]
    assert rows(page, "## Fixed batch") == [["`volo_d2_224`", "it is \\[two]"]]
    assert rows(page, "## What failed") == [
        ["`volo_d1_224`", "numeric: failed: no rule for aten.nothing"],
        ["`tnt_s_patch16_224`", "structural: failed: no rule for aten.nothing"],
    ]
    sound = coverage.render_page([results[:3]], "command")
    assert "## What failed" not in sound
    assert "## Approximations" not in sound
    assert "## Fixed batch" not in sound


def test_page_has_a_column_for_each_sweep() -> None:
    """Cells are one where sweeps agree; another torch may differ in what is exact and correct."""
    newer = [
        finished(Task("vgg", "vgg11"), approximations={"maximum": 3}),
        finished(Task("vgg", "vgg11", Check.NUMERIC, 32)),
    ]
    older = [
        replace(finished(Task("vgg", "vgg11")), versions={**NOW, "torch": "2.0.1+cpu"}),
        replace(
            finished(Task("vgg", "vgg11", Check.NUMERIC, 32), failed=True),
            versions={**NOW, "torch": "2.0.1+cpu"},
        ),
    ]
    page = coverage.render_page([newer, older], "command")
    summary = {row[0]: row[1:] for row in rows(page, "# Coverage")}
    assert summary["models traced"] == ["1 of 1 (100.0%)", "1 of 1 (100.0%)"]
    assert summary["models exact"] == ["0 of 1 (0.0%)", "1 of 1 (100.0%)"]
    versions = {row[0]: row[1:] for row in rows(page, "Measured with")}
    assert versions["torch"] == [NOW["torch"], "2.0.1+cpu"]
    exact, found, numbers = "0/1 / 1/1", "1 / ", "correct / failed"
    seconds = ["3.00", "0.38"]
    (row,) = rows(page, "## Families")
    assert row == ["vgg", "timm", "1/1", exact, found.strip(), "dynamic", *seconds, numbers]
    assert rows(page, "## Approximations") == [["1", "maximum", "3 / 0", "vgg /"]]
    assert rows(page, "## What failed") == [
        ["`vgg11`", "torch 2.0.1: numeric: failed: no rule for aten.nothing"]
    ]
