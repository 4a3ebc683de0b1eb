"""Runs a command of tokret that gets a signal at a call, however fast the machine is.

    python -m tests.signalled SIGNAL MODULE:FUNCTION WORD COUNT COMMAND [ARGUMENT ...]

The process sends itself the signal, by its name, at the COUNTth call of the function
with WORD in an argument.
"""

import functools
import importlib
import itertools
import os
import signal
import sys


def send_at(number: int, place: str, word: str, count: int) -> None:
    """Replaces a function by one that sends the signal before it calls it."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    function, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(function)
    def call(*arguments, **options):
        if any(word in str(each) for each in arguments) and next(calls) == count:
            os.kill(os.getpid(), number)
        return function(*arguments, **options)

    setattr(owner, name, call)


if __name__ == "__main__":
    name, place, word, count, *sys.argv[1:] = sys.argv[1:]
    send_at(signal.Signals[name], place, word, int(count))
    from tokret.__main__ import main

    main()
