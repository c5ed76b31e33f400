"""The devices of a run, and this process's place among them."""

import contextlib
import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_crossvit.data.shards import Shard
from keras_crossvit.training.waiting import waiting_for

_TIMEOUT = 1800  # seconds
_SLURM_TASKS = "SLURM_STEP_NUM_TASKS"


def make_strategy(name: str, worker_timeout: int = _TIMEOUT) -> Any:
    """The strategy of a name of `TrainConfig.strategy`.

    "auto" takes what the environment speaks for. On TensorFlow: a TPU that `TPU_NAME` names, the
    workers of `TF_CONFIG` or of Slurm's `srun`, all GPUs of this machine if there are several,
    and no strategy else; on JAX "data_parallel" if there are several devices or processes.
    "multiworker" reads `TF_CONFIG` or Slurm's variables; "data_parallel" Slurm's or the variables
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
    if os.environ.get("TF_CONFIG") or int(os.environ.get(_SLURM_TASKS, 1)) > 1:
        return "multiworker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def _multiworker(timeout):
    resolvers = tf.distribute.cluster_resolver
    if os.environ.get("TF_CONFIG"):
        resolver = resolvers.TFConfigClusterResolver()
        workers = json.loads(os.environ["TF_CONFIG"]).get("cluster", {}).get("worker")
        if not workers:
            raise ValueError(
                '`TF_CONFIG` must name the workers, as in {"cluster": {"worker": ["host:port", '
                '...]}, "task": {"type": "worker", "index": 0}}. '
                f"Received: TF_CONFIG={os.environ['TF_CONFIG']}"
            )
    elif "SLURM_PROCID" in os.environ:
        resolver = resolvers.SlurmClusterResolver()
    else:
        raise ValueError(
            '`strategy="multiworker"` needs the workers\' addresses: set TF_CONFIG, or start the '
            "command by Slurm's srun. Received: neither TF_CONFIG nor SLURM_PROCID"
        )
    addresses = resolver.cluster_spec().as_dict()["worker"]
    others = [a for number, a in enumerate(addresses) if number != resolver.task_id]
    with waiting_for(others, timeout):
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


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
        coordinator = os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES", "").partition(",")[0]
        with waiting_for([coordinator] if coordinator else [], timeout):
            keras.distribution.initialize()
    # The batches are made for this process already, so Keras must not share them out again.
    return keras.distribution.DataParallel(devices=jax.devices(), auto_shard_dataset=False)


def _jax_processes():
    """Processes that the environment names: Keras' own variable, Slurm's srun, a TPU pod."""
    for name in ("KERAS_DISTRIBUTION_NUM_PROCESSES", _SLURM_TASKS):
        if os.environ.get(name):
            return int(os.environ[name])
    return len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(","))


def _jax_devices():
    import jax

    return jax.device_count()


_TENSORFLOW = {
    "none": lambda timeout: tf.distribute.get_strategy(),
    "mirrored": lambda timeout: tf.distribute.MirroredStrategy(),
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

    On JAX a process gives its batch to its devices itself, as to one replica.
    """
    if strategy is None:
        return Shard()
    if isinstance(strategy, keras.distribution.DataParallel):
        import jax

        return Shard(jax.process_index(), jax.process_count(), 1)
    worker, workers = 0, 1
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        worker = strategy.cluster_resolver.task_id
        workers = len(strategy.cluster_resolver.cluster_spec().job_tasks("worker"))
    return Shard(worker, workers, strategy.num_replicas_in_sync // workers)


def check_same_step(strategy: Any, step: int) -> None:
    """Raises `ValueError`, in all processes, if they do not go on after the same step."""
    if not spans_workers(strategy):
        return
    if isinstance(strategy, keras.distribution.DataParallel):
        from jax.experimental import multihost_utils

        steps = multihost_utils.process_allgather(np.array([step]))
    else:
        # In a graph, since the strategy warns of its slowness outside of one.
        gather = tf.function(lambda: strategy.gather(strategy.run(tf.constant, ([step],)), 0))
        steps = gather()
    found = sorted({int(number) for number in np.ravel(np.asarray(steps))})
    if len(found) > 1:
        raise ValueError(
            "`output_dir` must be one folder that all processes see. Received: processes that go "
            f"on after steps {', '.join(map(str, found))}"
        )


def replicas_of(strategy: Any) -> int:
    """Devices, of all processes together, that each compute a part of a batch."""
    if strategy is None:
        return 1
    if isinstance(strategy, keras.distribution.DataParallel):
        return strategy.device_mesh.devices.size
    return strategy.num_replicas_in_sync
