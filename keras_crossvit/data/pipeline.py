"""From a split to batches: choose rows, read, crop, augment, batch, mix, prefetch.

Everything random derives from the seed, the number of the epoch and the number of the row,
never from a state: the same seed gives the same batches bit for bit, on any number of cores
and workers (except for KerasCV's mixing, see `Augmentation.batch`). A worker reads only the rows
that it makes, and an interrupted run continues with exactly the batch that comes next, without
reading those before it.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_crossvit.common.checks import check_positive_int, escaped
from keras_crossvit.common.tf_data import as_written, call_python, python_ends
from keras_crossvit.data.augment import make_augmentation
from keras_crossvit.data.config import InputConfig
from keras_crossvit.data.images import (
    decode,
    evaluation_transform,
    size_with_channels,
    to_channels,
    why_unreadable,
)
from keras_crossvit.data.order import EpochOrder
from keras_crossvit.data.random_crop import random_resized_crop
from keras_crossvit.data.rows import map_all_rows
from keras_crossvit.data.shards import Shard
from keras_crossvit.data.sources import Split

_OUTSIDE = "a label lies outside the classes"
_AHEAD = 2  # batches that are prepared ahead of time
_CHUNK = 32  # rows that are read by one call
# Mixing takes up to a fifth of the time that images take, and each of its calls holds a batch.
_CALLS_PER_MIXING = 4

_logger = logging.getLogger("keras_crossvit.data")
_MOST_NAMED = 1000
_named: set[str] = set()  # files that this process has named: each is met again in every epoch


def steps_per_epoch(split: Split, config: InputConfig) -> int:
    """Training steps of one pass; the last incomplete batch is left out."""
    return split.size // config.batch_size


@tf.autograph.experimental.do_not_convert  # AutoGraph takes a second, and nothing here needs it
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
        size: `(height, width)` of the model's input, in pixels, or
            `(height, width, channels)` with 1 or 3 channels; images with one are grey.
        config: An `InputConfig`.
        shard: The `Shard` of this worker; the batches are then those of its replicas, in turn.
            `None` makes whole batches.
        first_step: Steps that the run has already done.

    Returns:
        `tf.data.Dataset` of images `(B, height, width, channels)`, float32, about 0..255 (erased
        pixels hold noise of any value), and labels `(B, classes)`: smoothed and of sum 1, or for
        several labels an image as they are, but for mixing. Each epoch has `steps_per_epoch`
        batches. An image that cannot be read is named in the log; its row is black and its labels
        are 0, so that it adds nothing to a categorical cross-entropy, nor to a run's loss.

    Raises:
        ValueError: If the split has no batch, the batches cannot be split as `shard` says, or the
            augmentation does not allow the values of `config`.
    """
    batch_size, steps = config.batch_size, steps_per_epoch(split, config)
    if not steps:  # `fit` would only say that its input ran out of data
        raise ValueError(
            f"`batch_size` must be at most the {split.size} images of the split. "
            f"Received: batch_size={batch_size}"
        )
    group_size = config.mixing_batch_size or batch_size
    part = shard or Shard()
    part.check(batch_size, group_size)
    *sides, channels = size_with_channels(size)
    augmentation = make_augmentation(config, classes)
    targets = _targets(split, classes)
    smoothing = 0.0 if split.label_shape else config.label_smoothing

    positions = part.rows(batch_size, group_size)
    local_size = len(positions)
    order = EpochOrder(split.size, steps * batch_size, config.seed, config.repeated_augmentation)

    def examples(rows):
        """The worker's rows, counted from the start of the run."""
        numbers = rows // local_size * batch_size + positions[rows % local_size]
        return numbers, *split.read(order(numbers))

    def read(number, name, image, label):
        seed = tf.stack([config.seed, number])
        crop = config.crop_area, seed, config.horizontal_flip, config.exif_orientation
        found = augmentation.image(random_resized_crop(image, sides, *crop), seed)
        if found.dtype != tf.float32 or not found.shape.is_compatible_with([*sides, 3]):
            raise ValueError(
                f"`augment` must return float32 images of shape {(*sides, 3)}. Received: "
                f"augment={config.augment!r}, which returned {found.dtype.name}, {found.shape}"
            )
        return tf.ensure_shape(found, [*sides, 3])

    def label(rows, images, good):
        numbers, names, files, labels = rows
        good = tf.cast(_name_unreadable(names, files, good), tf.float32)
        return numbers, images, targets(labels) * good[:, tf.newaxis]

    def mix(numbers, images, labels):
        groups = tf.constant([*part.groups(batch_size, group_size)], tf.int64)
        numbers = numbers[0] // batch_size * (batch_size // group_size) + groups
        stream = tf.fill(tf.shape(numbers), tf.constant(~config.seed, tf.int64))
        images, labels = augmentation.batch(images, labels, tf.stack([stream, numbers], 1))
        return to_channels(images, channels), _smooth(labels, smoothing)

    calls = config.parallel_calls or _cores()
    rows = range(first_step * local_size, config.epochs * steps * local_size)
    batches = (
        map_all_rows(_chunks(rows, examples, split, calls), read, calls)
        .map(label)
        .rebatch(local_size, drop_remainder=True)
        .map(mix, min(calls, max(2, calls // _CALLS_PER_MIXING)))
    )
    if part.replicas > 1:
        batches = batches.rebatch(local_size // part.replicas, drop_remainder=True)
    return as_written(batches.prefetch(_AHEAD))


@tf.autograph.experimental.do_not_convert
def evaluation_batches(
    split: Split,
    classes: int,
    size: Sequence[int],
    batch_size: int,
    crop_ratio: float,
    shard: Shard | None = None,
    exif_orientation: bool = True,
    parallel_calls: int | None = None,
) -> tf.data.Dataset:
    """Batches to evaluate on: every image once, in order.

    Args:
        split: A `Split`.
        classes: Number of classes.
        size: `(height, width)` of the model's input, in pixels, or
            `(height, width, channels)` with 1 or 3 channels; images with one are grey.
        batch_size: Images in a batch, over all replicas together.
        crop_ratio: As in `evaluation_transform`.
        shard: The `Shard` of this worker. With one, the last batch is filled up with rows of
            weight 0, so that all batches of all replicas have the same size; without one, it
            may hold fewer rows.
        exif_orientation: As in `InputConfig`.
        parallel_calls: As in `InputConfig`.

    Returns:
        `tf.data.Dataset` of images `(B, height, width, channels)`, float32, 0..255, labels
        `(B, classes)` of zeros and ones, and weights `(B,)`: 1, or 0 for a row that fills the
        batch up and for an image that cannot be read, which is named in the log.

    Raises:
        ValueError: If `batch_size` or `parallel_calls` is not a positive integer, or the batches
            cannot be split as `shard` says.
    """
    part = shard or Shard()
    batch_size = check_positive_int("batch_size", batch_size)
    if parallel_calls is not None:
        check_positive_int("parallel_calls", parallel_calls)
    part.check(batch_size, 1)
    *sides, channels = size_with_channels(size)
    targets = _targets(split, classes)

    def examples(rows):
        numbers = rows * part.workers + part.worker
        here = split.read(numbers[numbers < split.size])
        filling = len(numbers) - len(here.names)
        labels = np.pad(here.labels, [(0, filling), *[(0, 0)] * len(split.label_shape)])
        return numbers, here.names + [""] * filling, here.images + [b""] * filling, labels

    def read(number, name, image, label):
        return evaluation_transform(decode(image, exif_orientation), sides, crop_ratio)

    def label(rows, images, good):
        _, names, files, labels = rows
        weights = tf.cast(_name_unreadable(names, files, good), tf.float32)
        return to_channels(images, channels), targets(labels), weights

    whole = split.size if shard is None else split.size + -split.size % batch_size
    calls = parallel_calls or _cores()
    chunks = _chunks(range(whole // part.workers), examples, split, calls)
    batches = map_all_rows(chunks, read, calls).map(label)
    batches = batches.rebatch(batch_size // (part.workers * part.replicas))
    return as_written(batches.prefetch(_AHEAD))


def _cores():
    """Those that this process may use: a scheduler gives it some of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _chunks(rows: range, examples: Callable, split: Split, parallel_calls: int) -> tf.data.Dataset:
    """Rows of a split, in chunks, several of which are read at the same time.

    Args:
        rows: Numbers of the worker's rows.
        examples: Function from an array of them to their numbers in the run and an `Examples`.
        split: The `Split` that they belong to.
        parallel_calls: Chunks that are read at the same time.

    Returns:
        `tf.data.Dataset` of `(numbers, names, images, labels)`, in the order of `rows`.
    """

    def read(start):
        numbers, names, images, labels = examples(np.arange(start, min(start + _CHUNK, rows.stop)))
        names = [os.fsencode(name) for name in names]
        return numbers, np.array(names, object), np.array(images, object), labels

    def chunk(start):
        label_type = tf.float32 if split.label_shape else tf.int64
        types = tf.int64, tf.string, tf.string, label_type
        tensors = call_python(read, [start], types)
        for tensor, shape in zip(tensors, [(), (), (), split.label_shape], strict=True):
            tensor.set_shape([None, *shape])
        return tuple(tensors)

    starts = tf.data.Dataset.range(rows.start, rows.stop, _CHUNK)
    return starts.take_while(lambda _: ~python_ends()).map(chunk, parallel_calls)


def _name_unreadable(names, files, good):
    """Logs the names of the images that could not be read, each once per process.

    After the first thousand they are only counted.

    Args:
        names: `(N,)` strings; an empty name means a row that fills the batch up.
        files: `(N,)` strings; an empty file was not read, and its name says why.
        good: bool `(N,)`, whether it could be read.

    Returns:
        `good`, after the rest has been named.
    """
    unreadable = ~good & (names != "")

    def name_them():
        rows = [tf.boolean_mask(tensor, unreadable) for tensor in (names, files)]
        with tf.control_dependencies([call_python(_warn, rows, [])]):
            return tf.identity(good)

    return tf.cond(tf.reduce_any(unreadable) & ~python_ends(), name_them, lambda: good)


def _warn(names, files):
    for name, file in zip(names, files, strict=True):
        name = escaped(os.fsdecode(name))
        if name in _named:
            continue
        _named.add(name)
        if len(_named) > _MOST_NAMED:  # a lost shard should not fill the log
            if len(_named) % _MOST_NAMED == 0:
                _logger.warning("%d images that cannot be read were skipped so far", len(_named))
            continue
        reason = f" ({why_unreadable(file)})" if file else ""
        _logger.warning(
            "skipped an image that cannot be read (%d so far): %s%s", len(_named), name, reason
        )


@contextlib.contextmanager
def labels_in_one_line(dataset: str) -> Iterator[None]:
    """A context that names the dataset, not the operation, if a label lies outside the classes."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if _OUTSIDE not in str(error):
            raise
        raise labels_outside(dataset) from error


def labels_outside(dataset: str) -> ValueError:
    """The error for a dataset with a label outside the classes."""
    return ValueError(
        f"`dataset` must have labels of its classes alone. Received: {dataset}, where "
        f"{_OUTSIDE}. A split without labels can be the reason: choose another by "
        "`train_split` and `validation_split`"
    )


def _targets(split, classes):
    """Function from the labels of a split to a float32 row for each, `(N, classes)`."""
    if split.label_shape not in ((), (classes,)):
        raise ValueError(
            f"`classes` must be those of the split's labels. Received: classes={classes}, and "
            f"labels of {split.label_shape[0]}"
        )

    def one_hot(labels):
        inside = tf.reduce_all((labels >= 0) & (labels < classes))
        with tf.control_dependencies([tf.debugging.Assert(inside, [_OUTSIDE, labels])]):
            return tf.one_hot(labels, classes)

    return tf.identity if split.label_shape else one_hot


def _smooth(labels, smoothing):
    """Spreads a share of the labels over all classes; rows whose sum is 0 stay as they are."""
    total = tf.reduce_sum(labels, axis=1, keepdims=True)
    return labels * (1 - smoothing) + total * (smoothing / labels.shape[1])
