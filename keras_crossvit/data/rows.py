"""Applies a function to rows, some of which it may refuse, without losing the others.

One unreadable image must cost neither the rest of a request nor a run of several weeks.
Only tf.data lets a graph continue after an error, so both functions below use it.
"""

from collections.abc import Callable

import tensorflow as tf


def map_good_rows(
    function: Callable, rows: tuple[tf.Tensor, ...], parallel_calls: int | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies `function` to each row of a batch. A TensorFlow graph function.

    Args:
        function: Graph function of one row's tensors; returns one tensor of known shape.
        rows: Tuple of tensors with the same number of rows N.
        parallel_calls: Rows that are processed at the same time.

    Returns:
        `(N, ...)` and bool `(N,)`: the results, 0 where the function raised, and whether it
        succeeded.
    """
    return _filled(rows, *_good_rows(function, rows, parallel_calls).get_single_element())


def map_all_rows(
    dataset: tf.data.Dataset, function: Callable, parallel_calls: int
) -> tf.data.Dataset:
    """Applies `function` to each row of a dataset of chunks, in order.

    Args:
        dataset: `tf.data.Dataset` of tuples of tensors, each with the rows of a chunk, which
            share the cost of a nested dataset.
        function: As in `map_good_rows`.
        parallel_calls: Chunks that are processed at the same time.

    Returns:
        `tf.data.Dataset` of `(rows, results, good)`, one per chunk; `results` and `good` as in
        `map_good_rows`.
    """

    def map_chunk(*rows):
        results = _good_rows(function, rows, parallel_calls=None)
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(rows), results)

    chunks = dataset.interleave(map_chunk, parallel_calls, 1, parallel_calls)
    return chunks.map(lambda rows, results: (rows, *_filled(rows, *results)), parallel_calls)


def _good_rows(function, rows, parallel_calls):
    """A dataset of one element: the numbers of the good rows and their results."""
    numbered = tf.data.Dataset.from_tensor_slices(rows).enumerate()
    results = numbered.map(lambda number, row: (number, function(*row)), parallel_calls)
    number, result = results.element_spec
    # In case no row is good, or there are none: otherwise there would be no element.
    none = tf.zeros([0], number.dtype), tf.zeros([0, *result.shape], result.dtype)
    good = results.ignore_errors().batch(tf.maximum(_count(rows), 1))
    return good.concatenate(tf.data.Dataset.from_tensors(none)).take(1)


def _filled(rows, numbers, values):
    """The results in the rows that they belong to, and which rows have one."""
    count, places = _count(rows), numbers[:, tf.newaxis]
    filled = tf.cond(
        tf.size(numbers, tf.int64) == count,
        lambda: values,  # nearly always the case; copying all pixels takes time
        lambda: tf.scatter_nd(places, values, [count, *values.shape[1:]]),
    )
    return filled, tf.scatter_nd(places, tf.ones_like(numbers), [count]) > 0


def _count(rows):
    return tf.shape(rows[0], tf.int64)[0]
