"""The policy behind the published numbers: DeiT's, as the authors used it (section 4.1).

After the random crop and the flip, which all augmentations share, and in timm's terms:

1. each image, uint8: RandAugment, `rand-m9-mstd0.5-inc1` (`randaugment.py`);
2. each image, float32: random erasing, `reprob=0.25`, `remode="pixel"` (`erasing.py`);
3. each batch: MixUp or CutMix, `mixup=0.8`, `cutmix=1.0`, `mixup_mode="batch"` (`mixing.py`);
4. the labels are smoothed, which the pipeline does for all augmentations.

The steps are functions that need only TensorFlow. The recipes run them as KerasCV layers.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_crossvit.data.augment.base import Augmentation
from keras_crossvit.data.augment.erasing import random_erasing
from keras_crossvit.data.augment.mixing import mix_batch
from keras_crossvit.data.augment.randaugment import rand_augment
from keras_crossvit.data.config import AUGMENTATIONS, InputConfig

_logger = logging.getLogger("keras_crossvit.data")


@AUGMENTATIONS.register("reference")
def make_reference(config: InputConfig) -> Augmentation:
    """An `Augmentation` of the reference's steps; 0 leaves a step out.

    Raises:
        ValueError: If `translation` or `rotation` is not 0: only "kerascv" has these steps.
    """
    for name in ("translation", "rotation"):
        if getattr(config, name) != 0:
            raise ValueError(
                f'`{name}` must be 0 with augment="reference", which has no such step. '
                f"Received: {name}={getattr(config, name)}"
            )
    change, erase, mix = _steps(config)

    def image(pixels, seed):
        seeds = [tf.random.experimental.stateless_fold_in(seed, i) for i in (2, 3)]
        if config.randaugment_magnitude > 0:
            pixels = change(pixels, seeds[0])
        pixels = tf.cast(pixels, tf.float32)
        if config.erasing_probability > 0:
            pixels = erase(pixels, seeds[1])
        return pixels

    def batch(images, labels, seeds):
        if config.mixup_alpha == config.cutmix_alpha == 0:
            return images, labels
        return mix(images, labels, seeds)

    return Augmentation(image, batch)


def _steps(config: InputConfig) -> tuple[Callable, Callable, Callable]:
    """RandAugment, erasing and mixing as configured, in KerasCV layers if it can be imported.

    The layers only call the functions, so that both give the same batches bit for bit.
    """
    randaugment: dict[str, Any] = {
        "num_ops": config.randaugment_num_ops,
        "magnitude": config.randaugment_magnitude,
        "magnitude_std": config.randaugment_std,
    }
    erasing = {"probability": config.erasing_probability}
    mixing = {"mixup_alpha": config.mixup_alpha, "cutmix_alpha": config.cutmix_alpha}
    try:
        from keras_crossvit.data.augment import kerascv_layers as layers
    except Exception as error:  # an import may raise anything with a Keras that it does not know
        _say_without_layers(f"{type(error).__name__}: {error}")
        return (
            functools.partial(rand_augment, **randaugment),
            functools.partial(random_erasing, **erasing),
            functools.partial(mix_batch, **mixing),
        )
    return (
        layers.ReferenceRandAugment(**randaugment).on_image,
        layers.RandomErasing(**erasing).on_image,
        layers.BatchMixing(**mixing).on_batch,
    )


@functools.cache  # once per process
def _say_without_layers(reason: str) -> None:
    _logger.warning(
        'KerasCV cannot be imported (%s): augment="reference" runs without its layers and gives '
        "the same batches",
        reason,
    )
