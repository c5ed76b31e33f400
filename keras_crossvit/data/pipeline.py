"""From a split to batches: shuffle, read, crop, augment, batch, mix, prefetch.

Everything random derives from the seed, the number of the epoch and the number of the row,
never from a state: the same seed gives the same batches bit for bit, on any number of cores
and workers, and a run that was cut off goes on with the very batch that comes next.
"""

import logging
import os
from collections.abc import Sequence

import tensorflow as tf

from keras_crossvit.common.tf_data import without_autotune
from keras_crossvit.data.augment import make_augmentation
from keras_crossvit.data.config import InputConfig
from keras_crossvit.data.images import decode, evaluation_transform
from keras_crossvit.data.random_crop import random_resized_crop
from keras_crossvit.data.rows import map_all_rows
from keras_crossvit.data.shards import Shard
from keras_crossvit.data.sources import Split

OUTSIDE = "a label lies outside the classes"
_SHUFFLE_BUFFER = 10_000  # encoded images; of a folder all paths are shuffled
_AHEAD = 2  # batches that are prepared ahead of time
_CACHED = 10_000  # this many encoded images, about 1 GB of photographs, stay in memory

_logger = logging.getLogger("keras_crossvit.data")
_named: set[str] = set()  # files that this process has named: each is met again in every epoch


def steps_per_epoch(split: Split, config: InputConfig) -> int:
    """Training steps of one pass; the last incomplete batch is left out."""
    return split.size // config.batch_size


