"""The devices of a run, and this process's place among them."""

import collections
import contextlib
import functools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_crossvit.data.shards import Shard
from keras_crossvit.training import slurm
from keras_crossvit.training.waiting import waiting_for

_TIMEOUT = 1800  # seconds
_MARGIN = 60  # seconds after that until JAX would give up by itself
_KERAS = "KERAS_DISTRIBUTION_"  # prefix of the variables of `keras.distribution.initialize`


def make_strategy(name: str, worker_timeout: int = _TIMEOUT) -> Any:
    """The strategy that a value of `TrainConfig.strategy` names.

    "auto" takes what the environment suggests. On TensorFlow: a TPU that `TPU_NAME` names, the
    workers of `TF_CONFIG` or of Slurm's `srun`, all GPUs of this machine if there are several,
    otherwise no strategy; on JAX "data_parallel" if there are several devices or processes.
    "multiworker" reads `TF_CONFIG` or Slurm's variables; "data_parallel" reads Slurm's or those
    of `keras.distribution.initialize`.

    Args:
        name: "auto", "none", "mirrored", "multiworker", "tpu" or "data_parallel".
        worker_timeout: Seconds to wait for other processes before this one gives up.

    Returns:
        A `tf.distribute.Strategy` on TensorFlow; a `keras.distribution.DataParallel` or `None` on
        JAX.

    Raises:
        ValueError: If the backend has no such strategy, or no workers or no TPU can be found.
    """
    if name == "auto":
        name = strategy_from_environment()
    backend = keras.backend.backend()
    if backend == "jax":  # TensorFlow reads the images, and must leave the devices to JAX
        tf.config.set_visible_devices([], "GPU")
    makers = _JAX if backend == "jax" else _TENSORFLOW
    if name not in makers:
        wanted = "jax" if name in _JAX else "tensorflow"
        raise ValueError(
            f"`strategy` must be auto or one of {', '.join(makers)} where KERAS_BACKEND={backend}."
            f" Received: strategy={name!r}, which needs KERAS_BACKEND={wanted}"
        )
    return makers[name](worker_timeout)


def strategy_from_environment() -> str:
    """The strategy that "auto" stands for here."""
    if keras.backend.backend() == "jax":
        return "data_parallel" if _jax_processes() > 1 or _jax_devices() > 1 else "none"
    if os.environ.get("TPU_NAME"):
        return "tpu"
    if os.environ.get("TF_CONFIG") or slurm.tasks_of_step() > 1:
        return "multiworker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def asks_others(name: str) -> bool:
    """Whether making the strategy of this name takes other processes, or a TPU."""
    name = strategy_from_environment() if name == "auto" else name
    return name in ("multiworker", "tpu") or (name == "data_parallel" and _jax_processes() > 1)


def _multiworker(timeout):
    if os.environ.get("TF_CONFIG"):
        _check_tf_config(os.environ["TF_CONFIG"])
    elif slurm.is_step():
        os.environ["TF_CONFIG"] = slurm.tf_config(len(tf.config.list_physical_devices("GPU")))
    else:
        raise ValueError(
            '`strategy="multiworker"` needs the workers\' addresses: set TF_CONFIG, or start the '
            "command by Slurm's srun. Received: neither TF_CONFIG nor SLURM_STEP_NUM_TASKS"
        )
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    own, addresses = _place_of(resolver)
    others = [address for number, address in enumerate(addresses) if number != own]
    with waiting_for(others, timeout):
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _check_tf_config(text):
    try:
        given = json.loads(text)
        cluster, task = given["cluster"], given["task"]
        known = not cluster.keys() - {"chief", "worker"}
        known &= int(task["index"]) in range(len(cluster[task["type"]]))
    except (ValueError, AttributeError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(
            "`TF_CONFIG` must name the workers, a chief if there is one, and which of them this "
            'process is, as in {"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            '"worker", "index": 0}}. '
            f"Received: TF_CONFIG={text}"
        )


def _place_of(resolver):
    """The number of this process among all, a chief before the workers, and all addresses."""
    cluster = resolver.cluster_spec()
    chiefs, workers = (
        cluster.job_tasks(job) if job in cluster.jobs else [] for job in ("chief", "worker")
    )
    before = len(chiefs) if resolver.task_type == "worker" else 0
    return before + resolver.task_id, [*chiefs, *workers]


