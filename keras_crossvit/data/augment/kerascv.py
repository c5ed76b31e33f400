"""KerasCV's own augmentation: shift, rotation, RandAugment, cutout, MixUp and CutMix."""

import tensorflow as tf

from keras_crossvit.data.augment import Augmentation
from keras_crossvit.data.augment import kerascv_layers as kcv
from keras_crossvit.data.augment.draws import Draws
from keras_crossvit.data.augment.groups import for_each_group

# A square of the least and of the largest area that the reference erases has these sides.
_CUTOUT_SIDES = (0.02**0.5, (1 / 3) ** 0.5)


def make(config):
    """An `Augmentation` of KerasCV's layers; 0 leaves a step out."""
    draws = Draws()
    alone, cutout, mixing = _alone(config, draws), _cutout(draws), _mixing(config, draws)

    # Functions of their own: the order of the draws is that of tracing, so that it must not
    # depend on whether there is a graph around.
    @tf.function
    def image(pixels, seed):
        draws.begin(tf.random.experimental.stateless_fold_in(seed, 2))
        # RandAugment's histogram operations index by pixel, and raise outside of 0..255.
        pixels = tf.clip_by_value(tf.cast(pixels, tf.float32), 0.0, 255.0)
        for layer in alone:
            pixels = tf.clip_by_value(layer(pixels), 0.0, 255.0)
        if config.erasing_probability > 0:
            erased = draws.uniform([]) < config.erasing_probability
            pixels = tf.cond(erased, lambda: cutout(pixels), lambda: pixels)
        return pixels

    def mix(images, labels, seed):
        draws.begin(tf.random.experimental.stateless_fold_in(seed, 3))
        mixed = mixing({"images": images, "labels": labels})
        return mixed["images"], mixed["labels"]

    @tf.function
    def batch(images, labels, seeds):
        if mixing is None:
            return images, labels
        return for_each_group(mix, images, labels, seeds)

    return Augmentation(image, batch)


def _alone(config, draws):
    """The layers that take one picture."""
    layers = []
    if config.translation > 0:
        shift = config.translation
        layers.append(kcv.seeded(draws, kcv.RandomTranslation, shift, shift, fill_mode="constant"))
    if config.rotation > 0:
        turn = config.rotation / 360
        layers.append(kcv.seeded(draws, kcv.RandomRotation, turn, fill_mode="constant"))
    if config.randaugment_magnitude > 0:
        layers.append(
            kcv.seeded(
                draws,
                kcv.RandAugment,
                (0, 255),
                augmentations_per_image=config.randaugment_num_ops,
                magnitude=config.randaugment_magnitude / 10,
                magnitude_stddev=config.randaugment_std / 10,
            )
        )
    return layers


def _cutout(draws):
    return kcv.seeded(
        draws, kcv.RandomCutout, _CUTOUT_SIDES, _CUTOUT_SIDES, fill_mode="gaussian_noise"
    )


def _mixing(config, draws):
    """MixUp, CutMix, one of the two for a whole group, or `None`."""
    layers = [
        kcv.seeded(draws, make, alpha=alpha)
        for make, alpha in ((kcv.MixUp, config.mixup_alpha), (kcv.CutMix, config.cutmix_alpha))
        if alpha > 0
    ]
    if len(layers) < 2:
        return layers[0] if layers else None
    return kcv.seeded(draws, kcv.RandomChoice, layers, batchwise=True)
