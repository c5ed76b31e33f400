"""SIGTERM: what a scheduler sends to a process whose machine it takes back."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Preempted(SystemExit):
    """Ends the process with the exit status of one that SIGTERM ended, 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@contextlib.contextmanager
def watch_for_preemption() -> Iterator[threading.Event]:
    """A context in which SIGTERM only sets the `threading.Event` that it yields.

    Outside the main thread, where Python handles no signals, the event stays unset.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
