"""Batches: what is in them, in which order, on how many workers."""

import dataclasses
import logging
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data.config import InputConfig
from keras_crossvit.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from keras_crossvit.data.shards import Shard
from keras_crossvit.data.sources import MemorySplit
from tests.base import KERASCV

pytestmark = pytest.mark.slow

SIZE = (16, 16)
PLAIN = InputConfig(
    epochs=10,
    batch_size=4,
    augment="none",
    crop_area=(1.0, 1.0),
    horizontal_flip=False,
    label_smoothing=0.0,
)
FULL = dataclasses.replace(
    PLAIN, batch_size=8, augment="reference", crop_area=(0.3, 1.0), horizontal_flip=True
)


def split(count=10, bad=()):
    """Images of one shade each: image i has the shade 20 i and the label i."""
    files = [tf.io.encode_png(np.full((8, 8, 3), 20 * i, "uint8")) for i in range(count)]
    files = [b"not an image" if i in bad else x.numpy() for i, x in enumerate(files)]
    return MemorySplit(files, np.arange(count))


def textured(count=24):
    """Images of noise: no two crops of them are alike."""
    draw = np.random.default_rng(0)
    files = [
        tf.io.encode_png(draw.integers(0, 256, (20, 24, 3)).astype("uint8")) for _ in range(count)
    ]
    return MemorySplit([file.numpy() for file in files], np.arange(count))


def epochs(config, count=2, data=None, **arguments):
    """The labels of the first epochs, each a list of batches."""
    data = data or split()
    steps = steps_per_epoch(data, config)
    batches = training_batches(data, 10, SIZE, config, **arguments).take(count * steps)
    rows = [labels.numpy().argmax(1).tolist() for _, labels in batches]
    return [rows[start : start + steps] for start in range(0, len(rows), steps)]


def test_evaluation_keeps_order_and_every_image():
    batches = list(evaluation_batches(split(), 10, SIZE, 4, 1.0))
    assert [len(images) for images, _, _ in batches] == [4, 4, 2]
    images, labels, weights = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    shades = 20.0 * np.arange(10)[:, None, None, None]
    np.testing.assert_array_equal(images, np.broadcast_to(shades, (10, 16, 16, 3)))
    np.testing.assert_array_equal(labels, np.eye(10))
    np.testing.assert_array_equal(weights, np.ones(10))


