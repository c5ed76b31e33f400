"""One process, two devices and two processes train alike; a lost worker comes back."""

import json
import signal
import socket

import numpy as np
import pytest

from keras_crossvit.training.strategy import make_strategy, strategy_from_environment
from tests.base import run_python
from tests.training.processes import finish, run, started, wait_for, weights

# 22 steps with everything on but drop path, whose draws each replica makes for itself.
VALUES = {"output_dir": "run", "drop_path_rate": 0.0, "checkpoint_steps": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def alone(folder):
    """Weights of one process without a strategy."""
    values = {**VALUES, "data_dir": str(folder / "data"), "strategy": "none"}
    run(folder / "alone", values)
    return weights(folder / "alone")


def cluster(worker, ports):
    addresses = [f"localhost:{port}" for port in ports]
    place = {"type": "worker", "index": worker}
    return json.dumps({"cluster": {"worker": addresses}, "task": place})


def free_ports():
    with socket.socket() as first, socket.socket() as second:
        first.bind(("localhost", 0))
        second.bind(("localhost", 0))
        return first.getsockname()[1], second.getsockname()[1]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


@pytest.mark.main_job
def test_two_devices_are_one(folder, alone):
    here = folder / "mirrored"
    run(
        here,
        {**VALUES, "data_dir": str(folder / "data"), "strategy": "mirrored"},
        TINY_DEVICES="2",
    )
    assert_same(weights(here), alone)


@pytest.mark.main_job
def test_two_workers_are_one_and_only_the_chief_writes(folder, alone):
    ports, output_dir = free_ports(), str(folder / "workers" / "run")
    values = {**VALUES, "data_dir": str(folder / "data"), "output_dir": output_dir}
    values["strategy"] = "multiworker"
    chief, other = folder / "workers" / "0", folder / "workers" / "1"
    with (
        started(chief, values, TF_CONFIG=cluster(0, ports)) as first,
        started(
            other, {**values, "output_dir": str(other / "run")}, TF_CONFIG=cluster(1, ports)
        ) as second,
    ):
        finish(first, chief)
        finish(second, other)
    assert_same(weights(chief), alone)
    assert_same(weights(other), alone)
    assert sorted(path.name for path in other.iterdir()) == ["output.txt", "weights.npz"]
    assert (folder / "workers" / "run" / "export" / "1").is_dir()


@pytest.mark.main_job
def test_a_killed_worker_that_is_started_again_joins(folder, alone):
    ports, output_dir = free_ports(), str(folder / "lost" / "run")
    values = {**VALUES, "data_dir": str(folder / "data"), "output_dir": output_dir}
    values["strategy"] = "multiworker"
    chief, other = folder / "lost" / "0", folder / "lost" / "1"
    checkpoints = folder / "lost" / "run" / "checkpoints"
    with started(chief, values, TF_CONFIG=cluster(0, ports)) as first:
        with started(other, values, TF_CONFIG=cluster(1, ports)) as second:
            wait_for(lambda: list(checkpoints.glob("step-*")), first, chief)
            second.send_signal(signal.SIGKILL)
            second.wait()
        with started(other, values, TF_CONFIG=cluster(1, ports)) as second:
            output = finish(first, chief)
            finish(second, other)
    assert "A worker was lost" in output
    assert "Going on after step" in output
    assert_same(weights(chief), alone)
    assert_same(weights(other), alone)


def test_slurm_names_the_workers():
    """TensorFlow's own resolver reads what `srun` sets; the strategy would wait for the rest."""
    code = """if True:
        import tensorflow as tf
        from keras_crossvit.training.strategy import make_strategy
        class Strategy:
            def __init__(self, cluster_resolver):
                self.resolver = cluster_resolver

        tf.distribute.MultiWorkerMirroredStrategy = Strategy
        resolver = make_strategy("multiworker").resolver
        print(resolver.cluster_spec().as_dict(), resolver.task_type, resolver.task_id)
    """
    slurm = {
        "SLURM_PROCID": "1",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_STEP_NUM_TASKS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    output = run_python(code, **slurm)
    assert output.strip().endswith("{'worker': ['node1:8888', 'node2:8888']} worker 1")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "neither TF_CONFIG nor SLURM_PROCID"),
        ({"TF_CONFIG": '{"task": {}}'}, "`TF_CONFIG` must name the workers"),
    ],
)
def test_workers_without_addresses(environment, message, monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        make_strategy("multiworker")


def test_no_tpu_here():
    with pytest.raises(ValueError, match='`strategy="tpu"` needs a TPU'):
        make_strategy("tpu")


@pytest.mark.parametrize(
    ("environment", "strategy"),
    [({}, "none"), ({"TF_CONFIG": "{}"}, "multiworker"), ({"TPU_NAME": "x"}, "tpu")],
)
def test_auto_takes_what_the_environment_speaks_for(environment, strategy, monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert strategy_from_environment() == strategy
