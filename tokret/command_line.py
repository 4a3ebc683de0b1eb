"""Command lines: typed functions become commands, by tyro.

A function's parameters are its options and the section Args of its docstring is their
help. A mistake is one line on standard error, with exit status 2.
"""

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

import tyro

from tokret.arguments import name_arguments
from tokret.errors import StoppedError, UserError
from tokret.io.remote.fetching import show_with
from tokret.io.remote.urls import with_urls
from tokret.names import printable
from tokret.option_types import TYPES
from tokret.runtime.allocation import avoid_missing_tpu, keep_freed_memory
from tokret.runtime.ending import exit_status, leave

FIELD = "--config."  # begins an argument that changes a field of the config
MARKERS = (
    tyro.conf.OmitArgPrefixes,
    tyro.conf.DisallowNone,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)


@dataclasses.dataclass(frozen=True)
class Processes:
    """Processes that work together, each started with the same command.

    Attributes:
      coordinator: HOST:PORT of process 0, where the platform does not announce it.
      num_processes: how many work together; 1: this one alone, whatever the platform.
      process_id: the number of this process, from 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def join(self) -> None:
        """Joins the others before any use of devices, or raises a UserError."""
        from tokret.runtime import cluster

        cluster.join(self.coordinator, self.num_processes, self.process_id)


def start(command: Any, arguments: Sequence[str], prog: str) -> NoReturn:
    """Runs a command, as `run`, and ends the process with its exit status."""
    leave(run(command, arguments, prog))


def run(command: Any, arguments: Sequence[str], prog: str) -> int:
    """Runs a command.

    Args:
      command: a typed function, or a table of functions (or further tables) by name. A
        function with a parameter `processes` may run as one of several processes.
      arguments: the command line after the command's name.
      prog: the command's name as it is typed.

    Returns:
      The exit status: see `ending.exit_status`.
    """
    ending = exit_status
    if callable(command) and "processes" in inspect.signature(command).parameters:
        from tokret.runtime.cluster import together as ending  # imports jax
    return ending(functools.partial(_run, command, arguments, prog))


def _run(command: Any, arguments: Sequence[str], prog: str) -> None:
    while isinstance(command, Mapping):
        name, *arguments = choose(command, arguments, prog)
        command, prog = command[name], f"{prog} {name}"
    call = parse(command, arguments, prog)
    quieten()
    from tokret.runtime.transfers import transfer_bar  # imports tqdm

    show_with(transfer_bar)
    avoid_missing_tpu()
    if "processes" in call.keywords:
        keep_freed_memory()
    try:
        call()
    except StoppedError:
        raise
    except UserError as error:
        first = r"\w+(?=[:=]| is )"
        named = name_arguments(str(error), first, options_of(command), "--")
        if named != str(error):
            raise UserError(named) from error
        raise


def options_of(function: Callable[..., None]) -> list[str]:
    """Lists options: parameters, and the fields of those that are dataclasses."""
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = parameter.annotation
        if dataclasses.is_dataclass(kind):
            names += [field.name for field in dataclasses.fields(kind)]
        elif not _is_positional(kind):
            names.append(name)
    return names


def _is_positional(kind: Any) -> bool:
    return tyro.conf.Positional in getattr(kind, "__metadata__", ())


def choose(
    commands: Mapping[str, Any], arguments: Sequence[str], prog: str
) -> Sequence[str]:
    """Checks that arguments start with a name in a table; returns them.

    The table has functions, tables or summaries by name; --help prints it, and exits.

    Raises:
      UserError: if they do not.
    """
    if not arguments:
        raise UserError(f"{prog} needs one of: {', '.join(commands)}")
    name = arguments[0]
    if name in ("-h", "--help"):
        width = max(map(len, commands))
        lines = [f"  {key:<{width}}  {_summary(c)}" for key, c in commands.items()]
        print(f"usage: {prog} COMMAND ...\n", *lines, sep="\n")  # noqa: T201
        print(f"\n{prog} COMMAND --help lists its options.")  # noqa: T201
        raise SystemExit(0)
    if name not in [*commands]:
        close = difflib.get_close_matches(name, commands, 1)
        meant = (
            f"did you mean {close[0]}?" if close else f"one of {', '.join(commands)}"
        )
        raise UserError(f"{prog}: {name!r} is not a command; {meant}")
    return arguments


def _summary(command: Any) -> str:
    if isinstance(command, Mapping):
        return ", ".join(command)
    text = command if isinstance(command, str) else inspect.getdoc(command) or ""
    return text.partition("\n")[0]


def parse(
    function: Callable[..., None], arguments: Sequence[str], prog: str
) -> functools.partial[None]:
    """Reads a command line.

    Args:
      function: its parameters are the options; one named `fields` takes all arguments
        --config.NAME=VALUE, and is no option itself.
      arguments: the command line after the command's name.
      prog: the command's name as it is typed.

    Returns:
      The function with its arguments.

    Raises:
      UserError: for what is no option, misses, or cannot be a value.
      SystemExit: after --help.
    """
    given: dict[str, Any] = {}
    parameters = dict(inspect.signature(function).parameters)
    if parameters.pop("fields", None):
        given["fields"], arguments = split_fields(arguments)
    options = dataclasses.make_dataclass(
        "Options",
        [
            (
                name,
                p.annotation,
                dataclasses.MISSING if p.default is p.empty else p.default,
            )
            for name, p in parameters.items()
        ],
        kw_only=True,
    )
    options.__doc__ = re.sub(r"\n {4,}", " ", inspect.getdoc(function) or "")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            read: Any = tyro.cli(
                options,
                prog=prog,
                args=arguments,
                config=MARKERS,
                registry=TYPES,
                use_underscores=True,
            )
    except SystemExit as end:
        if not end.code:
            raise
        known = options_of(function)
        unnamed = [n for n, p in parameters.items() if _is_positional(p.annotation)]
        _check_positional(arguments, unnamed, prog)
        raise UserError(
            one_line(errors.getvalue(), prog, known, unknown_in(arguments, known))
        ) from None
    return functools.partial(function, **vars(read), **given)


def _check_positional(
    arguments: Sequence[str], positional: Collection[str], prog: str
) -> None:
    """Refuses names for arguments that have none."""
    for argument in arguments:
        name, _, value = argument.partition("=")
        place = name.removeprefix("--").replace("-", "_")
        if name.startswith("--") and place in positional:
            raise UserError(
                f"{place} is given without its name: {prog} {value or place.upper()} "
                f"({prog} --help lists all)"
            )


def unknown_in(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Lists arguments that look like options and are none."""
    names = [a.partition("=")[0] for a in arguments if a.startswith("--")]
    known = {*options, *(f"no_{name}" for name in options), "help"}
    return [name for name in names if name[2:].replace("-", "_") not in known]


