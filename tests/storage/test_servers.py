"""Servers of the tests end with the process that started them, however that ends."""

import socket
import subprocess
import sys
import time

from tests.storage.servers import RUN_SERVER, free_port

STARTER = """
import subprocess, sys, time
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stderr=subprocess.DEVNULL)
print(process.pid, flush=True)
time.sleep(600)
"""


def answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition):
    last = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < last
        time.sleep(0.05)


def test_a_server_ends_with_a_killed_test():
    port = free_port()
    server = (str(RUN_SERVER), "http.server", "--bind=127.0.0.1", str(port))
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, *server], stdout=subprocess.PIPE
    )
    with starter:
        wait_until(lambda: answers(port))
        starter.kill()
    wait_until(lambda: not answers(port))