@pytest.mark.parametrize(("workers", "replicas"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_evaluation_in_parts_has_full_batches_and_every_image_once(workers, replicas):
    seen = []
    for worker in range(workers):
        shard = Shard(worker, workers, replicas)
        batches = list(evaluation_batches(split(), 10, SIZE, 4, 1.0, shard))
        assert [len(x) for x, _, _ in batches] == [4 // workers // replicas] * 3 * replicas
        for _, labels, weights in batches:
            seen += labels.numpy().argmax(1)[weights.numpy() > 0].tolist()
    assert sorted(seen) == list(range(10))


def test_evaluation_gives_workers_an_odd_number_of_rows():
    """Nothing is mixed, so rows need no pairs. Here images are grey."""
    for worker in range(2):
        batches = evaluation_batches(split(), 10, (*SIZE, 1), 6, 1.0, Shard(worker, 2, 1))
        assert [images.shape for images, _, _ in batches] == [(3, *SIZE, 1)] * 2
        rows = [labels.numpy().argmax(1)[weights.numpy() > 0] for _, labels, weights in batches]
        assert [row.tolist() for row in rows] == [
            [worker, worker + 2, worker + 4],
            [worker + 6, worker + 8],
        ]


def test_training_shuffles_anew_each_epoch_and_by_the_seed():
    first, second = epochs(PLAIN)
    assert [len(batch) for batch in first] == [4, 4]  # the last two images are left out
    assert first != second
    assert len({label for batch in first for label in batch}) == 8
    tf.random.set_seed(5)  # the global seed plays no part in it
    assert epochs(PLAIN) == [first, second]
    assert epochs(dataclasses.replace(PLAIN, seed=1)) != [first, second]


def test_training_ends_after_the_last_epoch():
    assert len(epochs(PLAIN, count=100)) == 10


def test_training_goes_on_with_the_next_batch():
    batches = [batch for epoch in epochs(PLAIN, count=3) for batch in epoch]
    for step in (1, 2, 5):
        rest = training_batches(split(), 10, SIZE, PLAIN, first_step=step).take(6 - step)
        assert [y.numpy().argmax(1).tolist() for _, y in rest] == batches[step:]


def test_repeated_augmentation_follows_with_copies():
    config = dataclasses.replace(PLAIN, repeated_augmentation=2)
    for epoch in epochs(config):
        for batch in epoch:
            assert batch[0::2] == batch[1::2]
            assert len(set(batch)) == 2


def test_training_images_keep_their_labels():
    for channels in (1, 3):
        for images, labels in training_batches(split(), 10, (*SIZE, channels), PLAIN).take(4):
            shades = 20.0 * labels.numpy().argmax(1)[:, None, None, None]
            wanted = np.broadcast_to(shades, (4, *SIZE, channels))
            np.testing.assert_allclose(images, wanted, atol=0.03)  # of grey, by its weights' sum


def test_labels_are_smoothed_to_a_sum_of_one():
    config = dataclasses.replace(PLAIN, label_smoothing=0.1)
    _, labels = next(iter(training_batches(split(), 10, SIZE, config)))
    np.testing.assert_allclose(np.sort(labels.numpy())[:, -1], 0.91, atol=1e-6)
    np.testing.assert_allclose(np.sort(labels.numpy())[:, :-1], 0.01, atol=1e-6)


def test_labels_of_an_unreadable_image_are_not_smoothed():
    config = dataclasses.replace(PLAIN, batch_size=10, label_smoothing=0.1)
    data = split(10, bad=(3,))
    _, labels = next(iter(training_batches(data, 10, SIZE, config)))
    np.testing.assert_allclose(np.sort(labels.numpy().sum(1)), [0] + [1] * 9, atol=1e-6)


@pytest.mark.parametrize("augment", ["reference", KERASCV])
def test_same_seed_same_batches_in_any_number_of_calls(augment):
    config = dataclasses.replace(FULL, augment=augment)
    some = []
    for calls in (1, 2, 7):
        changed = dataclasses.replace(config, parallel_calls=calls)
        some.append(list(training_batches(textured(), 24, SIZE, changed).take(4)))
    for batches in zip(*some, strict=True):
        for images, labels in batches[1:]:
            np.testing.assert_array_equal(images, batches[0][0])
            np.testing.assert_array_equal(labels, batches[0][1])
    assert np.abs(some[0][0][0] - some[0][1][0]).max() > 1  # while batches differ


@pytest.mark.parametrize(
    ("workers", "replicas", "group"), [(2, 1, None), (2, 2, 4), (4, 1, 2), (4, 1, None), (1, 2, 2)]
)
def test_parts_together_are_the_whole_batch(workers, replicas, group):
    """Each row is made by one worker: cropped, erased and mixed as in one process."""
    # Without RandAugment, whose graph takes seconds to build.
    config = dataclasses.replace(FULL, randaugment_magnitude=0, mixing_batch_size=group)
    whole = list(training_batches(textured(), 24, SIZE, config).take(3))
    parts = []
    for worker in range(workers):
        batches = training_batches(
            textured(), 24, SIZE, config, Shard(worker, workers, replicas)
        ).take(3 * replicas)
        parts.append([x.numpy() for x, _ in batches])
    for step, (images, _) in enumerate(whole):
        rows = np.concatenate(
            [batch for part in parts for batch in part[step * replicas : (step + 1) * replicas]]
        )
        order = np.lexsort(rows.reshape(8, -1).T[:4])
        expected = images.numpy()
        expected_order = np.lexsort(expected.reshape(8, -1).T[:4])
        np.testing.assert_array_equal(rows[order], expected[expected_order])


@pytest.mark.parametrize(
    ("changes", "shard", "message"),
    [
        ({}, Shard(0, 3, 1), "`batch_size` must be a multiple of the 3 replicas"),
        ({"mixing_batch_size": 3}, Shard(), "`mixing_batch_size` must divide batch_size=8"),
        (
            {"batch_size": 24, "mixing_batch_size": 8},
            Shard(0, 2, 1),
            "and divide the 12 rows of a worker or be a multiple of them",
        ),
        ({"batch_size": 6}, Shard(0, 2, 1), "an even number of rows"),
        ({"batch_size": 25}, None, "`batch_size` must be at most the 24 images of the split"),
    ],
)
def test_batches_that_cannot_be_split(changes, shard, message):
    with pytest.raises(ValueError, match=message):
        training_batches(textured(), 24, SIZE, dataclasses.replace(FULL, **changes), shard)


def test_evaluation_batches_that_cannot_be_split():
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of the 2 replicas"):
        evaluation_batches(split(), 10, SIZE, 5, 1.0, Shard(0, 2, 1))


def test_other_classes_than_those_of_several_labels():
    several = MemorySplit([b"x"] * 2, [[1, 0], [1, 1]])
    with pytest.raises(ValueError, match=r"`classes` must .* classes=3, and labels of 2$"):
        evaluation_batches(several, 3, SIZE, 2, 1.0)


@pytest.mark.parametrize(
    ("argument", "value"), [("batch_size", 0), ("batch_size", -1), ("parallel_calls", 0)]
)
def test_evaluation_batches_of_nothing(argument, value):
    """TensorFlow would make batches of no image without end."""
    given = {"batch_size": 4, "crop_ratio": 1.0, argument: value}
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive integer"):
        evaluation_batches(split(), 10, SIZE, **given)


def test_unreadable_images_are_named_and_count_for_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        data = split(10, bad=(3, 7))
        whole = dataclasses.replace(PLAIN, batch_size=10)
        for images, labels in training_batches(data, 10, SIZE, whole).take(2):
            present = labels.numpy().sum(1) > 0
            assert sorted(labels.numpy()[present].argmax(1)) == [0, 1, 2, 4, 5, 6, 8, 9]
            assert (images.numpy()[~present] == 0).all()
        _, _, weights = next(iter(evaluation_batches(data, 10, SIZE, 10, 1.0)))
    np.testing.assert_array_equal(weights, [1, 1, 1, 0, 1, 1, 1, 0, 1, 1])
    named = [record.getMessage() for record in caplog.records if "skipped" in record.message]
    reason = (
        "(image_bytes must be a JPEG, PNG, GIF, BMP or WebP file. Received: bytes that begin with"
    )
    for message, name in zip(sorted(named, key=lambda text: text[-40:]), "37", strict=True):
        assert f"so far): image {name} {reason}" in message
        assert "\n" not in message


def test_an_unreadable_image_is_named_in_one_line_whatever_its_name(caplog):
    data = MemorySplit([b"not an image"], [0], ["a\nb\x1b[31m\udcff"])
    list(evaluation_batches(data, 10, SIZE, 1, 1.0))
    (said,) = (text for text in caplog.messages if text.startswith("skipped"))
    assert r"): a\nb\x1b[31m\udcff (image_bytes must be" in said


def test_label_outside_of_the_classes():
    with pytest.raises(tf.errors.InvalidArgumentError, match="a label lies outside the classes"):
        list(training_batches(split(), 5, SIZE, PLAIN))


def test_few_batches_are_ahead_on_any_number_of_cores():
    """Each is held in memory, and takes 0.7 GB with 1,024 images of 240 pixels."""

    class Counted(MemorySplit):
        loaded = 0

        def load(self, index):
            self.loaded += 1
            return super().load(index)

    file = tf.io.encode_png(np.zeros((8, 8, 3), "uint8")).numpy()
    data, config = Counted([file] * 256, [0] * 256), dataclasses.replace(PLAIN, epochs=99)
    config = dataclasses.replace(config, batch_size=256, parallel_calls=8)
    batches = iter(training_batches(data, 10, SIZE, config))
    next(batches)
    before = -1
    while data.loaded > before:
        before = data.loaded
        time.sleep(0.5)
    # One taken, two prefetched, three on their way, and some 30 rows at a time in each call.
    assert 6 * 256 < data.loaded < 6 * 256 + 8 * 32 * 5
