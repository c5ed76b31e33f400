"""Processes that were given something else than the others are refused before they train."""

import concurrent.futures
import re

import pytest

from tests.base import run_python
from tests.training.processes import cluster, free_ports

# What one of two processes, the argument, does: it checks what they have, and prints the errors.
DIFFERENCES = """
import dataclasses
import sys
import types

import keras
import numpy as np

from keras_crossvit.data.sources import MemorySplit, Source
from keras_crossvit.training.agreement import (
    check_agreement,
    check_same_weights,
    weights_in_one_line,
)
from keras_crossvit.training.strategy import make_strategy, scope_of
from tests.training.tiny import RECIPE

def check(step=7, names=("a", "b"), images=("1", "2", "3"), last=0, **values):
    labels = [*[0] * (len(images) - 1), last]
    split = MemorySplit([b"x"] * len(images), labels, images)
    split.root = values.get("data_dir", "")
    config = dataclasses.replace(RECIPE, **values)
    check_agreement(strategy, config, Source("some", names, split, split), step)
    print("alike")

def step_with(student, *teacher):
    model = types.SimpleNamespace(weights=[student])
    teacher = types.SimpleNamespace(variables=teacher)
    return types.SimpleNamespace(model=model, loss=types.SimpleNamespace(teacher=teacher))

strategy, number = make_strategy("auto"), int(sys.argv[1])
folder = f"/disk{number}/"
check(data_dir=folder, images=[folder + "1.png", folder + "2.png"])
for values in [
    {"step": 7 + number},
    {"step": 7 * number, "resume": bool(number)},
    {"images": ["1", "2", "3", "4"][number:]},
    {"images": ["1", ["2", "2b"][number], "3"]},
    {"last": number},
    {"names": [("a", "b"), ("a", "c")][number]},
    {"batch_size": 16 + number, "seed": number, "step": number},
]:
    try:
        check(**values)
    except ValueError as error:
        print(error)
for student, teacher in [(1.0, 2.0), (1.0 + number, 2.0), (1.0, 2.0 + number)]:
    try:
        check_same_weights(
            strategy, RECIPE, step_with(keras.Variable(student), keras.Variable(teacher))
        )
        print("same weights")
    except ValueError as error:
        print(error)
with scope_of(strategy):
    variable = keras.Variable(1.0)
    try:
        with weights_in_one_line(strategy, RECIPE):
            variable.assign(np.float32(1.0 + number))
        check_same_weights(strategy, RECIPE, step_with(variable))
    except ValueError as error:
        print(error)
"""


@pytest.mark.main_job
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_processes_that_differ_are_refused(backend):
    """They would wait for each other for ever, or see some images twice and others never."""
    ports = free_ports()

    def refusal(number):
        environment = {
            "KERAS_BACKEND": backend,
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": ",".join(f"localhost:{port}" for port in ports),
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
            "TF_CONFIG": cluster(number, ports),
        }
        return run_python(DIFFERENCES, number, **environment)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number, said in enumerate(pool.map(refusal, range(2))):
            data = "`dataset` must hold the same images in all processes .* some with other"
            expected = [
                "alike",
                "`output_dir` must be one folder that all .* that go on after steps 7, 8",
                "`resume` must be true in all processes of a run that goes on; .* without "
                f"--no-resume. Received here: resume={bool(number)}",
                f"{data} numbers of images to train on and .*; here {4 - number} to train on .*",
                *[f"{data} names or labels of images; here 3 .*"] * 2,
                f"{data} classes; here 3 .*",
                "`batch_size`, `seed` must be the same in all processes .* "
                f"here: batch_size={16 + number}, seed={number}",
            ]
            weights = "`weights` and `teacher` must hold the same values in all .* which do not"
            *lines, same, student, teacher, on_devices = said.strip().splitlines()
            assert same == "same weights"
            assert student == teacher == on_devices
            assert re.fullmatch(weights, student)
            lines = lines[-2 * len(expected) :]
            assert set(lines[::2]) == {"Waiting until all processes have read their data."}
            for line, pattern in zip(lines[1::2], expected, strict=True):
                assert re.fullmatch(pattern, line)
