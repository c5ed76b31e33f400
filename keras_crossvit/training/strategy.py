"""The tf.distribute strategy of a run, and this process's place in it."""

import json
import os

import tensorflow as tf

from keras_crossvit.data.shards import Shard
from keras_crossvit.training.multiworker import mend_fit


def make_strategy(name):
    """The strategy of a name of `TrainConfig.strategy`.

    "auto" takes what the environment speaks for: a TPU that `TPU_NAME` names, the workers of
    `TF_CONFIG`, all GPUs of this machine if there are several, and no strategy else.
    "multiworker" reads `TF_CONFIG` or, started by `srun`, Slurm's variables.

    Raises:
        ValueError: If there are no workers or no TPU to be found.
    """
    if name == "auto":
        name = strategy_from_environment()
    return {
        "none": tf.distribute.get_strategy,
        "mirrored": tf.distribute.MirroredStrategy,
        "multiworker": _multiworker,
        "tpu": _tpu,
    }[name]()


def strategy_from_environment():
    """The strategy that "auto" stands for here."""
    if os.environ.get("TPU_NAME"):
        return "tpu"
    if os.environ.get("TF_CONFIG"):
        return "multiworker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def _multiworker():
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
    # Before any operation: TensorFlow asks for that, and Keras' mend runs some.
    strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    mend_fit()
    return strategy


def _tpu():
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


def spans_workers(strategy):
    """Whether other processes train with this one."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Whether this process writes what a run leaves."""
    return not spans_workers(strategy) or strategy.cluster_resolver.task_id == 0


def shard_of(strategy):
    """The `Shard` of this process."""
    worker, workers = 0, 1
    if spans_workers(strategy):
        worker = strategy.cluster_resolver.task_id
        workers = len(strategy.cluster_resolver.cluster_spec().job_tasks("worker"))
    return Shard(worker, workers, strategy.num_replicas_in_sync // workers)


def distribute(strategy, dataset):
    """Gives batches that are made for `shard_of(strategy)` to its replicas."""
    if strategy.num_replicas_in_sync == 1:
        return dataset
    return strategy.distribute_datasets_from_function(lambda _: dataset)
