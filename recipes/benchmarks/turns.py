"""Measurements in turns: each candidate in a process that is paused while others run."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Timed = dict[str, Callable[[], float]]  # name -> a function that measures once

_PR_SET_PDEATHSIG = 1  # of Linux' prctl


@contextlib.contextmanager
def worker(
    make: Callable[..., dict[str, Callable[[], Any]]], *arguments: Any, required: bool = True
) -> Iterator[Callable[[str], Any]]:
    """A process for one candidate, which starts at its first turn.

    Args:
        make: A function at the top of a module. The process calls it once, with `arguments`;
            it returns `{name: function without arguments}`, empty if the candidate cannot
            take part.
        *arguments: Values that can be pickled.
        required: Whether there is no comparison without this candidate. If one that is not
            required fails, stderr says why, and all its later turns give `None`.

    Yields:
        `turn(name)`, which calls the function of that name in the process and returns its
        value, or `None` if there is no such function. Between its turns the process is
        stopped, so that threads that wait or work ahead cost the others nothing.

    Raises:
        RuntimeError: In a turn, if a required candidate fails: by an exception, whose traceback
            the process prints, or because the process was killed.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(there, make, arguments))
    failed = False

    def turn(name: str) -> Any:
        nonlocal failed
        if failed:
            return None
        if child.pid is None:
            child.start()
            there.close()
        os.kill(child.pid, signal.SIGCONT)
        try:
            here.send(name)
            result = here.recv()
        except (EOFError, OSError):  # nobody is at the other end any more
            failed = True
            _report(child, f"{make.__name__}{arguments}", required)
            return None
        os.kill(child.pid, signal.SIGSTOP)
        return result

    try:
        yield turn
    finally:
        if child.pid is not None and not failed:
            os.kill(child.pid, signal.SIGCONT)
        here.close()
        if child.pid is not None:
            child.join()


def _report(child, candidate, required):
    """Raises or prints that a candidate's process has ended."""
    child.join()
    ended = f"{candidate} failed: its process ended with exit code {child.exitcode}"
    if required:
        raise RuntimeError(ended)
    print(f"{ended}. Its figures stay empty.", file=sys.stderr)


def _serve(connection, make, arguments):
    """The process: answers names with values until the other end is closed."""
    if sys.platform == "linux":  # a stopped process cannot see that its parent was killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    functions = None
    while True:
        try:
            name = connection.recv()
        except EOFError:
            return
        functions = make(*arguments) if functions is None else functions
        connection.send(functions[name]() if name in functions else None)


def timed(function: Callable[[], Any], work: float) -> Callable[[], float]:
    """A function that calls `function` and returns `work` per second."""

    def measure() -> float:
        start = time.perf_counter()
        function()
        return work / (time.perf_counter() - start)

    return measure


def noise(count: int, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """`count` images in 0..255 of height and width `size`, and labels of 1,000 classes."""
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (count, *size, 3)).astype("float32")
    return images, np.arange(count) % 1000


def rounded(value: float | None, digits: int) -> float | None:
    """A rounded figure, or `None` where there is none."""
    return None if value is None else round(value, digits)


def median(values: Sequence[float | None], digits: int) -> float | None:
    """The rounded median of a candidate's turns; `None` if it did not take all of them."""
    return None if None in values else round(statistics.median(values), digits)


def spread(values: Sequence[float], digits: int) -> tuple[float, float]:
    """The lowest and the highest value, rounded."""
    return round(min(values), digits), round(max(values), digits)


def ratios(rates: Sequence[float], peer_rates: Sequence[float | None]) -> dict[str, Any]:
    """Compares two candidates turn by turn.

    Returns:
        `{"ratio": median, "ratios": (lowest, highest)}` of ours over the peer's; both `None` if
        the peer did not take all turns.
    """
    if None in peer_rates:
        return {"ratio": None, "ratios": None}
    found = [ours / peer for ours, peer in zip(rates, peer_rates, strict=True)]
    return {"ratio": median(found, 2), "ratios": spread(found, 2)}
