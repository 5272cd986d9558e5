"""Blocks of shell on the pages: the commands, options, scripts and targets that they name exist.

They are not run: they install, train and measure.  What they call is asked what it takes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from labeltrace.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
EXTRA = re.compile(r"\.\[([\w,]+)\]")


def lines(page: Path) -> Iterator[list[str]]:
    """The commands of a page's blocks as words, without comments."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


SHELL = {
    f"{page.relative_to(ROOT).as_posix()}: {' '.join(words)}": words
    for page in PAGES
    for words in lines(page)
}


def check_labeltrace(words: list[str]) -> None:
    """Each word is a command, one of its options, or a value that an option or argument takes."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}
    free = sum(p.param_type_name == "argument" for p in command.params)
    while words:
        word, *words = words
        if word == "[OPTIONS]":
            continue
        if word.startswith("-"):
            assert word in options, f"there is no option {word}"
            words = words[0 if options[word].is_flag else options[word].nargs :]
        else:
            free -= 1
            assert free >= 0, f"nothing takes {word}"


def check_script(words: list[str]) -> None:
    """A script of the repository that names each of these options."""
    path, *arguments = words
    code = (ROOT / path).read_text(encoding="utf-8")
    for option in (word for word in arguments if word.startswith("--")):
        assert f'"{option}"' in code, f"{path} has no option {option}"


def check_make(words: list[str]) -> None:
    """Targets and variables of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        variable, equals, _ = word.partition("=")
        known = f"$({variable})" in makefile if equals else word in TARGET.findall(makefile)
        assert known, f"the Makefile has no {word}"


def check_install(words: list[str]) -> None:
    """Extras of pyproject.toml."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in (name for found in EXTRA.findall(" ".join(words)) for name in found.split(",")):
        assert f"\n{extra} = [" in project, f"there is no extra {extra}"


def check(words: list[str]) -> None:
    """The words of one command."""
    match words:
        case ["labeltrace", *rest] | ["python", "-m", "labeltrace", *rest]:
            check_labeltrace(rest)
        case ["python", script, *rest] if script.endswith(".py"):
            check_script([script, *rest])
        case ["make", *rest]:
            check_make(rest)
        case ["pip", "install", *rest]:
            check_install(rest)
        case ["torchrun", *rest]:
            check(["python", *rest[rest.index("-m") :]])
        case _:
            raise AssertionError(f"say in tests/docs/test_shell_examples.py how to check {words}")


@pytest.mark.parametrize("words", SHELL.values(), ids=SHELL.keys())
def test_what_a_block_of_shell_names_exists(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "line",
    [
        "labeltrace explian vit",
        "labeltrace train --learning-rate 1",
        "labeltrace demo --images one.png two.png three.png",
        "make tset",
        "make test AGRS=-x",
        "python benchmarks/overhead.py --model vit",
        "pip install '.[trian]'",
        "curl anything",
    ],
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check(shlex.split(line))
