"""Random numbers that a seed alone determines."""

from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

Number: TypeAlias = tf.Tensor | float
Shape: TypeAlias = tf.Tensor | Sequence[int]


class StatelessRandom:
    """Draws one number after the other, each with its own seed, all derived from one.

    It has the methods of a `tf.random.Generator` that KerasCV's layers call, so that it can
    take the place of their generator.

    Args:
        seed: Two integers; `None` if `begin` will give them.
    """

    def __init__(self, seed: tf.Tensor | None = None) -> None:
        self.begin(seed)

    def begin(self, seed: tf.Tensor | None) -> None:
        """Starts over with another seed."""
        self._seed, self._count = seed, 0

    def seed(self) -> tf.Tensor:
        """Two integers that seed something else."""
        self._count += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._count)

    def uniform(
        self,
        shape: Shape,
        minval: Number = 0,
        maxval: Number | None = None,
        dtype: tf.DType = tf.float32,
    ) -> tf.Tensor:
        """As `tf.random.Generator.uniform`."""
        return tf.random.stateless_uniform(shape, self.seed(), minval, maxval, dtype)

    def normal(
        self,
        shape: Shape,
        mean: Number = 0.0,
        stddev: Number = 1.0,
        dtype: tf.DType = tf.float32,
    ) -> tf.Tensor:
        """As `tf.random.Generator.normal`."""
        return tf.random.stateless_normal(shape, self.seed(), mean, stddev, dtype)

    def beta(self, alpha: Number, beta: Number, shape: Shape) -> tf.Tensor:
        """Numbers from the distribution Beta(alpha, beta), float32."""
        # float64, in which a gamma variable with a small alpha does not become 0.
        one, other = (
            tf.random.stateless_gamma(shape, self.seed(), tf.cast(a, tf.float64), dtype=tf.float64)
            for a in (alpha, beta)
        )
        return tf.cast(one / (one + other), tf.float32)

    def permutation(self, count: tf.Tensor | int) -> tf.Tensor:
        """The numbers 0 to `count - 1` in a random order."""
        return tf.random.experimental.stateless_shuffle(tf.range(count), self.seed())