def training_batches(
    split: Split,
    classes: int,
    size: Sequence[int],
    config: InputConfig,
    shard: Shard | None = None,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Batches to train on, from step `first_step` of the run to its last.

    Args:
        split: A `Split`.
        classes: Number of classes.
        size: `(height, width)` of the model's input, in pixels.
        config: An `InputConfig`.
        shard: The `Shard` of this worker, whose batches are then those of its replicas, in
            turn; `None` makes whole batches.
        first_step: Steps that the run has done already.

    Returns:
        `tf.data.Dataset` of images `(B, height, width, 3)`, float32, about 0..255 (erased
        pixels hold noise of any value), and labels `(B, classes)` of sum 1, smoothed. Each
        epoch has `steps_per_epoch` batches. An image that cannot be read is named in the log;
        its row is black and its labels are 0, so that it adds nothing to the loss.

    Raises:
        ValueError: If the batches cannot be split as `shard` says, or the augmentation cannot
            have the values of `config`.
    """
    batch_size, steps = config.batch_size, steps_per_epoch(split, config)
    group_size = config.mixing_batch_size or batch_size
    part = shard or Shard()
    part.check(batch_size, group_size)
    augmentation = make_augmentation(config, classes)

    def read(index, row):
        seed = tf.stack([config.seed, index])
        crop = config.crop_area, seed, config.horizontal_flip
        pixels = random_resized_crop(split.read(row[1]), size, *crop)
        return augmentation.image(pixels, seed)

    def label(rows, images, good):
        indices, (names, _, labels) = rows
        good = tf.cast(_name_unreadable(names, good), tf.float32)
        return indices, images, _one_hot(labels, classes) * good[:, tf.newaxis]

    def mix(indices, images, labels):
        groups = tf.constant([*part.groups(batch_size, group_size)], tf.int64)
        numbers = indices[0] // batch_size * (batch_size // group_size) + groups
        stream = tf.fill(tf.shape(numbers), tf.constant(~config.seed, tf.int64))
        images, labels = augmentation.batch(images, labels, tf.stack([stream, numbers], 1))
        return images, _smooth(labels, config.label_smoothing)

    rows = _shuffled_rows(split, config, steps, first_step)
    if part.workers > 1:
        rows = rows.filter(lambda index, _: part.owns(index % batch_size, batch_size, group_size))
    calls = config.parallel_calls or os.cpu_count() or 1
    local_size = batch_size // part.workers
    batches = (
        map_all_rows(rows, read, calls)
        .map(label)
        .rebatch(local_size, drop_remainder=True)
        .map(mix, calls)
    )
    if part.replicas > 1:
        batches = batches.rebatch(local_size // part.replicas, drop_remainder=True)
    return without_autotune(batches.prefetch(_AHEAD))


def _shuffled_rows(split, config, steps, first_step):
    """`(number in the run, (name, content, label))`, each epoch in an order of its own."""
    per_epoch = steps * config.batch_size
    examples = split.examples.cache() if split.size <= _CACHED else split.examples
    buffer = split.size if split.light else min(split.size, _SHUFFLE_BUFFER)
    repeats = config.repeated_augmentation

    def one_epoch(epoch):
        # The seed of this function's own graph, so that the order depends on `seed` alone.
        tf.random.set_seed(1)
        seed = config.seed * 100_003 + epoch
        shuffled = examples.shuffle(buffer, seed, reshuffle_each_iteration=False)
        if repeats > 1:
            copies = tf.data.Dataset.range(repeats)
            shuffled = shuffled.flat_map(lambda *row: copies.map(lambda _: row))
        return shuffled.take(per_epoch).enumerate(epoch * per_epoch)

    epochs = tf.data.Dataset.range(first_step // steps, config.epochs).flat_map(one_epoch)
    return epochs.skip(first_step % steps * config.batch_size)


def evaluation_batches(
    split: Split,
    classes: int,
    size: Sequence[int],
    batch_size: int,
    crop_ratio: float,
    shard: Shard | None = None,
) -> tf.data.Dataset:
    """Batches to evaluate on: every image once, in order.

    Args:
        split: A `Split`.
        classes: Number of classes.
        size: `(height, width)` of the model's input, in pixels.
        batch_size: Images in a batch, over all replicas together.
        crop_ratio: As in `evaluation_transform`.
        shard: The `Shard` of this worker. With one, the last batch is filled up with rows of
            weight 0, so that all batches of all replicas have the same size; without one, it
            may hold fewer rows.

    Returns:
        `tf.data.Dataset` of images `(B, height, width, 3)`, float32, 0..255, one-hot labels
        `(B, classes)` and weights `(B,)`: 1, or 0 for a row that fills the batch up and for an
        image that cannot be read, which is named in the log.

    Raises:
        ValueError: If the batches cannot be split as `shard` says.
    """
    part = shard or Shard()
    part.check(batch_size, 1)

    def read(name, content, label):
        return evaluation_transform(decode(split.read(content)), size, crop_ratio)

    def label(rows, images, good):
        names, _, labels = rows
        weights = tf.cast(_name_unreadable(names, good), tf.float32)
        return images, _one_hot(labels, classes), weights

    rows = split.examples
    if shard is not None:
        filling = tf.data.Dataset.from_tensors(("", "", tf.constant(0, tf.int64)))
        rows = rows.concatenate(filling.repeat(-split.size % batch_size))
        rows = rows.shard(part.workers, part.worker)
    batches = map_all_rows(rows, read, os.cpu_count() or 1).map(label)
    batches = batches.rebatch(batch_size // (part.workers * part.replicas))
    return without_autotune(batches.prefetch(_AHEAD))


def _name_unreadable(names, good):
    """Names the images that could not be read in the log, each once in a process.

    Args:
        names: `(N,)` strings; an empty name is a row that fills the batch up.
        good: bool `(N,)`, whether it could be read.

    Returns:
        `good`, after the rest has been named.
    """
    unreadable = tf.boolean_mask(names, ~good & (names != ""))

    def name_them():
        with tf.control_dependencies([tf.numpy_function(_warn, [unreadable], [], stateful=True)]):
            return tf.identity(good)

    return tf.cond(tf.size(unreadable) > 0, name_them, lambda: good)


def _warn(names):
    for name in {name.decode(errors="replace") for name in names} - _named:
        _named.add(name)
        _logger.warning("skipped an image that cannot be read (%d so far): %s", len(_named), name)


def _one_hot(labels, classes):
    inside = tf.reduce_all((labels >= 0) & (labels < classes))
    with tf.control_dependencies([tf.debugging.Assert(inside, [OUTSIDE, labels])]):
        return tf.one_hot(labels, classes)


def _smooth(labels, smoothing):
    """Spreads a share of the labels over all classes; rows whose sum is 0 stay as they are."""
    total = tf.reduce_sum(labels, axis=1, keepdims=True)
    return labels * (1 - smoothing) + total * (smoothing / labels.shape[1])
