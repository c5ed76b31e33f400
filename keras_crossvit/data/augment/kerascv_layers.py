"""KerasCV's layers with their known faults mended; no other file imports keras_cv.

All are built in float32, since under a mixed global policy some raise; and all draw from the
seed that they are given, since KerasCV's own `seed=` makes none of them reproducible.
"""

import contextlib

import keras
import keras_cv
import tensorflow as tf
from keras_cv.layers import RandAugment, RandomChoice, RandomRotation, RandomTranslation

__all__ = [
    "CutMix",
    "MixUp",
    "RandAugment",
    "RandomChoice",
    "RandomCutout",
    "RandomRotation",
    "RandomTranslation",
    "SeededLayer",
    "seeded",
]


class SeededLayer(keras_cv.layers.BaseImageAugmentationLayer):
    """A base for layers that take `{"images": ..., "seed": ...}`, and pixels in any dtype.

    `augment_image(image, transformation)` is for a subclass to define, as in KerasCV, and
    `draw(image, seed)`, which returns the transformation.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.auto_vectorize = False  # of a vectorised switch every branch would run

    def draw(self, image, seed):
        """What is done to an image: any structure of tensors."""
        raise NotImplementedError

    def _augment(self, inputs):
        image = inputs["images"]
        image = self.augment_image(image, transformation=self.draw(image, inputs["seed"]))
        return {**inputs, "images": image}

    def _ensure_inputs_are_compute_dtype(self, inputs):
        return dict(inputs)


class MixUp(keras_cv.layers.MixUp):
    """KerasCV's MixUp; the draws are reproducible."""

    def _mixup(self, images):
        draws, count = self._random_generator, tf.shape(images)[0]
        lam = draws.beta(self.alpha, self.alpha, [count])
        order = draws.permutation(count)
        weights = lam[:, None, None, None]
        return weights * images + (1 - weights) * tf.gather(images, order), lam, order


class CutMix(keras_cv.layers.CutMix):
    """KerasCV's CutMix; the draws are reproducible, and labels follow the box's real area.

    KerasCV's box is cut at the border of the picture, its lambda is not.
    """

    def _cutmix(self, images):
        draws, (count, height, width) = self._random_generator, tf.unstack(tf.shape(images)[:3])
        side = tf.sqrt(1 - draws.beta(self.alpha, self.alpha, [count]))
        order = draws.permutation(count)
        sizes = [
            tf.cast(side * tf.cast(extent, tf.float32), tf.int32) for extent in (height, width)
        ]
        centers = [draws.uniform([count], 0, extent, tf.int32) for extent in (height, width)]
        rows, columns = (
            (tf.range(extent) >= (center - size // 2)[:, None])
            & (tf.range(extent) < (center + size - size // 2)[:, None])
            for extent, center, size in zip((height, width), centers, sizes, strict=True)
        )
        box = rows[:, :, None, None] & columns[:, None, :, None]
        lam = 1 - tf.reduce_mean(tf.cast(box, tf.float32), [1, 2, 3])
        mixed = tf.where(box, tf.gather(images, order), images)
        return mixed, lam, order, centers[0], centers[1], sizes[1], sizes[0]


class RandomCutout(keras_cv.layers.RandomCutout):
    """KerasCV's cutout; the noise is reproducible."""

    def _compute_rectangle_fill(self, inputs):
        return self._random_generator.uniform(tf.shape(inputs), 0.0, 255.0)


def seeded(draws, make, *args, **kwargs):
    """A layer of KerasCV in float32, `make(*args, **kwargs)`, that draws from a `Draws`."""
    with _float32():
        layer = make(*args, **kwargs)
    for part in _parts(layer):
        part._random_generator = draws
        for name, value in list(vars(part).items()):
            if isinstance(value, keras_cv.core.NormalFactorSampler):
                setattr(part, name, _normal_sampler(draws, value))
            elif isinstance(value, keras_cv.core.UniformFactorSampler):
                setattr(part, name, _uniform_sampler(draws, value))
    return layer


def _parts(layer):
    """A layer and all the layers in it."""
    yield layer
    for part in (getattr(layer, "_random_choice", None), *getattr(layer, "layers", [])):
        if part is not None:
            yield from _parts(part)


def _normal_sampler(draws, sampler):
    def sample(shape=(), dtype="float32"):
        drawn = draws.normal(shape, sampler.mean, sampler.stddev, tf.as_dtype(dtype))
        return tf.clip_by_value(drawn, sampler.min_value, sampler.max_value)

    return sample


def _uniform_sampler(draws, sampler):
    def sample(shape=(), dtype="float32"):
        return draws.uniform(shape, sampler.lower, sampler.upper, tf.as_dtype(dtype))

    return sample


@contextlib.contextmanager
def _float32():
    """The layers that are made inside have float32, whatever the global policy."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
