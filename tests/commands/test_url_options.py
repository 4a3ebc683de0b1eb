"""docs/object-storage.md lists which options take URLs; the commands agree."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
import tyro

from tokret.__main__ import COMMANDS
from tokret.option_types import RemotePath

PAGE = Path(__file__).resolve().parents[2] / "docs" / "object-storage.md"
NO_PATHS = {"info"}


def rows():
    """By the first word of a command: its options that take URLs, and others."""
    section = PAGE.read_text().partition("\n## What may be a URL\n")[2]
    found = {}
    for line in section.partition("\n## ")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            name = re.match(r"`(\w+)", cells[0])[1]
            found[name] = [{*re.findall(r"`--(\w+)`", cell)} for cell in cells[1:]]
    return found


def functions(name):
    """All functions of a command, of the tables below it too."""
    module = importlib.import_module(f"tokret.commands.{name}")
    waiting = [getattr(module, "COMMANDS", None) or module.main]
    while waiting:
        command = waiting.pop()
        if callable(command):
            yield command
        else:
            waiting += command.values()


def options(function):
    """Yields names and types of a command's options; not what has no name."""
    for name, parameter in inspect.signature(function).parameters.items():
        kind = parameter.annotation
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                yield field.name, field.type
        elif tyro.conf.Positional not in getattr(kind, "__metadata__", ()):
            yield name, kind


def takes(kind):
    """Whether a type is a path (False), one or a URL (True), or neither (None)."""
    if kind in (Path, RemotePath):
        return kind == RemotePath
    found = map(takes, get_args(kind))
    return next((each for each in found if each is not None), None)


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - NO_PATHS))
def test_the_page_lists_the_options_that_take_urls(name):
    urls, local = rows()[name]
    found = {True: set(), False: set(), None: set()}
    for function in functions(name):
        for option, kind in options(function):
            found[takes(kind)].add(option)
    assert found[True] <= urls and found[False] <= local
    # Others are texts, which a config's fields check.
    assert urls - found[True] <= {"data_dir"} | found[None]
    assert local - found[False] <= {"config", "image_folder"}