def one_line(
    box: str, prog: str, options: Sequence[str], unknown: Sequence[str] = ()
) -> str:
    """Reduces tyro's box of lines, titled and with rules between sections, to one."""
    plain = re.sub("\x1b\\[[0-9;]*m", "", box)  # on a terminal it has colours
    lines = re.sub("[│╭╮╰╯]", " ", plain).partition("\n")[2]
    sections = re.split(r"^ *[─-]{5,} *$", lines, flags=re.M)
    problem = next((section for section in sections if section.strip()), plain)
    text = " ".join(problem.split())
    hint = f"({prog} --help lists all)"
    if text.startswith("Missing from") and unknown:  # misspelt, so both
        text = f"Unrecognized options: {unknown[0]}"
    if text.startswith("Missing from"):  # names of options, each with its help
        missing = re.findall(r"^ {6}(\S+)", problem, re.M)
        return f"{', '.join(missing)} missing {hint}"
    kind, _, names = text.partition(": ")
    if kind != "Unrecognized options":
        reason = re.sub(r"no type matching .* Got errors: - [^:]*: ", "", text)
        # An optional argument is in brackets, as in the usage.
        reason = re.sub(r"^\[(\w+)\]", r"\1", reason.removeprefix("Error parsing "))
        return f"{reason} {hint}"
    names = names.partition("=")[0]
    if not names.startswith("-"):
        return f"{names}: one argument too many; quote names that contain spaces {hint}"
    close = difflib.get_close_matches(names.strip("-"), options, 1)
    meant = f"; did you mean --{close[0]}?" if close else ""
    return f"{names} is not an option{meant} {hint}"


def split_fields(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates --config.NAME=VALUE, or --config.NAME VALUE, from other arguments."""
    fields: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        is_field = argument.startswith(FIELD)
        if is_field and "=" not in argument and rest and not rest[0].startswith("--"):
            argument = f"{argument}={rest.pop(0)}"
        (fields if is_field else others).append(argument)
    return fields, others


def quieten() -> None:
    """Silences libraries' log messages; what matters they raise."""
    from absl import logging as absl_logging

    # Orbax logs a traceback for each thread that a failed save had; then it raises.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("jax").setLevel(logging.ERROR)
    # Orbax leaves the reads of a damaged checkpoint behind, each with a traceback.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("concurrent.futures").setLevel(logging.CRITICAL)


def log(line: str) -> None:
    """Prints a line, or several, at once; their names may be of others.

    Local copies are named by their URLs.
    """
    lines = map(printable, with_urls(line).split("\n"))
    print("\n".join(lines), flush=True)  # noqa: T201
