"""Flags of the two programs: absl's, with one-line errors and exit status 2.

On several hosts the same command is started on each: where the platform does not tell
(`tokret.runtime.cluster`), --coordinator, --num_processes and --process_id do.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from tokret.configuration import Config
from tokret.errors import UserError
from tokret.runtime import cluster
from tokret.runtime.allocation import keep_freed_memory

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, where several work together."
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Processes that work together; 1: alone, come what may."
)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process's, from 0.")


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs a program; never returns.

    Args:
      main: the program; it reads the flags itself.
    """

    def program() -> None:
        app.define_help_flags()
        try:
            rest = parse(flags.FLAGS, sys.argv)
        except SystemExit:  # --help: absl exits with 1
            raise SystemExit(0) from None
        if rest:
            raise UserError(f"{rest[0]!r} is not a flag; flags look like --name=value")
        quieten()
        keep_freed_memory()
        cluster.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        main()

    sys.exit(cluster.together(program))


def parse(values: flags.FlagValues, arguments: Sequence[str]) -> list[str]:
    """Sets flags by a command line and returns what is left of it.

    Args:
      values: the flags.
      arguments: the program's name first.

    Raises:
      UserError: for a flag that there is not, or a value that it cannot have.
    """
    try:
        return values(arguments)[1:]
    except (AttributeError, KeyError) as error:
        raise UserError(
            f"a --config flag names no field of the config: {_one_line(error)}; "
            "configs/base.py lists them"
        ) from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_one_line(error)) from error
    except OSError as error:
        raise UserError(f"--config cannot be read: {_one_line(error)}") from error
    except SyntaxError as error:
        raise UserError(
            f"--config: {error.filename}, line {error.lineno}, is not Python: "
            f"{error.msg}"
        ) from error


def load_config(file: str, fields: Sequence[str]) -> Config:
    """Loads a config as train.py does.

    Args:
      file: the value of --config.
      fields: changes to it, as --config.FIELD=VALUE.

    Raises:
      UserError: if there is no such config, or no such field.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", flag_values=values)
    rest = parse(values, ["", f"--config={file}", *fields])
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag; flags look like --name=value")
    return plain(config.value)


def quieten() -> None:
    """Silences libraries' chatter; what matters they raise."""
    # Orbax logs a traceback for each thread that a failed save had; then it raises.
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("jax").setLevel(logging.ERROR)
    # Orbax leaves the reads of a damaged checkpoint behind, each with a traceback.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("concurrent.futures").setLevel(logging.CRITICAL)


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return re.sub(r"\s+", " ", str(text)).strip().rstrip(".")


def plain(config: ConfigDict) -> Config:
    """Returns a config as JSON would give it back: dictionaries, lists, numbers.

    Raises:
      UserError: if the file that --config names could not be read.
    """
    try:
        fields = config.to_dict()
    except OSError as error:  # kept back by the flag until it is looked at
        missing = re.sub(r".*Attempted \[[^]]*\]:", "", _one_line(error))
        raise UserError(f"--config cannot be read:{missing}") from error
    loaded: Config = json.loads(json.dumps(fields))
    return loaded
