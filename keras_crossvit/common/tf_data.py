"""Helpers for `tf.data` pipelines and the graph functions that run in them.

TensorFlow is imported where it is used, so that models work without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset, run with the numbers of parallel calls that it was given.

    In TensorFlow 2.21 the thread that tunes a pipeline can miss that the pipeline has ended.
    Whoever closes it then sits idle for up to as long again as the pipeline ran, one minute at
    most.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def noinline(function: Callable) -> Callable:
    """A `tf.function` that TensorFlow calls rather than copies into the graph around it.

    Meant for the branches of a conditional: each operation of a branch that is not taken still
    costs time, because it has to be told that it has nothing to do. A call is one operation.
    """
    import tensorflow as tf

    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
