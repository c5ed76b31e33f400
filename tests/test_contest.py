"""Comparisons with timm: what is made of the figures; the processes; a real run in small."""

import contextlib
import os
import statistics
import time

import pytest

from keras_crossvit import benchmark
from keras_crossvit.benchmark import contest, contestants
from keras_crossvit.benchmark.process import process, ratios


def make_counter(start):
    state = {"count": start}

    def count():
        state["count"] += 1
        return state["count"]

    return {"count": count, "process": os.getpid, "now": time.monotonic}


def state_of(process_id):
    with open(f"/proc/{process_id}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_process_keeps_its_state_and_stands_still_between_turns():
    with process(make_counter, 7) as first, process(make_counter, 70) as second:
        assert [first("count"), second("count"), first("count")] == [8, 71, 9]
        assert len({first("process"), second("process"), os.getpid()}) == 3
        assert first("no such thing") is None
        child = first("process")
        deadline = time.monotonic() + 10
        while state_of(child) != "T" and time.monotonic() < deadline:  # T: stopped
            time.sleep(0.01)
        assert state_of(child) == "T"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_ratios():
    assert ratios([2.0, 9.0, 4.0], [1.0, 2.0, 4.0]) == {"ratio": 2.0, "ratios": (1.0, 4.5)}
    assert ratios([2.0], [None]) == {"ratio": None, "ratios": None}


def turns_of(monkeypatch, rows):
    """Lets `process` give known figures: `{function: {name: values of its turns}}`."""
    asked = []

    @contextlib.contextmanager
    def known(make, *arguments):
        left = {name: iter(values) for name, values in rows[make].items()}
        asked.append((make, arguments))
        yield lambda name: next(left[name], None) if name in left else None

    monkeypatch.setattr(contest, "process", known)
    return asked


def test_inference_is_compared_with_the_fastest_of_timms_variants(monkeypatch):
    ours = {
        "forward": [1.0, 20.0, 30.0, 40.0],  # the first turn does not count
        "predict": [1.0, 10.0, 27.0, 40.0],
        "evaluate": [1.0, 20.0, 24.0, 36.0],
        "gmacs_per_second": [1.0, 100.0, 100.0, 100.0],
    }
    timms = {"eager": [99.0, 10.0, 10.0, 10.0], "compiled": [1.0, 20.0, 20.0, 10.0]}
    rows = {contest.our_inference: ours, contest.timm_inference: timms}
    asked = turns_of(monkeypatch, rows)
    found = benchmark.compare_inference("crossvit_digits", 4, repeats=3, jit_compile=True)
    gmacs = benchmark.cost_of(benchmark.make_model("crossvit_digits"))["macs"] / 1e9
    assert found == {
        "images_per_second": 30.0,
        "spread": (20.0, 40.0),
        "predict_share": 0.9,
        "evaluate_share": 0.9,
        "matrix_product_share": round(0.3 * gmacs, 3),
        "timm_images_per_second": {"eager": 10.0, "compiled": 20.0},
        "ratio": 1.5,
        "ratios": (1.0, 4.0),
        "batch_size": 4,
    }
    assert asked[0] == (contest.our_inference, ("crossvit_digits", 4, "float32", True))
    assert asked[1] == (contest.timm_inference, ("crossvit_digits", 4, "float32"))


def test_training_and_first_steps(monkeypatch):
    ours = {
        "build_seconds": [2.0],
        "first_step_seconds": [9.0, 9.0],
        "peak_memory_gb": [1.0, 2.5],
        "images_per_second": [1.0, 6.0, 8.0],
    }
    timms = {
        "first_step_seconds": [3.0, 3.0],
        "peak_memory_gb": [1.0, 2.0],
        "images_per_second": [1.0, 4.0, 4.0],
    }
    rows = {contest.our_training: ours, contest.timm_training: timms}
    turns_of(monkeypatch, rows)
    imports = iter([0.1, 0.3])
    monkeypatch.setattr(contest, "import_seconds", lambda: next(imports))
    assert benchmark.compare_training("x", 4, repeats=2) == {
        "first_step_seconds": 9.0,
        "peak_memory_gb": 2.5,
        "timm_first_step_seconds": 3.0,
        "timm_peak_memory_gb": 2.0,
        "images_per_second": 7.0,
        "spread": (6.0, 8.0),
        "timm_images_per_second": 4.0,
        "ratio": 1.75,
        "ratios": (1.5, 2.0),
        "batch_size": 4,
    }
    assert benchmark.compare_first_step("x", 4, repeats=2) == {
        "first_step_seconds": 9.0,
        "spread": (9.0, 9.0),
        "timm_first_step_seconds": 3.0,
        "import_seconds": 0.2,
        "build_seconds": 2.0,
        "batch_size": 4,
    }
    turns_of(monkeypatch, {contest.our_training: ours, contest.timm_training: {}})
    found = benchmark.compare_training("x", 4, repeats=1)
    assert (found["timm_images_per_second"], found["ratio"]) == (None, None)


def test_names_of_timm():
    names = [contestants.timms_name(x) for x in ("crossvit_9", "crossvit_15_dagger@408")]
    assert names == ["crossvit_9_240", "crossvit_15_dagger_408"]
    assert contestants.timms_name("deit_small") == "deit_small_patch16_224"


def test_a_real_run_in_small():
    """Ours alone: timm has no such model, even where it is installed."""
    found = benchmark.compare_training("crossvit_digits", 2, repeats=1)
    assert found["images_per_second"] > 0
    assert found["first_step_seconds"] > 0
    assert 0.1 < found["peak_memory_gb"] < 20
    assert found["timm_images_per_second"] is None
    assert contestants.import_seconds() > 0
    functions = contestants.our_inference("crossvit_digits", 1, "float32", False)
    rates = {name: statistics.median(run() for _ in range(2)) for name, run in functions.items()}
    assert rates.keys() == {"forward", "predict", "evaluate", "gmacs_per_second"}
    assert min(rates.values()) > 0
