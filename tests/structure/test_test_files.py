"""No test file imports another; tests of a package are in a folder of its name."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
FROM_A_TEST = re.compile(r"^\s*(?:from|import) (?:\S*\.)?test_\w+", re.MULTILINE)


def test_no_file_imports_a_test_file() -> None:
    files = sorted(TESTS.rglob("*.py"))
    assert len(files) >= 90, "tests have moved to where this test does not look"
    importing = [f.name for f in files if FROM_A_TEST.search(f.read_text(encoding="utf-8"))]
    assert not importing, "move what is shared to tests/helpers/ or tests/oracles/"


def test_test_files_are_in_folders_named_after_packages() -> None:
    """`tests/<package>/` for a package, `tests/test_<module>.py` for a module of the root."""
    root = TESTS.parent / "labeltrace"
    packages = {file.parent.name for file in root.rglob("__init__.py")}
    own = {
        "alignment",
        "docs",
        "oracles",
        "random_architectures",
        "structure",
        "true_to_model",
    }
    for file in TESTS.rglob("test_*.py"):
        folder = file.relative_to(TESTS).parts[0]
        if folder == file.name:
            assert (root / file.name.removeprefix("test_")).is_file(), file
        else:
            assert folder in packages | own | {"rules", "models_zoo"}, file
