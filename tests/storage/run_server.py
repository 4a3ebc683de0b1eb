"""Runs a module as the program it is, until the process that started it has ended.

    python tests/storage/run_server.py MODULE [ARGUMENT ...]

A test that is killed stops no servers.
"""

import os
import runpy
import sys
import threading
import time


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
