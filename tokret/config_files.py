"""Config files: configs/*.py and changes to them from a command line."""

import json
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from tokret.configuration import Config
from tokret.errors import UserError


def load_config(file: str, fields: Sequence[str]) -> Config:
    """Loads a config file.

    Args:
      file: its path; what follows a colon is its function's argument.
      fields: changes to it, as --config.FIELD=VALUE.

    Raises:
      UserError: if there is no such config, or no such field.
    """
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", flag_values=values)
    try:
        values(["", f"--config={file}", *fields])
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
    return plain(config.value)


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return re.sub(r"\s+", " ", str(text)).strip().rstrip(".")


def plain(config: ConfigDict) -> Config:
    """Returns a config as JSON would give it back: dictionaries, lists, numbers.

    Raises:
      UserError: if the config's file could not be read.
    """
    try:
        fields = config.to_dict()
    except OSError as error:  # kept back by the flag until it is looked at
        missing = re.sub(r".*Attempted \[[^]]*\]:", "", _one_line(error))
        raise UserError(f"--config cannot be read:{missing}") from error
    loaded: Config = json.loads(json.dumps(fields))
    return loaded
