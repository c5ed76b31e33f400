"""RandAugment as used to train DeiT: `rand-m9-mstd0.5-inc1` in timm's terms."""

from typing import Any

import tensorflow as tf

from keras_crossvit.common.tf_data import noinline
from keras_crossvit.data.augment.operations import OPERATIONS
from keras_crossvit.data.augment.stateless_random import StatelessRandom

_PROBABILITY = 0.5
_OPERATIONS = [noinline(operate) for operate in OPERATIONS.values()]


def rand_augment(
    pixels: tf.Tensor,
    seed: tf.Tensor,
    num_ops: int = 2,
    magnitude: float = 9.0,
    magnitude_std: float = 0.5,
) -> tf.Tensor:
    """Applies operations from `OPERATIONS`, drawn with replacement, one after the other.

    Each is applied with probability 1/2, in a random direction, at its own magnitude, which is
    drawn from a normal distribution and clipped to 0..10.

    Args:
        pixels: uint8 `(H, W, 3)` with known sides.
        seed: Two integers.
        num_ops: Number of operations that are drawn.
        magnitude: Mean magnitude, 0 to 10.
        magnitude_std: Standard deviation of the magnitude.

    Returns:
        uint8 `(H, W, 3)`.
    """
    drawn = draw_operations(seed, num_ops, magnitude, magnitude_std)
    for operation, strength, sign in zip(*map(tf.unstack, drawn), strict=True):
        branches: list[Any] = [
            lambda operate=operate, pixels=pixels, strength=strength, sign=sign: operate(
                pixels, strength, sign
            )
            for operate in _OPERATIONS
        ]
        branches.append(lambda pixels=pixels: pixels)
        pixels = tf.switch_case(operation, branches)
    return pixels


def draw_operations(
    seed: tf.Tensor, num_ops: int = 2, magnitude: float = 9.0, magnitude_std: float = 0.5
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What `rand_augment` does for a seed: `(operations, magnitudes, signs)`, each `(num_ops,)`.

    An operation is given as its index in `OPERATIONS`; the number after the last means none.
    """
    random = StatelessRandom(seed)
    magnitudes = random.normal([num_ops], magnitude, magnitude_std)
    choice, applied, sign = tf.unstack(random.uniform([3, num_ops]))
    operations = tf.cast(choice * len(OPERATIONS), tf.int32)
    operations = tf.where(applied < _PROBABILITY, operations, len(OPERATIONS))
    signs = tf.where(sign < 0.5, -1.0, 1.0)
    return operations, tf.clip_by_value(magnitudes, 0.0, 10.0), signs
