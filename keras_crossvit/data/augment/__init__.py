"""What is done to training pictures after the crop: to each alone, and to a batch.

All randomness comes from the seeds that are given: same seed, same result, whatever runs at
the same time. KerasCV is imported when an augmentation that needs it is made.
"""

import dataclasses
import importlib
from collections.abc import Callable

from keras_crossvit.common.checks import check_choice

AUGMENTATIONS = {
    name: f"keras_crossvit.data.augment.{name}" for name in ("none", "kerascv", "reference")
}
"""`{name: module}`; the module's `make(config)` returns an `Augmentation`."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """TensorFlow graph functions, for `tf.data`.

    Args:
        image: A function of `(pixels, seed)`, one picture, uint8 `(H, W, 3)` with known sides,
            and two integers; returns float32 `(H, W, 3)`. Values lie in 0..255 but for the
            noise of `reference`'s erased box.
        batch: A function of `(images, labels, seeds)`: float32 `(B, H, W, 3)`, one-hot
            float32 `(B, classes)` and integers `(G, 2)` with G known. The batch consists of G
            groups of equal size, one after the other, each mixed within itself by its own
            seed. Returns images and labels.
    """

    image: Callable
    batch: Callable


def make_augmentation(config, classes):
    """The augmentation of a configuration.

    Args:
        config: Anything with the attributes `augment` (of `AUGMENTATIONS`),
            `randaugment_magnitude` (0..10, 0 for none), `randaugment_num_ops`,
            `randaugment_std` (of the magnitude), `mixup_alpha`, `cutmix_alpha` (0 for none),
            `erasing_probability`, `translation` (share of the sides) and `rotation`
            (degrees); the last two are of "kerascv" alone.
        classes: Number of classes; mixing needs at least two.

    Returns:
        An `Augmentation`.

    Raises:
        ValueError: If `augment` is unknown or a value is outside its range.
    """
    check_choice("augment", config.augment, set(AUGMENTATIONS))
    _check_range("randaugment_magnitude", config.randaugment_magnitude, 10)
    _check_range("erasing_probability", config.erasing_probability, 1)
    for name in ("randaugment_num_ops", "randaugment_std", "mixup_alpha", "cutmix_alpha"):
        _check_range(name, getattr(config, name))
    if classes < 2 and config.augment != "none" and config.mixup_alpha + config.cutmix_alpha > 0:
        raise ValueError(
            "`mixup_alpha` and `cutmix_alpha` must be 0 where there are less than 2 classes. "
            f"Received: classes={classes}"
        )
    return importlib.import_module(AUGMENTATIONS[config.augment]).make(config)


def _check_range(name, value, highest=None):
    allowed = "at least 0" if highest is None else f"in 0..{highest}"
    if value < 0 or (highest is not None and value > highest):
        raise ValueError(f"`{name}` must be {allowed}. Received: {name}={value}")
