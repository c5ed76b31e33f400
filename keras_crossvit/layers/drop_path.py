"""Stochastic depth."""

import random
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_crossvit.common.checks import check_rate
from keras_crossvit.common.typing import Shape, Tensor


def child_seeds(seed: int | None) -> Iterator[int | None]:
    """An endless supply of seeds, so that no two parts of a layer draw the same numbers.

    Args:
        seed: Integer; `None` yields `None` each time.
    """
    draws = random.Random(seed)
    while True:
        yield None if seed is None else draws.randrange(2**31)


@keras.saving.register_keras_serializable(package="keras_crossvit")
class DropPath(keras.layers.Layer):
    """Stochastic depth per sample: the whole residual path is dropped for some samples.

    In training each sample of the batch is kept with probability `1 - rate` and then
    scaled by `1 / (1 - rate)`; in inference the input is returned unchanged (section 4.1, "drop
    path").

    Args:
        rate: Probability that a sample's path is dropped, in [0, 1).
        seed: Integer seed of the draws; `None` takes one from the global Keras seed.

    Call arguments:
        x: Tensor `(B, ...)`.
        training: Whether paths are dropped.

    Returns:
        Tensor of the shape of `x`.

    Raises:
        ValueError: If `rate` is outside [0, 1).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = check_rate("rate", rate)
        self.seed = seed
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def scale(self, x: Tensor, training: bool = False) -> Tensor | None:
        """The factor for each sample of `x`, `(B, 1, ...)`, or None if nothing is dropped.

        It is separate from `call` so that a block with gradient checkpointing can draw it
        outside the part that is computed twice, and both computations use the same factor.
        """
        if not training or self.rate == 0:
            return None
        keep = 1.0 - self.rate
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        # In float32: uniform draws in float16 can round up to 1, which would bias the rate.
        noise = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return ops.cast(ops.cast(noise < keep, "float32") / keep, x.dtype)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        scale = self.scale(x, training)
        return x if scale is None else x * scale

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
