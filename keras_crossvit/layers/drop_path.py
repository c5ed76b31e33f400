"""Stochastic depth."""

import random

import keras
from keras import ops

from keras_crossvit.common.checks import check_rate


def child_seeds(seed):
    """Endless seeds for the parts of a layer, so that no two of them draw alike.

    Args:
        seed: Integer, or `None` for an endless row of `None`.
    """
    draws = random.Random(seed)
    while True:
        yield None if seed is None else draws.randrange(2**31)


@keras.saving.register_keras_serializable(package="keras_crossvit")
class DropPath(keras.layers.Layer):
    """Stochastic depth per sample: a residual path is dropped whole for some samples.

    In training each sample of the batch is kept with probability `1 - rate` and then
    scaled by `1 / (1 - rate)`; in inference nothing happens (section 4.1, "drop path").

    Args:
        rate: Probability that a sample's path is dropped, in [0, 1).
        seed: Integer seed of the draws; `None` takes one from the global Keras seed.

    Call arguments:
        x: Tensor `(B, ...)`.
        training: Whether to drop.

    Returns:
        Tensor of the shape of `x`.

    Raises:
        ValueError: If `rate` is outside [0, 1).
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_rate("rate", rate)
        self.seed = seed
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def scale(self, x, training=False):
        """What each sample of `x` is multiplied by: `(B, 1, ...)`, or None for "nothing".

        Separate from `call` so that a block under gradient checkpointing can draw outside
        of the part that is computed twice: both computations then see the same draw.
        """
        if not training or self.rate == 0:
            return None
        keep = 1.0 - self.rate
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        # float32 noise: a float16 uniform draw would round to 1 and bias the rate.
        noise = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return ops.cast(ops.cast(noise < keep, "float32") / keep, x.dtype)

    def call(self, x, training=False):
        scale = self.scale(x, training)
        return x if scale is None else x * scale

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
