"""KerasCV's layers; no other file imports keras_cv.

First come those of the reference policy, which only call its functions, then KerasCV's own with
their known faults fixed. All are built in float32, since some raise under a mixed global policy,
and all draw from the seed that they are given, since KerasCV's own `seed=` makes none of them
reproducible.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import keras_cv
import tensorflow as tf
from keras_cv.layers import RandAugment, RandomChoice, RandomRotation, RandomTranslation

from keras_crossvit.data.augment.erasing import random_erasing
from keras_crossvit.data.augment.mixing import mix_batch
from keras_crossvit.data.augment.randaugment import rand_augment
from keras_crossvit.data.augment.stateless_random import StatelessRandom

__all__ = [
    "BatchMixing",
    "CutMix",
    "MixUp",
    "RandAugment",
    "RandomChoice",
    "RandomCutout",
    "RandomErasing",
    "RandomRotation",
    "RandomTranslation",
    "ReferenceRandAugment",
    "seeded",
]


class _SeededLayer(keras_cv.layers.BaseImageAugmentationLayer):
    """Base class of layers that are given their seed, and take pixels of any dtype.

    Call arguments:
        inputs: `{"images": (H, W, 3) or (B, H, W, 3), "seed": (2,) or (B, 2)}`.

    Returns:
        The same with new images.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.auto_vectorize = False  # a vectorised switch would run every branch

    def transform(self, pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """What is done to one image."""
        raise NotImplementedError

    def on_image(self, pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Calls the layer on one image."""
        return self({"images": pixels, "seed": seed})["images"]

    def _augment(self, inputs):
        return {**inputs, "images": self.transform(inputs["images"], inputs["seed"])}

    def _ensure_inputs_are_compute_dtype(self, inputs):
        return dict(inputs)


class ReferenceRandAugment(_SeededLayer):
    """`rand_augment` as a layer.

    Args:
        num_ops: As in `rand_augment`.
        magnitude: As in `rand_augment`.
        magnitude_std: As in `rand_augment`.

    Call arguments:
        inputs: `{"images": uint8 (H, W, 3) or (B, H, W, 3), "seed": (2,) or (B, 2)}`.

    Returns:
        The same with new images, uint8.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.magnitude_std = magnitude_std

    def transform(self, pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return rand_augment(pixels, seed, self.num_ops, self.magnitude, self.magnitude_std)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_ops": self.num_ops,
            "magnitude": self.magnitude,
            "magnitude_std": self.magnitude_std,
        }


class RandomErasing(_SeededLayer):
    """`random_erasing` as a layer.

    Args:
        probability: As in `random_erasing`.

    Call arguments:
        inputs: `{"images": float32 (H, W, 3) or (B, H, W, 3), "seed": (2,) or (B, 2)}`.

    Returns:
        The same with new images.
    """

    def __init__(self, probability: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.probability = probability

    def transform(self, pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return random_erasing(pixels, seed, self.probability)

    def get_config(self) -> dict:
        return {**super().get_config(), "probability": self.probability}


class BatchMixing(_SeededLayer):
    """`mix_batch` as a layer.

    Args:
        mixup_alpha: As in `mix_batch`.
        cutmix_alpha: As in `mix_batch`.

    Call arguments:
        inputs: `{"images": float32 (B, H, W, 3), "labels": float32 (B, classes),
            "seed": (G, 2)}`: G groups of equal size, one after the other.

    Returns:
        The same with new images and labels.
    """

    def __init__(self, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha

    def on_batch(
        self, images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Calls the layer on a batch."""
        mixed = self({"images": images, "labels": labels, "seed": seeds})
        return mixed["images"], mixed["labels"]

    def _batch_augment(self, inputs):
        batch = inputs["images"], inputs["labels"], inputs["seed"]
        images, labels = mix_batch(*batch, self.mixup_alpha, self.cutmix_alpha)
        return {**inputs, "images": images, "labels": labels}

    def get_config(self) -> dict:
        config = {"mixup_alpha": self.mixup_alpha, "cutmix_alpha": self.cutmix_alpha}
        return {**super().get_config(), **config}


class MixUp(keras_cv.layers.MixUp):
    """KerasCV's MixUp, reproducible."""

    def _mixup(self, images):
        random, count = self._random_generator, tf.shape(images)[0]
        lam = random.beta(self.alpha, self.alpha, [count])
        order = random.permutation(count)
        weights = lam[:, None, None, None]
        return weights * images + (1 - weights) * tf.gather(images, order), lam, order


class CutMix(keras_cv.layers.CutMix):
    """KerasCV's CutMix, reproducible, with labels that follow the box's real area.

    KerasCV cuts the box at the border of the image, but does not correct lambda for it.
    """

    def _cutmix(self, images):
        random, (count, height, width) = self._random_generator, tf.unstack(tf.shape(images)[:3])
        side = tf.sqrt(1 - random.beta(self.alpha, self.alpha, [count]))
        order = random.permutation(count)
        sizes = [
            tf.cast(side * tf.cast(extent, tf.float32), tf.int32) for extent in (height, width)
        ]
        centers = [random.uniform([count], 0, extent, tf.int32) for extent in (height, width)]
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
    """KerasCV's cutout, reproducible."""

    def _compute_rectangle_fill(self, inputs):
        return self._random_generator.uniform(tf.shape(inputs), 0.0, 255.0)


def seeded(
    random: StatelessRandom, make: Callable, *args: Any, **kwargs: Any
) -> keras.layers.Layer:
    """A layer of KerasCV in float32, `make(*args, **kwargs)`, that draws from `random`."""
    with _float32():
        layer = make(*args, **kwargs)
    for part in _parts(layer):
        part._random_generator = random
        for name, value in list(vars(part).items()):
            if isinstance(value, keras_cv.core.NormalFactorSampler):
                setattr(part, name, _normal_sampler(random, value))
            elif isinstance(value, keras_cv.core.UniformFactorSampler):
                setattr(part, name, _uniform_sampler(random, value))
    return layer


def _parts(layer):
    """A layer and all the layers in it."""
    yield layer
    for part in (getattr(layer, "_random_choice", None), *getattr(layer, "layers", [])):
        if part is not None:
            yield from _parts(part)


def _normal_sampler(random, sampler):
    def sample(shape=(), dtype="float32"):
        drawn = random.normal(shape, sampler.mean, sampler.stddev, tf.as_dtype(dtype))
        return tf.clip_by_value(drawn, sampler.min_value, sampler.max_value)

    return sample


def _uniform_sampler(random, sampler):
    def sample(shape=(), dtype="float32"):
        return random.uniform(shape, sampler.lower, sampler.upper, tf.as_dtype(dtype))

    return sample


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """A context in which layers are made in float32, whatever the global policy."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
