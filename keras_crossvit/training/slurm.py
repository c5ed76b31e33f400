"""What Slurm's `srun` tells the tasks that it starts, and how to pass it on to TensorFlow."""

import itertools
import json
import os
import re
from collections.abc import Iterator

# Ports below those that systems assign to any connection: 16 for each of 512 jobs.
_FIRST_PORT, _JOBS, _PORTS = 20_000, 512, 16


def is_step() -> bool:
    """Whether `srun` has started this process; one under `sbatch` alone has no others with it."""
    return "SLURM_STEP_NUM_TASKS" in os.environ


def tasks_of_step() -> int:
    """Number of processes that `srun` has started; 1 without it."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))


def one_task_each() -> bool:
    """Whether `srun` has started one process on each machine."""
    return set(_counts(os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))) == {1}


def tf_config(gpus: int) -> str:
    """`TF_CONFIG` of this process, with a worker for each task.

    TensorFlow's own resolver for Slurm is not used: it sorts the machines as strings, so that nine
    of node1 to node10 take another's address for their own, and it fails without GPUs.

    Args:
        gpus: Number of GPUs that this process sees.

    Raises:
        ValueError: If tasks share a machine and each sees all of its GPUs.
    """
    own, local = os.environ["SLURMD_NODENAME"], int(os.environ["SLURM_LOCALID"])
    names, counts = (os.environ[f"SLURM_STEP_{x}"] for x in ("NODELIST", "TASKS_PER_NODE"))
    tasks = dict(zip(_names(names), _counts(counts), strict=True))
    if gpus and tasks[own] > 1 and gpus == int(os.environ.get("SLURM_GPUS_ON_NODE", 0)):
        raise ValueError(
            '`strategy="multiworker"` must have one Slurm task for each machine, or GPUs of its '
            f"own for each (--gpus-per-task). Received: {tasks[own]} tasks on {own}, each with "
            f"all of its {gpus} GPUs"
        )
    first = _FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % _JOBS * _PORTS
    places = [(name, number) for name, count in tasks.items() for number in range(count)]
    workers = [f"{name}:{first + number}" for name, number in places]
    task = {"type": "worker", "index": places.index((own, local))}
    return json.dumps({"cluster": {"worker": workers}, "task": task})


def _names(nodes: str) -> Iterator[str]:
    """Machines in a list such as "gpu[01-03,7],login"."""
    for node in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        parts = re.split(r"\[([^\]]*)\]", node)  # every second one was in brackets
        choices = [_numbers(x) if place % 2 else [x] for place, x in enumerate(parts)]
        yield from map("".join, itertools.product(*choices))


def _numbers(ranges: str) -> Iterator[str]:
    """The numbers in "01-03,7", with leading zeros kept."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield str(number).zfill(len(first))


def _counts(tasks: str) -> Iterator[int]:
    """Tasks of each machine, from "2(x3),1"."""
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks):
        yield from [int(count)] * int(times or 1)
