"""What a user can mend, and how the programs say it: one line, exit status 2."""

import os
import select
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in what tokret was given: a file, a field, a flag.

    The message is one line that names the thing, what is wrong with it and what to do.
    """


class StoppedError(UserError):
    """A run was told to stop, and saved what it had; exit status 75.

    That status is EX_TEMPFAIL: what watches over runs starts them again.
    """


def exit_status(program: Callable[[], None]) -> int:
    """Runs a program and turns its end into an exit status.

    Args:
      program: the whole program, without arguments.

    Returns:
      0 when it ends by itself, 2 after a `UserError`, whose message goes to standard
      error as one line, or after the system's refusal of a file, 75 after a
      `StoppedError`, 130 after an interrupt from the keyboard, and 141, without a word,
      when whoever read the output has gone (`| head`). Any other exception is a defect
      of tokret and passes through with its traceback.
    """
    try:
        program()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return 141
    except StoppedError as stop:
        print(stop, file=sys.stderr)  # noqa: T201
        return 75
    except UserError as error:
        _say(" ".join(str(error).split()))
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        # The disk's word on a file or folder that was named to us.
        _say(f"{error.filename}: {error.strerror}")
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return 0


def _say(words: str) -> None:
    # One write, since threads that still end may write there too.
    sys.stderr.write(f"error: {words}\n")


def _reader_has_gone() -> bool:
    """Whether standard output is what broke; what it holds back is dropped then."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # it is no file
        return False
    pipe = select.poll()
    pipe.register(output, 0)
    if not pipe.poll(0):  # which tells of broken ends, asked or not
        return False
    # It would be tried again, and refused, at the exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True
