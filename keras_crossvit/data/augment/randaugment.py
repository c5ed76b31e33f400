"""RandAugment as DeiT trained with it: `rand-m9-mstd0.5-inc1`."""

import tensorflow as tf

from keras_crossvit.common.tf_data import noinline
from keras_crossvit.data.augment.draws import Draws
from keras_crossvit.data.augment.kerascv_layers import SeededLayer
from keras_crossvit.data.augment.operations import OPERATIONS

_PROBABILITY = 0.5
_OPERATIONS = [noinline(operate) for operate in OPERATIONS.values()]


class ReferenceRandAugment(SeededLayer):
    """Operations of `OPERATIONS`, drawn with replacement, one after the other.

    Each is applied with probability 1/2, at a magnitude of its own, which is drawn from a
    normal distribution and clipped to 0..10, in a random direction.

    Args:
        num_ops: Operations that are drawn.
        magnitude: Mean magnitude, 0 to 10.
        magnitude_std: Standard deviation of the magnitude.

    Call arguments:
        inputs: `{"images": uint8 (H, W, 3) or (B, H, W, 3), "seed": (2,) or (B, 2)}`.

    Returns:
        The same with new images, uint8.
    """

    def __init__(self, num_ops=2, magnitude=9.0, magnitude_std=0.5, **kwargs):
        super().__init__(**kwargs)
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.magnitude_std = magnitude_std

    def draw(self, image, seed):
        """`(operations, magnitudes, signs)`, each `(num_ops,)`.

        An operation is its place in `OPERATIONS`; the one after the last is none.
        """
        draws = Draws(seed)
        magnitudes = draws.normal([self.num_ops], self.magnitude, self.magnitude_std)
        choice, applied, sign = tf.unstack(draws.uniform([3, self.num_ops]))
        operations = tf.cast(choice * len(OPERATIONS), tf.int32)
        operations = tf.where(applied < _PROBABILITY, operations, len(OPERATIONS))
        signs = tf.where(sign < 0.5, -1.0, 1.0)
        return operations, tf.clip_by_value(magnitudes, 0.0, 10.0), signs

    def augment_image(self, image, transformation, **kwargs):
        for operation, magnitude, sign in zip(*map(tf.unstack, transformation), strict=True):
            branches = [
                lambda operate=operate, image=image, magnitude=magnitude, sign=sign: operate(
                    image, magnitude, sign
                )
                for operate in _OPERATIONS
            ]
            branches.append(lambda image=image: image)
            image = tf.switch_case(operation, branches)
        return image

    def get_config(self):
        return {
            **super().get_config(),
            "num_ops": self.num_ops,
            "magnitude": self.magnitude,
            "magnitude_std": self.magnitude_std,
        }
