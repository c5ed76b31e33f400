"""Batches: what is in them, in which order."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_crossvit.data.pipeline import evaluation_batches, training_batches
from keras_crossvit.data.sources import Split
from keras_crossvit.training import TrainConfig

CONFIG = TrainConfig(
    "crossvit_digits",
    "digits",
    "runs/x",
    epochs=10,
    batch_size=4,
    learning_rate=1e-3,
    crop_area=(1.0, 1.0),
    horizontal_flip=False,
    randaugment_magnitude=0.0,
    mixup_alpha=0.0,
)


def split(count=10):
    """Pictures of one shade each: picture i has the shade 20 i and the label i."""
    pictures = [tf.io.encode_png(np.full((8, 8, 3), 20 * i, "uint8")) for i in range(count)]
    labels = tf.range(count, dtype=tf.int64)
    return Split(tf.data.Dataset.from_tensor_slices((tf.stack(pictures), labels)), count)


def test_evaluation_keeps_order_and_every_picture():
    batches = list(evaluation_batches(split(), 10, (16, 16), 4, 1.0))
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    np.testing.assert_array_equal(
        images, np.broadcast_to(20.0 * np.arange(10)[:, None, None, None], (10, 16, 16, 3))
    )
    np.testing.assert_array_equal(labels, np.eye(10))


def epoch(dataset):
    return [labels.numpy().argmax(1).tolist() for _, labels in dataset]


def test_training_shuffles_anew_each_epoch_and_by_the_seed():
    dataset = training_batches(split(), 10, (16, 16), CONFIG)
    first, second = epoch(dataset), epoch(dataset)
    assert [len(batch) for batch in first] == [4, 4]  # the last two pictures are left out
    assert first != second
    assert len({label for batch in first for label in batch}) == 8
    assert epoch(training_batches(split(), 10, (16, 16), CONFIG)) == first
    other = dataclasses.replace(CONFIG, seed=1)
    assert epoch(training_batches(split(), 10, (16, 16), other)) != first


def test_training_pictures_keep_their_labels():
    for images, labels in training_batches(split(), 10, (16, 16), CONFIG):
        shades = 20.0 * labels.numpy().argmax(1)
        np.testing.assert_allclose(images.numpy().mean((1, 2, 3)), shades, atol=1e-3)
