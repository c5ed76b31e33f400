"""The class of the models: `keras.Model` whose loops end with their last batch."""

import keras
import numpy as np

from keras_crossvit.common.tf_data import without_autotune

_BATCH_SIZE = 32  # Keras' own, where none is given


@keras.saving.register_keras_serializable(package="keras_crossvit")
class Model(keras.Model):
    """`keras.Model` with a `predict` and an `evaluate` that do not wait at their end.

    On TensorFlow, Keras feeds arrays through a `tf.data` pipeline that is tuned while it runs,
    which made half of the calls take twice as long (see `without_autotune`). Arrays need no
    tuning, so here they go without it. Everything else that Keras takes is left to Keras.
    """

    def predict(self, x, batch_size=None, *args, **kwargs):
        batches = self._batches(batch_size, x)
        if batches is not None:
            x, batch_size = batches, None
        return super().predict(x, batch_size, *args, **kwargs)

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, *args, **kwargs
    ):
        given = (x, y) if sample_weight is None else (x, y, sample_weight)
        # `fit` hands over arrays of which it has made its own pipeline, and says so.
        cached = kwargs.get("_use_cached_eval_dataset", False)
        batches = None if cached else self._batches(batch_size, *given)
        if batches is not None:
            x, y, sample_weight, batch_size = batches, None, None, None
        return super().evaluate(x, y, batch_size, verbose, sample_weight, *args, **kwargs)

    def _batches(self, batch_size, *arrays):
        """A pipeline of arrays of one length, or `None` for anything else."""
        if keras.backend.backend() != "tensorflow":
            return None
        import tensorflow as tf

        known = all(isinstance(x, np.ndarray | tf.Tensor) and len(x.shape) > 0 for x in arrays)
        if not known or len({x.shape[0] for x in arrays}) > 1:
            return None
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return None
        batches = tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])
        size = _BATCH_SIZE if batch_size is None else batch_size
        return without_autotune(batches.batch(size).prefetch(1))
