"""Where a package of an extra is missing, the error names the extra."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from labeltrace.errors import LabelTraceError, MissingExtraError
from labeltrace.extras import extra

# Runs the command line with the packages named first hidden, up to "--".
WITHOUT = """
import sys
split = sys.argv.index("--")
sys.modules.update({name: None for name in sys.argv[1:split]})
sys.argv[1:] = sys.argv[split + 1 :]
from labeltrace.__main__ import main
main()
"""


def test_a_missing_package_is_an_error_that_names_the_extra() -> None:
    words = r"this needs nowhere, which is not installed; pip install 'labeltrace\[figures\]'"
    with pytest.raises(MissingExtraError, match=words) as caught, extra("figures"):
        importlib.import_module("nowhere.inside")
    assert isinstance(caught.value, LabelTraceError)
    assert isinstance(caught.value, ImportError)
    with pytest.raises(MissingExtraError, match=r"labeltrace\[figures\]"), extra("demo"):
        raise caught.value  # the inner extra knows better


def test_a_missing_module_of_our_own_is_a_fault() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"labeltrace\.nowhere") as caught, extra("cli"):
        importlib.import_module("labeltrace.nowhere")
    assert not isinstance(caught.value, LabelTraceError)


@pytest.mark.parametrize(
    ("missing", "command", "words"),
    [
        ("typer", "explain", "this needs typer, which is not installed; pip install 'labeltrace[c"),
        ("matplotlib", "demo", "this needs matplotlib, which is not installed; pip install 'labe"),
    ],
)
def test_a_command_that_lacks_a_package(missing: str, command: str, words: str) -> None:
    arguments = [missing, "--", command, "--pretrained"]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert words in ran.stderr and "Traceback" not in ran.stderr
