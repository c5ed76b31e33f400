"""Waiting for other machines, out loud and not for ever."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence

_EVERY = 15.0  # seconds between messages


@contextlib.contextmanager
def waiting_for(addresses: Sequence[str], timeout: float) -> Iterator[None]:
    """A context in which this process waits for others to connect.

    Every 15 seconds it prints which of them cannot be reached, and after `timeout` seconds it
    ends the process with status 1: what waits inside cannot be interrupted otherwise.

    Args:
        addresses: Those of the other processes, "host:port" each.
        timeout: Seconds.
    """
    done = threading.Event()
    thread = threading.Thread(target=_watch, args=(addresses, timeout, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _watch(addresses, timeout, done):
    start = time.monotonic()
    while not done.wait(min(_EVERY, max(0.0, timeout - (time.monotonic() - start)))):
        waited = time.monotonic() - start
        missing = [address for address in addresses if not _answers(address)]
        whom = ", ".join(missing) if missing else "workers that can be reached but have not joined"
        if waited >= timeout:
            print(f"Gave up after {waited:.0f} s (worker_timeout) without {whom}.", flush=True)
            os._exit(1)
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
