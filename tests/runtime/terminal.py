"""A terminal of a chosen size, for tests of what is shown on one."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios


def on_terminal(code: str, rows: int = 40, columns: int | None = None) -> str:
    """Runs Python code; returns what it wrote to standard error, a terminal."""
    columns = 2 * rows if columns is None else columns
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=end, check=True)
    os.close(end)
    text = b""
    with contextlib.suppress(OSError):  # at the end
        while piece := os.read(terminal, 1000):
            text += piece
    os.close(terminal)
    return text.decode()
