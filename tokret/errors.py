"""What a user can mend, and how the programs say it: one line, exit status 2."""

import errno
import os
import select
import sys
from collections.abc import Callable

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


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
      error as one line, or after the system's refusal of a file or a full disk, 75
      after a `StoppedError`, 130 after an interrupt from the keyboard, and 141, without
      a word, when whoever read the output has gone (`| head`). Any other exception is
      a defect of tokret and passes through with its traceback.
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
            if error.errno not in NO_ROOM:
                raise
            # It names no file: most likely it is the output's.
            _say(f"what was to be written could not be: {error.strerror}")
            _drop_output()
            return 2
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
    _drop_output()
    return True


def _drop_output() -> None:
    """Lets go what standard output holds back, if it is a file that refuses it.

    It would be tried again, and refused, at the exit.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
