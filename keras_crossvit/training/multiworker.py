"""Mends Keras' `fit` under MultiWorkerMirroredStrategy (keras-team/keras, issue 20585).

Keras 3 fails there twice: before the first step it reduces a whole batch of per-replica
values in one call, and after each step it reduces scalars along an axis that they do not
have. Both are looked for before they are mended, so that this file steps aside by itself
where Keras is right; it can then be removed.
"""

import types

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import trainer


def mend_fit():
    """Makes `fit` and `evaluate` of all Keras models work with several workers."""
    if _reduces_scalars_along_an_axis():
        trainer.reduce_per_replica = _reduce_per_replica(trainer.reduce_per_replica)
        trainer.TensorFlowTrainer._maybe_symbolic_build = _maybe_symbolic_build(
            trainer.TensorFlowTrainer._maybe_symbolic_build
        )


def _spans_workers(strategy):
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def _reduces_scalars_along_an_axis():
    """Asks Keras to reduce a scalar over two workers that do not exist."""

    class Workers(tf.distribute.MultiWorkerMirroredStrategy):
        extended = types.SimpleNamespace(_in_multi_worker_mode=lambda: True)

        def __init__(self):
            self.axes = []

        def reduce(self, operation, value, axis):
            self.axes.append(axis)
            return value

    workers = Workers()
    trainer.reduce_per_replica(tf.constant(1.0), workers, "mean")
    return workers.axes == [0]


def _reduce_per_replica(upstream):
    def reduce(values, strategy, reduction):
        if not _spans_workers(strategy) or reduction not in ("auto", "mean"):
            return upstream(values, strategy, reduction)
        return keras.tree.map_structure(
            lambda value: strategy.reduce("MEAN", value, axis=None), values
        )

    return reduce


def _maybe_symbolic_build(upstream):
    def build(self, iterator=None, data_batch=None):
        if iterator is None or not _spans_workers(self.distribute_strategy):
            return upstream(self, iterator, data_batch)
        for _, _, batches in iterator:
            # The shapes of one replica's batch are enough to build metrics with.
            local = keras.tree.map_structure(
                lambda x: self.distribute_strategy.experimental_local_results(x)[0],
                next(batches),
            )
            return upstream(self, data_batch=local)

    return build
