"""Keras' loops over data, without what makes them wait."""

import functools
import inspect
import math
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_crossvit.common.pixels import warn_of_unit_range
from keras_crossvit.common.tf_data import batches_of_arrays, graph_function, without_autotune

_BATCH_SIZE = 32  # Keras' own, where none is given
_ARRAYS = ("x", "y", "sample_weight")


class Loops(keras.Model):
    """A `keras.Model` with Keras' `fit`, `evaluate` and `predict`, which wait for two things less.

    Tuning: in TensorFlow 2.21 whoever ends a pipeline that is tuned may sit idle for up to as long
    again as it ran (see `without_autotune`), at the end of each epoch too. So datasets are not
    tuned, unless their own options say so; nor are arrays, of which Keras makes datasets on
    TensorFlow. Anything else goes to Keras as it came, and so do arrays with `class_weight` or
    shuffle="batch".

    Tracing: on TensorFlow a step that creates variables, those of metrics or of an optimizer, is
    traced twice. So they are created before.
    """

    include_preprocessing = False

    @functools.wraps(keras.Model.fit, assigned=())
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`."""
        given = _by_name(keras.Model.fit, args, kwargs)
        if given.get("validation_split") and given.get("validation_data") is None:
            _split(given)
        held_out = given.get("validation_data")
        if isinstance(held_out, tuple | list):
            batch_size = given.get("validation_batch_size") or given.get("batch_size")
            batches = self._batches(held_out, batch_size)
            given["validation_data"] = held_out if batches is None else batches
        else:
            given["validation_data"] = _untuned(held_out)
        shuffle = given.get("shuffle", True)
        if not given.get("class_weight") and shuffle != "batch":
            given = self._fed(given, shuffle=shuffle)
        if _is_dataset(given.get("x")):
            given.setdefault("shuffle", False)  # or Keras would warn that it does not shuffle it
        if self.train_function is None:
            self._create_variables(given.get("x"))
        return super().fit(**given)

    @functools.wraps(keras.Model.evaluate, assigned=())
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`."""
        given = self._fed(_by_name(keras.Model.evaluate, args, kwargs))
        if self.test_function is None:
            self._create_variables(given.get("x"))
        return super().evaluate(**given)

    @functools.wraps(keras.Model.predict, assigned=())
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`."""
        return super().predict(**self._fed(_by_name(keras.Model.predict, args, kwargs)))

    def _fed(self, given, **shuffle):
        """The arguments `given`, in which a dataset that is not tuned is in the arrays' place."""
        arrays = [given.get(name) for name in _ARRAYS]
        batches = self._batches(arrays, given.get("batch_size"), **shuffle)
        if batches is None:
            return {**given, "x": _untuned(given.get("x"))}
        replaced = (*_ARRAYS, "batch_size", *shuffle)
        return {"x": batches, **{name: given[name] for name in given if name not in replaced}}

    def _batches(
        self, arrays: Sequence[Any], batch_size: int | None, shuffle: bool = False
    ) -> Any:
        """A dataset of arrays of one length, or `None` of anything else."""
        if self.include_preprocessing:
            warn_of_unit_range(arrays[0])
        if keras.backend.backend() != "tensorflow":
            return None
        import tensorflow as tf

        arrays = list(arrays)
        while arrays and arrays[-1] is None:
            arrays.pop()
        known = all(isinstance(x, np.ndarray | tf.Tensor) and len(x.shape) > 0 for x in arrays)
        if not arrays or not known or len({x.shape[0] for x in arrays}) > 1:
            return None
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return None
        batch_size = _BATCH_SIZE if batch_size is None else batch_size
        return batches_of_arrays(arrays, batch_size, shuffle)

    def _create_variables(self, data):
        """Creates the variables of the optimizer, and of metrics if `data` is a dataset."""
        if keras.backend.backend() != "tensorflow" or not self.compiled:
            return
        import tensorflow as tf

        if tf.distribute.has_strategy() or self.distribute_strategy.num_replicas_in_sync > 1:
            return  # Keras creates them by itself then
        optimizer = self.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)
        specs = data.element_spec if _is_dataset(data) else None
        if isinstance(specs, tuple) and len(specs) > 1:
            x, y, *weights = specs
            outputs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), self.output)
            # Traced, not run: metrics are created by the shapes, and no value is counted.
            graph_function(self.compute_metrics).get_concrete_function(x, y, outputs, *weights)


def _by_name(method, args, kwargs):
    """The arguments of a call, each by its name."""
    given = dict(inspect.signature(method).bind(None, *args, **kwargs).arguments)
    given.pop("self")
    return {**given.pop("kwargs", {}), **given}


def _split(given):
    """Holds the last `validation_split` of the arrays out, as Keras does, where it can be done."""
    arrays = {name: given[name] for name in _ARRAYS if given.get(name) is not None}
    known = all(isinstance(array, np.ndarray) and array.ndim for array in arrays.values())
    if not known or list(arrays) != [*_ARRAYS[: len(arrays)]]:
        return
    rows = len(given["x"])
    first = math.floor(rows * (1 - given["validation_split"]))
    if 0 < first < rows:
        given["validation_data"] = tuple(array[first:] for array in arrays.values())
        given.update({name: array[:first] for name, array in arrays.items()})
        del given["validation_split"]


def _is_dataset(data):
    tf = sys.modules.get("tensorflow")  # where it is not loaded, nothing is its dataset
    return tf is not None and isinstance(data, tf.data.Dataset)


def _untuned(data):
    """`data` itself, unless it is a dataset that does not say whether it is to be tuned."""
    says = not _is_dataset(data) or data.options().autotune.enabled is not None
    return data if says else without_autotune(data)