def _tpu(timeout):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=os.environ.get("TPU_NAME", "local")
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(
            '`strategy="tpu"` needs a TPU: run on a TPU VM (with tensorflow-tpu), or name one in '
            f"TPU_NAME. Received: {error}"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _data_parallel(timeout):
    import jax

    if _jax_processes() > 1 and not jax.distributed.is_initialized():
        # Not by `keras.distribution.initialize`, which leaves the last two arguments to JAX: it
        # gives up after 300 seconds, and under Slurm takes one GPU for each task.
        named = _named_processes()
        coordinator = named.get("coordinator_address")
        with waiting_for([coordinator] if coordinator else [], timeout):
            jax.distributed.initialize(
                **named,
                local_device_ids=_gpus_of_the_only_task(),
                initialization_timeout=timeout + _MARGIN,
            )
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise ValueError(
            '`strategy="data_parallel"` must have the same number of devices in each process. '
            f"Received: {', '.join(str(count) for _, count in sorted(counts.items()))}"
        )
    # The batches are made for this process already, so Keras must not shard them again.
    strategy = keras.distribution.DataParallel(devices=jax.devices(), auto_shard_dataset=False)
    if spans_workers(strategy):
        # While all are here: on CPUs the first computation that processes share waits 30 seconds
        # for the last of them, and all later ones wait without limit.
        gather(strategy, [0])
    return strategy


def _named_processes():
    """Arguments of `jax.distributed.initialize` from Keras' variables; `{}` lets JAX find them."""
    count, number, addresses = (
        os.environ.get(_KERAS + name) for name in ("NUM_PROCESSES", "PROCESS_ID", "JOB_ADDRESSES")
    )
    if count is None:
        return {}
    if number is None or not addresses:
        raise ValueError(
            f"`{_KERAS}JOB_ADDRESSES` and `{_KERAS}PROCESS_ID` must be set where "
            f"{_KERAS}NUM_PROCESSES is. Received: {addresses} and {number}"
        )
    return {
        "coordinator_address": addresses.partition(",")[0],
        "num_processes": int(count),
        "process_id": int(number),
    }


def _gpus_of_the_only_task():
    """Indices of this machine's GPUs if Slurm runs one task on each; `None` lets JAX choose."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "-1").split(",")
    if not slurm.one_task_each() or "-1" in gpus or "" in gpus:
        return None
    return list(range(len(gpus)))


def _jax_processes():
    """Number of processes by the environment: Keras' own variable, Slurm's srun, a TPU pod."""
    if os.environ.get(f"{_KERAS}NUM_PROCESSES"):
        return int(os.environ[f"{_KERAS}NUM_PROCESSES"])
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return slurm.tasks_of_step() if slurm.is_step() else len(hosts)


def _jax_devices():
    import jax

    return jax.device_count()


@functools.cache  # a second one would number its sums as the first did, which TensorFlow mixes up
def _mirrored():
    return tf.distribute.MirroredStrategy()


_TENSORFLOW = {
    "none": lambda timeout: tf.distribute.get_strategy(),
    "mirrored": lambda timeout: _mirrored(),
    "multiworker": _multiworker,
    "tpu": _tpu,
}
_JAX = {"none": lambda timeout: None, "data_parallel": _data_parallel}


def scope_of(strategy: Any) -> contextlib.AbstractContextManager[Any]:
    """The context in which a model and its optimizer are made for a strategy."""
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def spans_workers(strategy: Any) -> bool:
    """Whether other processes train with this one."""
    return shard_of(strategy).workers > 1


def is_chief(strategy: Any) -> bool:
    """Whether this process writes what a run leaves."""
    return shard_of(strategy).worker == 0


def shard_of(strategy: Any) -> Shard:
    """The `Shard` of this process.

    On JAX a process spreads its batch over its devices itself, and counts as one replica.
    """
    if strategy is None:
        return Shard()
    if isinstance(strategy, keras.distribution.DataParallel):
        import jax

        return Shard(jax.process_index(), jax.process_count(), 1)
    worker, workers = 0, 1
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        worker, addresses = _place_of(strategy.cluster_resolver)
        workers = len(addresses)
    return Shard(worker, workers, strategy.num_replicas_in_sync // workers)


def gather(strategy: Any, numbers: Sequence[int]) -> np.ndarray:
    """The numbers of all processes, in each of them.

    Args:
        strategy: What `make_strategy` returned, of several processes.
        numbers: Those of this one, below 2**31; each process gives the same number.

    Returns:
        int `(N, len(numbers))`; a process may have several rows, all equal.
    """
    row = np.array([numbers], "int32")
    if isinstance(strategy, keras.distribution.DataParallel):
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(row, tiled=True))
    # In a graph, since outside one the strategy warns that it is slow.
    rows = tf.function(lambda: strategy.gather(strategy.run(tf.constant, (row,)), 0))
    return np.asarray(rows())


@contextlib.contextmanager
def left_together(strategy: Any) -> Iterator[None]:
    """A context that JAX's processes leave together, however long the first one's export takes.

    Otherwise JAX kills the remaining processes 300 seconds after the first one has exited.
    """
    try:
        yield
    finally:
        if spans_workers(strategy) and isinstance(strategy, keras.distribution.DataParallel):
            if not is_chief(strategy):
                print("Waiting for the first process, which exports.", flush=True)
            gather(strategy, [0])


def replicas_of(strategy: Any) -> int:
    """Number of devices, over all processes, that each compute a part of a batch."""
    if strategy is None:
        return 1
    if isinstance(strategy, keras.distribution.DataParallel):
        return strategy.device_mesh.devices.size
    return strategy.num_replicas_in_sync
