"""Helpers for `tf.data` pipelines and the graph functions that run in them.

TensorFlow is imported where it is used, so that models work without it.
"""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    import tensorflow as tf


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset, run with the numbers of parallel calls that it was given.

    In TensorFlow 2.21 the thread that tunes a pipeline can miss that the pipeline has ended.
    Closing it can then block for up to as long again as the pipeline ran, one minute at most.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def as_written(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset, neither tuned nor rewritten: meant for pipelines of this package.

    Rewriting takes 0.1 to 0.3 s each time one starts, and finds nothing in them to improve.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return without_autotune(dataset.with_options(options))


def graph_function(function: Callable, **options: Any) -> Callable:
    """A `tf.function` without AutoGraph, which would take a second or two.

    Defined at module level, it is traced once per process, however many graphs it goes into.
    """
    import tensorflow as tf

    return tf.function(function, autograph=False, **options)


def noinline(function: Callable) -> Callable:
    """A `graph_function` that TensorFlow calls rather than copies into the graph around it.

    Meant for the branches of a conditional: each operation of a branch that is not taken still
    costs time, because it has to be told that it has nothing to do. A call is one operation.
    """
    return graph_function(function, experimental_attributes={"_noinline": True})


def batches_of_arrays(
    arrays: Sequence[Any], batch_size: int, shuffle: bool = False
) -> tf.data.Dataset:
    """A dataset of batches of arrays of equal length, which is not tuned as it runs.

    Args:
        arrays: NumPy arrays or TensorFlow tensors, `(N, ...)` each; floats become `floatx`.
        batch_size: Rows per batch; the last may have fewer.
        shuffle: Whether the rows come in a new random order each time, instead of their own.

    Returns:
        `tf.data.Dataset`: of tuples, or of tensors if there is one array.
    """
    import tensorflow as tf

    with tf.device("CPU:0"):
        tensors = [_in_floatx(tf.convert_to_tensor(array)) for array in arrays]
    rows = tf.data.Dataset.range(len(tensors[0]))
    if shuffle:
        rows = rows.shuffle(len(tensors[0]))

    def gather(indices: tf.Tensor) -> Any:
        columns = tuple(tf.gather(tensor, indices) for tensor in tensors)
        return columns if len(columns) > 1 else columns[0]

    return as_written(rows.batch(batch_size).map(gather).prefetch(1))


def _in_floatx(tensor: tf.Tensor) -> tf.Tensor:
    """Casts floats as Keras does in arrays: a loss or a metric may not work with float64."""
    import tensorflow as tf

    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor


def call_python(function: Callable, inputs: Sequence[Any], types: Any) -> Any:
    """`tf.numpy_function` for pipelines, which work ahead: one may be in it as the program ends.

    Python then stops the threads that call it, and TensorFlow would wait forever for their
    answers. So the program waits at its end for the calls that have begun, and a pipeline checks
    `python_ends` before each call, and makes no more once it is true.

    Args:
        function: Maps NumPy arrays to one array, or a tuple of them.
        inputs: Tensors.
        types: TensorFlow types of the results of `function`.
    """
    import tensorflow as tf

    return tf.numpy_function(functools.partial(_calls().run, function), inputs, types)


def python_ends() -> tf.Tensor:
    """Whether the program is about to end: a bool, computed anew each time in a graph."""
    return _calls().ended.size() > 0


class _Calls:
    """The calls of all pipelines into Python."""

    quiet = 0.1  # seconds without a call after which none is still on its way

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):
            # What graphs can read while the program runs. A variable would be mirrored.
            self.ended = tf.queue.FIFOQueue(1, tf.bool)
        self._lock = threading.Lock()
        self._running = 0
        self._last_end = -self.quiet
        atexit.register(self.end)

    def run(self, function: Callable, *arguments: Any) -> Any:
        with self._lock:
            self._running += 1
        try:
            return function(*arguments)
        finally:
            with self._lock:
                self._running -= 1
                self._last_end = time.monotonic()

    def end(self) -> None:
        self.ended.enqueue(True)
        while self._running or time.monotonic() - self._last_end < self.quiet:
            time.sleep(self.quiet / 10)


_calls = functools.cache(_Calls)
