"""Random numbers that one seed decides."""

import tensorflow as tf


class Draws:
    """Draws one after the other, each by a seed of its own that derives from one.

    It has the methods of a `tf.random.Generator` that KerasCV's layers call, so that it can
    stand where they have a generator.

    Args:
        seed: Two integers; `None` if `begin` will give them.
    """

    def __init__(self, seed=None):
        self.begin(seed)

    def begin(self, seed):
        """Starts anew."""
        self._seed, self._count = seed, 0

    def seed(self):
        """Two integers, for what draws by itself."""
        self._count += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._count)

    def uniform(self, shape, minval=0, maxval=None, dtype=tf.float32):
        """As of `tf.random.Generator`, and so are the others."""
        return tf.random.stateless_uniform(shape, self.seed(), minval, maxval, dtype)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=tf.float32):
        return tf.random.stateless_normal(shape, self.seed(), mean, stddev, dtype)

    def beta(self, alpha, beta, shape):
        # float64, in which a gamma variable of a small alpha does not become 0.
        one, other = (
            tf.random.stateless_gamma(shape, self.seed(), tf.cast(a, tf.float64), dtype=tf.float64)
            for a in (alpha, beta)
        )
        return tf.cast(one / (one + other), tf.float32)

    def permutation(self, count):
        return tf.random.experimental.stateless_shuffle(tf.range(count), self.seed())
