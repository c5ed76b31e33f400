"""Waiting for other machines, with messages and not for ever.

Run as a program, it watches a process that waits: code that waits inside TensorFlow or JAX holds
Python's lock, so no thread of that process could print anything.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

_EVERY = 15.0  # seconds between messages


@contextlib.contextmanager
def waiting_for(addresses: Sequence[str], timeout: float) -> Iterator[None]:
    """A context in which this process waits for others to connect.

    Every 15 seconds a message names those that cannot be reached, and after `timeout` seconds
    the process is killed.

    Args:
        addresses: Those of the other processes, "host:port" each.
        timeout: Seconds.
    """
    command = [sys.executable, "-I", __file__, str(os.getpid()), str(timeout), *addresses]
    watcher = subprocess.Popen(command)
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()


def _watch(process, timeout, addresses):
    start = time.monotonic()
    while os.getppid() == process:
        time.sleep(min(_EVERY, max(0.0, timeout - (time.monotonic() - start))))
        waited = time.monotonic() - start
        missing = [address for address in addresses if not _answers(address)]
        whom = ", ".join(missing) or "processes that can be reached and have not joined"
        if waited >= timeout:
            print(f"Gave up after {waited:.0f} s (worker_timeout), without {whom}.", flush=True)
            os.kill(process, signal.SIGKILL)
            return
        print(
            f"Waiting for {whom}: {waited:.0f} of at most {timeout:.0f} s (worker_timeout).",
            flush=True,
        )


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
