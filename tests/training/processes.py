"""Runs of `tests/training/tiny.py` in processes of their own."""

import contextlib
import json
import socket
import subprocess
import sys
import time

import numpy as np

from tests import base


@contextlib.contextmanager
def started(folder, values, **environment):
    """A run in the background; its folder is made, its output goes to `output.txt` there."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.training.tiny", "--recipe", "tiny", "--set"]
    command += [f"{name}={json.dumps(value)}" for name, value in values.items()]
    with open(folder / "output.txt", "ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=base.environment_with(
                PYTHONPATH=str(base.ROOT), CUDA_VISIBLE_DEVICES="-1", **environment
            ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(process, folder, status=0):
    """Waits for the end of a run; returns what it printed."""
    process.wait(timeout=300)
    output = (folder / "output.txt").read_text(errors="replace")
    assert process.returncode == status, output[-4000:]
    return output


def run(folder, values, status=0, **environment):
    with started(folder, values, **environment) as process:
        return finish(process, folder, status)


def weights(folder):
    with np.load(folder / "weights.npz") as file:
        return [file[name] for name in file.files]


def wait_for(condition, process, folder, seconds=240):
    """Waits until `condition()`, or fails with the process's output if the process ends."""
    end = time.monotonic() + seconds
    while not condition():
        output = (folder / "output.txt").read_text(errors="replace")
        assert process.poll() is None, output[-4000:]
        assert time.monotonic() < end, output[-4000:]
        time.sleep(0.02)


def cluster(worker, ports, kind="worker"):
    """`TF_CONFIG` of a worker of this machine."""
    addresses = [f"localhost:{port}" for port in ports]
    place = {"type": kind, "index": worker}
    return json.dumps({"cluster": {"worker": addresses}, "task": place})


def free_ports():
    """Two of this machine."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("localhost", 0))
        second.bind(("localhost", 0))
        return first.getsockname()[1], second.getsockname()[1]
