"""Keras' loops over data, without what makes them wait."""

import functools
import inspect
import math
import sys
from typing import Any

import keras
import numpy as np

from keras_crossvit.common.pixels import warn_of_unit_range
from keras_crossvit.common.tf_data import batches_of_arrays, graph_function, without_autotune
from keras_crossvit.models.inputs import takes_pixels

_BATCH_SIZE = 32  # Keras' own, where none is given
_ARRAYS = ("x", "y", "sample_weight")
_STEPS = {"call", "compute_loss", "compute_metrics", "test_step", "train_step"}


class Loops(keras.Model):
    """A `keras.Model` whose `fit`, `evaluate` and `predict` wait for two things less than Keras'.

    Tuning: in TensorFlow 2.21 ending a tuned pipeline may block for up to as long again as it ran
    (see `without_autotune`), also at the end of each epoch. So datasets are not tuned, unless
    their own options say so; nor are arrays, from which Keras makes datasets on TensorFlow.
    Anything else goes to Keras as it is, and so do arrays with `class_weight` or shuffle="batch".

    Tracing: on TensorFlow a step that creates variables, those of metrics or of an optimizer, is
    traced twice. So they are created beforehand.
    """

    include_preprocessing = False

    @functools.wraps(keras.Model.fit, assigned=())
    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`."""
        given = self._arguments(keras.Model.fit, args, kwargs)
        if given.get("validation_split") and given.get("validation_data") is None:
            _split(given)
        given["validation_data"] = self._held_out(given)
        shuffle = given.get("shuffle", True)
        if given.get("class_weight") or given.get("validation_split") or shuffle == "batch":
            given["x"] = _untuned(given.get("x"))
        else:
            given = self._fed(given, "steps_per_epoch", shuffle)
        if _is_dataset(given.get("x")):
            given.setdefault("shuffle", False)  # or Keras would warn that it does not shuffle it
        if self.train_function is None:
            self._create_variables(given.get("x"))
        return super().fit(**given)

    @functools.wraps(keras.Model.evaluate, assigned=())
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`."""
        given = self._fed(self._arguments(keras.Model.evaluate, args, kwargs), "steps")
        if self.test_function is None:
            self._create_variables(given.get("x"))
        return super().evaluate(**given)

    @functools.wraps(keras.Model.predict, assigned=())
    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`."""
        given = self._arguments(keras.Model.predict, args, kwargs)
        return super().predict(**self._fed(given, "steps"))

    def _arguments(self, method, args, kwargs):
        """The arguments of a call by name; warns of images in 0..1 where they should not be."""
        try:
            given = dict(inspect.signature(method).bind(self, *args, **kwargs).arguments)
        except TypeError as error:
            name = f"{type(self).__name__}.{method.__name__}()"
            raise TypeError(f"{name}: {error}") from None
        given.pop("self")
        given = {**given.pop("kwargs", {}), **given}
        if takes_pixels(self):
            warn_of_unit_range(given.get("x"))
        return given

    def _fed(self, given, steps, shuffle=False):
        """The arguments `given`, with a dataset that is not tuned in place of the arrays."""
        arrays = [given.get(name) for name in _ARRAYS]
        batches = self._batches(arrays, given.get("batch_size"), given.get(steps), shuffle)
        if batches is None:
            return {**given, "x": _untuned(given.get("x"))}
        replaced = (*_ARRAYS, "batch_size", "shuffle")
        return {"x": batches, **{name: given[name] for name in given if name not in replaced}}

    def _held_out(self, given):
        """The `validation_data` of `fit`, as a dataset that is not tuned, if it can be one."""
        held_out = given.get("validation_data")
        if not isinstance(held_out, tuple | list):
            return _untuned(held_out)
        batch_size = given.get("validation_batch_size") or given.get("batch_size")
        batches = self._batches(held_out, batch_size, given.get("validation_steps"))
        return held_out if batches is None else batches

    def _batches(self, arrays, batch_size, steps, shuffle=False):
        """A dataset of arrays of numbers, or `None` for anything else."""
        if keras.backend.backend() != "tensorflow":
            return None
        arrays = list(arrays)
        while arrays and arrays[-1] is None:
            arrays.pop()
        lengths = {len(array) if _is_of_numbers(array) else 0 for array in arrays}
        if len(lengths) != 1 or 0 in lengths:
            return None
        if not batch_size and steps:  # Keras then finds a size that gives that many steps
            return None
        if self.distribute_strategy.num_replicas_in_sync > 1:
            return None
        return batches_of_arrays(arrays, batch_size or _BATCH_SIZE, shuffle)

    def _create_variables(self, data):
        """Creates the variables of the optimizer, and of metrics if `data` is a dataset."""
        if keras.backend.backend() != "tensorflow" or not self.compiled:
            return
        import tensorflow as tf

        with_strategy = self.distribute_strategy is not tf.distribute.get_strategy()
        eager = self.run_eagerly or tf.config.functions_run_eagerly()
        if eager or with_strategy or tf.distribute.has_strategy() or self._has_own_steps():
            return  # Keras creates them by itself then
        optimizer = self.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)
        specs = data.element_spec if _is_dataset(data) else None
        if isinstance(specs, tuple) and len(specs) in (2, 3) and self._takes(specs[0]):
            x, y, *weights = specs
            outputs = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), self.output)
            # Traced, not run: metrics are created from the shapes, and no value is counted.
            graph_function(self.compute_metrics).get_concrete_function(x, y, outputs, *weights)

    def _has_own_steps(self):
        """Whether a user's subclass decides what a step computes, and from what."""
        return any(
            vars(cls).keys() & _STEPS
            for cls in type(self).__mro__
            if cls.__module__.partition(".")[0] not in ("keras", "keras_crossvit")
        )

    def _takes(self, specs):
        """Whether images have as many axes as the model's; if not, Keras says what is wrong."""
        ranks = [spec.shape.rank for spec in keras.tree.flatten(specs)]
        return ranks == [len(image.shape) for image in self.inputs]


def _split(given):
    """Holds out the last `validation_split` of the arrays, as Keras does, where possible."""
    arrays = {name: given[name] for name in _ARRAYS if given.get(name) is not None}
    known = all(map(_is_of_numbers, arrays.values()))
    if not known or list(arrays) != [*_ARRAYS[: len(arrays)]]:
        return
    rows = len(given["x"])
    for name, array in arrays.items():
        if len(array) != rows:
            raise ValueError(
                f"`{name}` must have a row for each of the {rows} of `x`. "
                f"Received: {len(array)} rows"
            )
    first = math.floor(rows * (1 - given["validation_split"]))
    if 0 < first < rows:
        given["validation_data"] = tuple(array[first:] for array in arrays.values())
        given.update({name: array[:first] for name, array in arrays.items()})
        del given["validation_split"]


def _is_of_numbers(data):
    """Whether it is an array or a TensorFlow tensor of numbers, with at least one axis."""
    tf = sys.modules.get("tensorflow")  # if it is not loaded, `data` is not its tensor
    if tf is not None and isinstance(data, tf.Tensor):
        return len(data.shape) > 0 and (data.dtype.is_floating or data.dtype.is_integer)
    return isinstance(data, np.ndarray) and data.ndim > 0 and data.dtype.kind in "fiub"


def _is_dataset(data):
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(data, tf.data.Dataset)


def _untuned(data):
    """`data`, made untuned if it is a dataset whose options do not say whether to tune it."""
    says = not _is_dataset(data) or data.options().autotune.enabled is not None
    return data if says else without_autotune(data)
