"""What every augmentation is, and the one that does nothing."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from keras_crossvit.data.config import AUGMENTATIONS, InputConfig


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training images: TensorFlow graph functions, for `tf.data`.

    They are traced without AutoGraph; one that needs it is to be a `tf.function`.

    Args:
        image: A function of `(pixels, seed)`, one image, uint8 `(H, W, 3)` with known sides,
            and two integers; returns float32 `(H, W, 3)`. Values lie in 0..255 except for the
            noise in the box that `reference` erases.
        batch: A function of `(images, labels, seeds)`: float32 `(B, H, W, 3)`, one-hot
            float32 `(B, classes)` and integers `(G, 2)` with G known. The batch consists of G
            groups of equal size, one after the other, each mixed separately with its own
            seed. Returns images and labels. Of a group that is larger than a worker's part of the
            batch, each worker has the same number of pairs (the first row with the last, and so
            on inwards): it is the same on any number of workers only if each pair is mixed by
            itself, with draws for the whole group, as `reference` does.
    """

    image: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    batch: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def make_augmentation(config: InputConfig, classes: int) -> Augmentation:
    """The augmentation of a configuration.

    Args:
        config: An `InputConfig`.
        classes: Number of classes; mixing needs at least two.

    Raises:
        ValueError: If the augmentation does not allow these values.
    """
    if classes < 2 and config.augment != "none" and config.mixup_alpha + config.cutmix_alpha > 0:
        raise ValueError(
            "`mixup_alpha` and `cutmix_alpha` must be 0 where there are fewer than 2 classes. "
            f"Received: classes={classes}"
        )
    augmentation = AUGMENTATIONS[config.augment](config)
    if not isinstance(augmentation, Augmentation):
        raise ValueError(
            "`augment` must name a function that returns an `Augmentation`. "
            f"Received: augment={config.augment!r}, which returned {augmentation!r}"
        )
    return augmentation


@AUGMENTATIONS.register("none")
def make_none(config: InputConfig) -> Augmentation:
    """An `Augmentation` that changes nothing but the dtype."""

    def image(pixels, seed):
        return tf.cast(pixels, tf.float32)

    def batch(images, labels, seeds):
        return images, labels

    return Augmentation(image, batch)
