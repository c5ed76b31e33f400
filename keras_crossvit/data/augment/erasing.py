"""Random erasing as timm does it in its mode "pixel" (Zhong et al., 1708.04896)."""

import math

import tensorflow as tf

from keras_crossvit.common.pixels import MEAN, STD
from keras_crossvit.common.tf_data import noinline
from keras_crossvit.data.augment.draws import Draws
from keras_crossvit.data.augment.kerascv_layers import SeededLayer

_AREAS = (0.02, 1 / 3)
_ASPECTS = (0.3, 1 / 0.3)
_ATTEMPTS = 10


class RandomErasing(SeededLayer):
    """Replaces a box by noise: in normalised pixels, N(0, 1) for each value.

    The box has a uniform share of the area, 0.02 to 1/3, and a log-uniform aspect ratio, 0.3
    to 1/0.3; the first of ten that is lower and narrower than the picture is taken.

    Args:
        probability: Of erasing.

    Call arguments:
        inputs: `{"images": float32 (H, W, 3) or (B, H, W, 3), "seed": (2,) or (B, 2)}`;
            pixels are in 0..255, and so is the noise, but for its tails.

    Returns:
        The same with new images.
    """

    def __init__(self, probability=0.25, **kwargs):
        super().__init__(**kwargs)
        self.probability = probability

    def draw(self, image, seed):
        """`(erased, seed)`; the seed is for the box and the noise."""
        draws = Draws(seed)
        return draws.uniform([]) < self.probability, draws.seed()

    def augment_image(self, image, transformation, **kwargs):
        erased, seed = transformation
        return tf.cond(erased, lambda: _erase(image, seed), lambda: image)

    def get_config(self):
        return {**super().get_config(), "probability": self.probability}


@noinline
def _erase(image, seed):
    draws = Draws(seed)
    top, left, height, width = tf.unstack(draw_box(draws, tf.shape(image)[:2]))
    noise = draws.normal(tf.stack([height, width, 3]))
    noise = 255 * (MEAN + STD * noise)
    rows = image[top : top + height]
    rows = tf.concat([rows[:, :left], noise, rows[:, left + width :]], axis=1)
    return tf.ensure_shape(tf.concat([image[:top], rows, image[top + height :]], 0), image.shape)


def draw_box(draws, sides):
    """The box to erase: `(top, left, height, width)`, int32; empty if none of ten fits.

    Args:
        draws: A `Draws`.
        sides: Height and width of the picture, int32 `(2,)`.
    """
    numbers, sides = draws.uniform([4, _ATTEMPTS]), tf.cast(sides, tf.float32)
    area = (_AREAS[0] + (_AREAS[1] - _AREAS[0]) * numbers[0]) * sides[0] * sides[1]
    low, high = (math.log(aspect) for aspect in _ASPECTS)
    aspect = tf.exp(low + (high - low) * numbers[1])
    boxes = tf.round(tf.sqrt(tf.stack([area * aspect, area / aspect], axis=1)))
    fits = tf.reduce_all(boxes < sides, axis=1)
    boxes *= tf.cast(fits, tf.float32)[:, None]
    offsets = tf.floor(tf.transpose(numbers[2:]) * (sides - boxes + 1))
    return tf.cast(tf.concat([offsets, boxes], axis=1)[tf.argmax(fits)], tf.int32)
