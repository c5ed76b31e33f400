"""Random erasing as in timm's mode "pixel" (Zhong et al., 1708.04896)."""

import math

import tensorflow as tf

from keras_crossvit.common.pixels import MEAN, STD
from keras_crossvit.common.tf_data import noinline
from keras_crossvit.data.augment.stateless_random import StatelessRandom

_AREAS = (0.02, 1 / 3)
_ASPECTS = (0.3, 1 / 0.3)
_ATTEMPTS = 10


def random_erasing(pixels: tf.Tensor, seed: tf.Tensor, probability: float = 0.25) -> tf.Tensor:
    """Replaces a box with noise: in normalised pixels, N(0, 1) for each value.

    The box has a uniform share of the area, 0.02 to 1/3, and a log-uniform aspect ratio, 0.3
    to 1/0.3. Up to ten boxes are drawn, and the first that is shorter and narrower than the
    image is taken.

    Args:
        pixels: float32 `(H, W, 3)`, in 0..255.
        seed: Two integers.
        probability: Probability of erasing, in [0, 1].

    Returns:
        float32 `(H, W, 3)`, in 0..255 except for the tails of the noise.
    """
    random = StatelessRandom(seed)
    erased, seed = random.uniform([]) < probability, random.seed()
    return tf.cond(erased, lambda: _erase(pixels, seed), lambda: pixels)


@noinline
def _erase(pixels, seed):
    random = StatelessRandom(seed)
    top, left, height, width = tf.unstack(draw_box(random, tf.shape(pixels)[:2]))
    noise = random.normal(tf.stack([height, width, 3]))
    noise = 255 * (MEAN + STD * noise)
    rows = pixels[top : top + height]
    rows = tf.concat([rows[:, :left], noise, rows[:, left + width :]], axis=1)
    erased = tf.concat([pixels[:top], rows, pixels[top + height :]], axis=0)
    return tf.ensure_shape(erased, pixels.shape)


def draw_box(random: StatelessRandom, sides: tf.Tensor) -> tf.Tensor:
    """The box to erase: `(top, left, height, width)`, int32; empty if none of ten fits.

    Args:
        random: Where the numbers come from.
        sides: Height and width of the image, int32 `(2,)`.
    """
    numbers, sides = random.uniform([4, _ATTEMPTS]), tf.cast(sides, tf.float32)
    area = (_AREAS[0] + (_AREAS[1] - _AREAS[0]) * numbers[0]) * sides[0] * sides[1]
    low, high = (math.log(aspect) for aspect in _ASPECTS)
    aspect = tf.exp(low + (high - low) * numbers[1])
    boxes = tf.round(tf.sqrt(tf.stack([area * aspect, area / aspect], axis=1)))
    fits = tf.reduce_all(boxes < sides, axis=1)
    boxes *= tf.cast(fits, tf.float32)[:, None]
    offsets = tf.floor(tf.transpose(numbers[2:]) * (sides - boxes + 1))
    return tf.cast(tf.concat([offsets, boxes], axis=1)[tf.argmax(fits)], tf.int32)
