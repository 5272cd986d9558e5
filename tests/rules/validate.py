"""`make validate`: every rule case, as a table of the rules that are wrong or that have no case."""

from __future__ import annotations

import sys
import warnings
from collections import Counter

from rich.console import Console
from rich.progress import track
from rich.table import Table

import labeltrace
from labeltrace.rules import BUILT_IN
from tests.rules.cases import CASES, UNREACHABLE, Fault, RuleCase, fault_of


def main() -> int:
    """Check all cases; 1 if a rule is wrong or has none."""
    console = Console()
    warnings.filterwarnings("ignore")
    faults = [fault for case in track(CASES, "Checking", console=console) if (fault := check(case))]
    named = {case.operator for case in CASES} | set(UNREACHABLE)
    without = sorted(set(BUILT_IN.operators) - named)
    if faults or without:
        console.print(table(faults, without))
    rules, cases = len(BUILT_IN.operators), len(CASES)
    console.print(
        f"{cases} cases of {rules} operators: {len(faults)} wrong, {len(without)} without a case"
    )
    return 1 if faults or without else 0


def check(case: RuleCase) -> Fault | None:
    """What is wrong with a case, also where labels cannot be followed at all."""
    try:
        return fault_of(case)
    except labeltrace.LabelTraceError as error:
        return Fault(case, str(error))
    except AssertionError as error:
        return Fault(case, f"the truth contradicts itself: {error}")


def table(faults: list[Fault], without: list[str]) -> Table:
    """Wrong cases by operator, then the operators without one."""
    found = Table("operator", "wrong", "for", "fault")
    wrong = Counter(fault.case.operator for fault in faults)
    total = Counter(case.operator for case in CASES)
    for fault in sorted(faults, key=lambda fault: str(fault.case)):
        name = fault.case.operator
        share = f"{wrong[name]} of {total[name]}"
        found.add_row(name, share, fault.case.arguments, fault.message)
    for name in without:
        found.add_row(name, "no case", "", "")
    return found


if __name__ == "__main__":
    sys.exit(main())
