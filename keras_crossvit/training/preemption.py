"""SIGTERM: what a scheduler sends to a process whose machine it takes back."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class StopRequest:
    """Whether the process is to end.

    Not a `threading.Event`: a second signal that arrives while the first sets it would wait for
    its lock, which is held by the code that the signal interrupted.
    """

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Asks the process to end."""
        self._is_set = True

    def is_set(self) -> bool:
        """Whether it was asked to."""
        return self._is_set


class Preempted(SystemExit):
    """Ends the process with the exit status of one that SIGTERM ended, 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def watch_for_preemption() -> Iterator[StopRequest]:
    """A context in which SIGTERM only sets the `StopRequest` that it yields.

    Outside the main thread, where Python handles no signals, it stays unset.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.signal(signal.SIGTERM, lambda *_: request.set())
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
