"""Batches: what is in them, in which order."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data.kerascv import batch_augmentation
from keras_crossvit.data.pipeline import evaluation_batches, training_batches
from keras_crossvit.data.random_crop import random_resized_crop
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


def ramp():
    """A picture whose pixels say where they lie: red is the column, green the row."""
    rows, columns = np.mgrid[0:64, 0:64]
    return tf.constant(np.stack([columns, rows, 0 * rows], -1).astype("uint8"))


def test_random_crop_takes_the_asked_area():
    areas = []
    for seed in range(40):
        part = random_resized_crop(ramp(), (32, 32), (0.25, 0.5), (seed, 0)).numpy()
        width, height = np.ptp(part[..., 0]) + 1, np.ptp(part[..., 1]) + 1
        areas.append(width * height / 64**2)
        assert 0.6 < width / height < 1.6
    assert 0.2 < min(areas) < 0.32
    assert 0.42 < max(areas) < 0.55


def test_random_crop_is_decided_by_the_seed():
    crops = [random_resized_crop(ramp(), (16, 16), (0.1, 1.0), (s, 7)).numpy() for s in (1, 1, 2)]
    np.testing.assert_array_equal(crops[0], crops[1])
    assert np.abs(crops[0] - crops[2]).max() > 1


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_mixup_mixes_images_and_labels_alike(policy):
    keras.config.set_dtype_policy(policy)
    try:
        augment = batch_augmentation(dataclasses.replace(CONFIG, mixup_alpha=1.0))
        shades = np.arange(8, dtype="float32") * 20
        images = np.broadcast_to(shades[:, None, None, None], (8, 4, 4, 3))
        mixed, labels = augment(tf.constant(images), tf.one_hot(range(8), 8))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(labels.numpy().sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(mixed.numpy()[:, 0, 0, 0], labels.numpy() @ shades, atol=1e-3)
    assert (labels.numpy().max(1) < 1).any()


def test_randaugment_changes_pictures_and_keeps_the_range():
    augment = batch_augmentation(dataclasses.replace(CONFIG, randaugment_magnitude=0.5))
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32")
    changed, labels = augment(tf.constant(images), tf.one_hot(range(8), 8))
    assert np.abs(changed.numpy() - images).max() > 10
    assert 0 <= changed.numpy().min() <= changed.numpy().max() <= 255
    np.testing.assert_array_equal(labels.numpy(), np.eye(8))


def test_translation_and_rotation_move_pixels():
    """A white square in the middle moves, by no more than asked, and keeps its area."""
    images = np.zeros((16, 40, 40, 3), "float32")
    images[:, 15:25, 15:25] = 255
    config = dataclasses.replace(CONFIG, translation=0.2, rotation=10.0)
    moved, labels = batch_augmentation(config)(tf.constant(images), tf.one_hot(range(16), 16))
    red = moved.numpy()[..., 0] / 255
    rows, columns = np.mgrid[0:40, 0:40]
    for axis in (rows, columns):
        centers = (red * axis).sum((1, 2)) / red.sum((1, 2))
        assert np.ptp(centers) > 2
        assert np.abs(centers - 19.5).max() < 8 + 2
    np.testing.assert_allclose(red.sum((1, 2)), 100, rtol=0.05)
    np.testing.assert_array_equal(labels.numpy(), np.eye(16))
