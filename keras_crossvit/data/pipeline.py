"""From a split to batches: shuffle, decode, transform, batch, augment, prefetch."""

import types

import tensorflow as tf

from keras_crossvit.data.augment import make_augmentation
from keras_crossvit.data.images import decode, evaluation_transform
from keras_crossvit.data.random_crop import random_resized_crop

_SHUFFLE_BUFFER = 10_000


def training_batches(split, classes, size, config):
    """Batches to train on: shuffled anew each epoch, augmented, all of one size.

    Args:
        split: A `Split`.
        classes: Number of classes.
        size: `(height, width)` of the model's input, in pixels.
        config: A `TrainConfig`: its batch size, seed and augmentation are used.

    Returns:
        `tf.data.Dataset` of images `(B, height, width, 3)`, float32, 0..255, and one-hot
        labels `(B, classes)`; one pass is one epoch, the last incomplete batch is dropped.
    """
    augmentation = make_augmentation(_policy(config), classes)

    def read(seed, example):
        encoded, label = example
        pixels = random_resized_crop(encoded, size, config.crop_area, seed, config.horizontal_flip)
        return augmentation.image(pixels, seed), tf.one_hot(label, classes), seed

    def mix(images, labels, seeds):
        return augmentation.batch(images, labels, seeds[:1])

    shuffled = split.examples.cache().shuffle(min(split.size, _SHUFFLE_BUFFER), config.seed)
    seeds = tf.data.Dataset.random(config.seed).batch(2, drop_remainder=True)
    return (
        tf.data.Dataset.zip((seeds, shuffled))
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(config.batch_size, drop_remainder=True)
        .map(mix, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _policy(config):
    """What `make_augmentation` reads, from a `TrainConfig`."""
    return types.SimpleNamespace(
        augment="kerascv",
        randaugment_magnitude=10 * config.randaugment_magnitude,
        randaugment_num_ops=2,
        randaugment_std=1.5,
        mixup_alpha=config.mixup_alpha,
        cutmix_alpha=0.0,
        erasing_probability=0.0,
        translation=config.translation,
        rotation=config.rotation,
    )


def evaluation_batches(split, classes, size, batch_size, crop_ratio):
    """Batches to evaluate on: in order, every picture once.

    Args:
        split: A `Split`.
        classes: Number of classes.
        size: `(height, width)` of the model's input, in pixels.
        batch_size: Pictures in a batch; the last batch may hold fewer.
        crop_ratio: As in `evaluation_transform`.

    Returns:
        `tf.data.Dataset` as of `training_batches`.
    """

    def read(encoded, label):
        return evaluation_transform(decode(encoded), size, crop_ratio), tf.one_hot(label, classes)

    return (
        split.examples.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
