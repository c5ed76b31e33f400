"""KerasCV's own augmentation: shift, rotation, RandAugment, cutout, MixUp and CutMix."""

from types import ModuleType

import tensorflow as tf

from keras_crossvit.common.checks import check_between
from keras_crossvit.data.augment.base import Augmentation
from keras_crossvit.data.augment.mixing import for_each_group
from keras_crossvit.data.augment.stateless_random import StatelessRandom
from keras_crossvit.data.config import AUGMENTATIONS, InputConfig

# Sides of squares with the smallest and with the largest area that the reference erases.
_CUTOUT_SIDES = (0.02**0.5, (1 / 3) ** 0.5)


@AUGMENTATIONS.register("kerascv")
def make_kerascv(config: InputConfig) -> Augmentation:
    """An `Augmentation` of KerasCV's layers; 0 leaves a step out.

    Raises:
        ValueError: If KerasCV cannot be imported, or `randaugment_std` is above 10.
    """
    kcv, random = _import_layers(), StatelessRandom()
    alone = _alone(kcv, config, random)
    cutout, mixing = _cutout(kcv, random), _mixing(kcv, config, random)

    # Separate functions, because the numbers are drawn in the order of tracing, which must not
    # depend on whether there is a surrounding graph.
    @tf.function
    def image(pixels, seed):
        random.begin(tf.random.experimental.stateless_fold_in(seed, 2))
        # RandAugment's histogram operations index by pixel value, and raise outside 0..255.
        pixels = tf.clip_by_value(tf.cast(pixels, tf.float32), 0.0, 255.0)
        for layer in alone:
            pixels = tf.clip_by_value(layer(pixels), 0.0, 255.0)
        if config.erasing_probability > 0:
            erased = random.uniform([]) < config.erasing_probability
            pixels = tf.cond(erased, lambda: cutout(pixels), lambda: pixels)
        return pixels

    def mix(images, labels, seed):
        random.begin(tf.random.experimental.stateless_fold_in(seed, 3))
        mixed = mixing({"images": images, "labels": labels})
        return mixed["images"], mixed["labels"]

    @tf.function
    def batch(images, labels, seeds):
        if mixing is None:
            return images, labels
        return for_each_group(mix, images, labels, seeds)

    return Augmentation(image, batch)


def _import_layers() -> ModuleType:
    try:
        from keras_crossvit.data.augment import kerascv_layers
    except Exception as error:  # an import may raise anything with a Keras that it does not know
        raise ValueError(
            '`augment` must be another, such as "reference", where KerasCV cannot be imported '
            "(pip install keras-cv). "
            f"Received: augment='kerascv', and {type(error).__name__}: {error}"
        ) from error
    return kerascv_layers


def _alone(kcv, config, random):
    """The layers that take one image."""
    layers = []
    if config.translation > 0:
        shift = config.translation
        layers.append(
            kcv.seeded(random, kcv.RandomTranslation, shift, shift, fill_mode="constant")
        )
    if config.rotation > 0:
        turn = config.rotation / 360
        layers.append(kcv.seeded(random, kcv.RandomRotation, turn, fill_mode="constant"))
    if config.randaugment_magnitude > 0:
        std = check_between("randaugment_std", config.randaugment_std, 0, 10)  # as its layer does
        layers.append(
            kcv.seeded(
                random,
                kcv.RandAugment,
                (0, 255),
                augmentations_per_image=config.randaugment_num_ops,
                magnitude=config.randaugment_magnitude / 10,
                magnitude_stddev=std / 10,
            )
        )
    return layers


def _cutout(kcv, random):
    return kcv.seeded(
        random, kcv.RandomCutout, _CUTOUT_SIDES, _CUTOUT_SIDES, fill_mode="gaussian_noise"
    )


def _mixing(kcv, config, random):
    """MixUp, CutMix, one of the two for a whole group, or `None`."""
    layers = [
        kcv.seeded(random, make, alpha=alpha)
        for make, alpha in ((kcv.MixUp, config.mixup_alpha), (kcv.CutMix, config.cutmix_alpha))
        if alpha > 0
    ]
    if len(layers) < 2:
        return layers[0] if layers else None
    return kcv.seeded(random, kcv.RandomChoice, layers, batchwise=True)
