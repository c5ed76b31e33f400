"""A function over rows, some of which it may refuse: the others must not be lost with them.

One image that cannot be read must cost neither the rest of a request nor a run of weeks.
Only tf.data lets a graph go on after an error, so both functions below go through it.
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
        parallel_calls: Rows that are worked on at the same time.

    Returns:
        `(N, ...)` and bool `(N,)`: the results, 0 where the function raised, and whether it
        did not.
    """
    return _filled(*_good_rows(function, rows, parallel_calls).get_single_element())


def map_all_rows(
    dataset: tf.data.Dataset, function: Callable, parallel_calls: int
) -> tf.data.Dataset:
    """Applies `function` to each row of a dataset of chunks, in order.

    Args:
        dataset: `tf.data.Dataset` of tuples of tensors, each with the rows of a chunk, which
            share the cost of a nested dataset.
        function: As in `map_good_rows`.
        parallel_calls: Chunks that are worked on at the same time.

    Returns:
        `tf.data.Dataset` of `(rows, results, good)`, a chunk each; `results` and `good` as in
        `map_good_rows`.
    """

    def map_chunk(*rows):
        results = _good_rows(function, rows, parallel_calls=None)
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(rows), results)

    chunks = dataset.interleave(map_chunk, parallel_calls, 1, parallel_calls)
    return chunks.map(lambda rows, results: (rows, *_filled(*results)), parallel_calls)


def _good_rows(function, rows, parallel_calls):
    """A dataset of one element: how many rows, numbers of the good ones, their results."""
    count = tf.shape(rows[0], tf.int64)[0]
    numbered = tf.data.Dataset.from_tensor_slices(rows).enumerate()
    results = numbered.map(lambda number, row: (number, function(*row)), parallel_calls)
    _, spec = results.element_spec
    # One row that stands for no row, so that there is always something to batch.
    none = tf.data.Dataset.from_tensors((count, tf.zeros(spec.shape, spec.dtype)))
    return results.ignore_errors().concatenate(none).batch(count + 1)


def _filled(numbers, values):
    """The results at the rows that they belong to, and which rows have one."""
    count = numbers[-1] + 1  # the row that stands for no row comes last

    def fill():
        return tf.scatter_nd(numbers[:, tf.newaxis], values, [count, *values.shape[1:]])[:-1]

    good = tf.scatter_nd(numbers[:, tf.newaxis], tf.ones_like(numbers), [count])[:-1] > 0
    # A copy of all pixels, which is seldom needed.
    return tf.cond(tf.size(numbers, tf.int64) == count, lambda: values[:-1], fill), good
