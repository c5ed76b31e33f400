"""Candidates for `turns.worker` that need no library, so that their processes start at once."""

import contextlib
import os
import signal
import time

from benchmarks.turns import worker


def counter(start):
    state = {"count": start}

    def count():
        state["count"] += 1
        return state["count"]

    return {"count": count, "process": os.getpid, "now": time.monotonic}


def killed_between_turns_of_another():
    """A process that has given another one a turn when it is killed."""
    stack = contextlib.ExitStack()
    return {
        "another": lambda: stack.enter_context(worker(counter, 0))("process"),
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    }


def devices():
    """What tells libraries which devices there are."""
    names = ("CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "KERAS_TORCH_DEVICE")
    return {"variables": lambda: [os.environ.get(name) for name in names]}


def fast(*arguments):
    """In place of any candidate: every figure is 2."""
    names = ("forward", "predict", "evaluate", "float32", "bfloat16")
    names += ("images_per_second", "first_step_seconds", "peak_memory_gb", "build_seconds")
    return {name: lambda: 2.0 for name in names}


def fails(*arguments):
    raise LookupError("no such thing as a compiler")


def fails_compiled(name, batch_size, precision, variant):
    """In place of `timm_inference`: the compiled variant raises when it is run."""
    return {"forward": fails if variant == "compiled" else lambda: 1.0}


def is_killed_in_the_second_turn(*arguments):
    """In place of `timm_training` and others: its figures are 1 until it is killed."""
    turns = []

    def images_per_second():
        turns.append(None)
        if len(turns) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    return {**fast(), "images_per_second": images_per_second}
