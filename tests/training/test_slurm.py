"""Where a Slurm step's processes find each other on TensorFlow."""

import json

import pytest
import tensorflow as tf

from keras_crossvit.training import slurm, strategy

STEP = {
    "SLURM_JOB_ID": "1027",  # for ports: 20,000 + 16 * (1027 - 2 * 512)
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[9-10],login",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
    "SLURMD_NODENAME": "node10",
    "SLURM_LOCALID": "0",
    "SLURM_GPUS_ON_NODE": "8",
}


@pytest.fixture
def environment(monkeypatch):
    """A function that sets the variables of a step, with some others."""
    monkeypatch.setenv("TF_CONFIG", "")  # so that it is restored

    def set_all(**others):
        for name, value in {**STEP, **others}.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_the_strategy_takes_the_workers(environment, monkeypatch):
    """In the order of the machines; sorted as text, node10 would come before node9."""
    environment()
    made = []
    monkeypatch.setattr(
        tf.distribute,
        "MultiWorkerMirroredStrategy",
        lambda cluster_resolver: made.append(cluster_resolver),
    )
    strategy.make_strategy("auto")
    (resolver,) = made
    workers = ["node9:20048", "node10:20048", "login:20048"]
    assert resolver.cluster_spec().as_dict() == {"worker": workers}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("a", ["a"]),
        ("gpu-[08-10,12],b3", ["gpu-08", "gpu-09", "gpu-10", "gpu-12", "b3"]),
        ("r[1-2]n[7,9].x", ["r1n7.x", "r1n9.x", "r2n7.x", "r2n9.x"]),
    ],
)
def test_names_of_machines(nodes, names, environment):
    environment(
        SLURM_STEP_NODELIST=nodes,
        SLURM_STEP_TASKS_PER_NODE=f"1(x{len(names)})",
        SLURMD_NODENAME=names[-1],
    )
    found = json.loads(slurm.tf_config(gpus=8))
    assert found["cluster"]["worker"] == [f"{name}:20048" for name in names]
    assert found["task"]["index"] == len(names) - 1


def test_several_tasks_of_a_machine(environment):
    environment(SLURM_STEP_TASKS_PER_NODE="2(x2),1", SLURM_LOCALID="1")
    assert not slurm.one_task_each()
    for gpus in (0, 4):  # none, or those of this task alone
        found = json.loads(slurm.tf_config(gpus))
        ports = [place.rpartition(":")[2] for place in found["cluster"]["worker"]]
        assert ports == ["20048", "20049", "20048", "20049", "20048"]
        assert found["task"] == {"type": "worker", "index": 3}
    with pytest.raises(ValueError, match=r"one Slurm task.*2 tasks on node10.*all of its 8 GPUs"):
        slurm.tf_config(gpus=8)


def test_without_srun(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    monkeypatch.delenv("SLURM_STEP_TASKS_PER_NODE", raising=False)
    assert (slurm.is_step(), slurm.tasks_of_step(), slurm.one_task_each()) == (False, 1, False)
