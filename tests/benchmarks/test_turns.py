"""Processes that take turns, and those that fail."""

import os
import re
import time

import pytest

from benchmarks.turns import median, ratios, spread, worker
from tests.benchmarks import processes


def state_of(process_id):
    """T: stopped; Z: ended, and nobody has asked for its exit code yet; "" where it is gone."""
    try:
        with open(f"/proc/{process_id}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for(states, process_id):
    deadline = time.monotonic() + 10
    while state_of(process_id) not in states and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state_of(process_id) in states


def test_a_process_keeps_its_state_and_stands_still_between_turns():
    with worker(processes.counter, 7) as first, worker(processes.counter, 70) as second:
        assert [first("count"), second("count"), first("count")] == [8, 71, 9]
        assert len({first("process"), second("process"), os.getpid()}) == 3
        assert first("no such thing") is None
        child = first("process")
        wait_for({"T"}, child)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_stopped_process_ends_with_the_one_that_started_it():
    """However that ends: by `kill`, or for want of memory."""
    with worker(processes.killed_between_turns_of_another, required=False) as turn:
        stopped = turn("another")
        wait_for({"T"}, stopped)
        assert turn("killed") is None
    wait_for({"Z", ""}, stopped)


def test_a_process_without_a_turn_never_starts():
    with worker(processes.fails):
        pass


def test_a_required_candidate_that_fails_ends_the_comparison(capfd):
    reason = r"fails\('x', 1\) failed: its process ended with exit code 1$"
    with worker(processes.fails, "x", 1) as turn, pytest.raises(RuntimeError, match=reason):
        turn("forward")
    assert "LookupError: no such thing as a compiler" in capfd.readouterr().err


def test_another_that_fails_says_why_once_and_gives_no_figures(capfd):
    with worker(processes.fails, "x", required=False) as turn:
        assert [turn("forward"), turn("forward")] == [None, None]
    said = capfd.readouterr().err
    assert "LookupError: no such thing as a compiler" in said
    line = "fails('x',) failed: its process ended with exit code 1. Its figures stay empty."
    assert said.count(line) == 1


def test_a_candidate_that_is_killed_keeps_no_figures(capfd):
    with worker(processes.is_killed_in_the_second_turn, required=False) as turn:
        assert [turn("images_per_second") for _ in range(4)] == [1.0, None, None, None]
    assert re.search(r"failed: its process ended with exit code -9\. ", capfd.readouterr().err)


def test_ratios():
    assert ratios([2.0, 9.0, 4.0], [1.0, 2.0, 4.0]) == {"ratio": 2.0, "ratios": (1.0, 4.5)}
    assert ratios([2.0], [None]) == {"ratio": None, "ratios": None}


def test_median_and_spread():
    assert median([3.14159, 1.0, 4.0], 2) == 3.14
    assert median([3.0, None, 4.0], 2) is None
    assert spread([3.14159, 1.0, 4.0], 1) == (1.0, 4.0)
