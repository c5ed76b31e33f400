"""What all augmentations share: the interface, its errors, and when KerasCV is imported."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data.augment import AUGMENTATIONS, make_augmentation
from tests.base import run_python

POLICY = {
    "augment": "reference",
    "randaugment_magnitude": 9,
    "randaugment_num_ops": 2,
    "randaugment_std": 0.5,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "erasing_probability": 0.25,
    "translation": 0.0,
    "rotation": 0.0,
}


def policy(**changes):
    return types.SimpleNamespace(**{**POLICY, **changes})


def pictures(count=8, height=24, width=20):
    shape = (count, height, width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")


def batches(config, parallel_calls=None, count=16, batch_size=8, groups=2):
    """Images and labels through both functions, as a pipeline calls them."""
    augmentation = make_augmentation(config, 10)

    def read(pixels, number):
        seed = tf.stack([number, 1])
        return augmentation.image(pixels, seed), tf.one_hot(number % 10, 10), seed

    def mix(images, labels, seeds):
        return augmentation.batch(images, labels, seeds[:groups])

    data = (pictures(count), np.arange(count, dtype="int64"))
    return list(
        tf.data.Dataset.from_tensor_slices(data)
        .map(read, num_parallel_calls=parallel_calls)
        .batch(batch_size, drop_remainder=True)
        .map(mix, num_parallel_calls=parallel_calls)
        .as_numpy_iterator()
    )


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_same_seed_same_batches(augment):
    """Bit for bit: made anew, one or eight at a time, whatever the global dtype policy."""
    config = policy(augment=augment, erasing_probability=0.5)
    runs = []
    for parallel_calls, global_policy in ((None, "float32"), (8, "mixed_bfloat16")):
        keras.config.set_dtype_policy(global_policy)
        runs.append(batches(config, parallel_calls))
        assert keras.config.dtype_policy().name == global_policy
    for (images, labels), (again, labels_again) in zip(*runs, strict=True):
        assert images.dtype == labels.dtype == np.float32
        assert images.shape == (8, 24, 20, 3)
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert (np.abs(runs[0][0][0] - pictures(16)[:8]).max() > 10) == (augment != "none")


@pytest.mark.parametrize("augment", ["kerascv", "reference"])
def test_another_seed_another_picture(augment):
    image = make_augmentation(policy(augment=augment), 10).image
    pixels = tf.constant(pictures()[0])
    results = [image(pixels, tf.constant([seed, 0])).numpy() for seed in range(12)]
    assert len({result.tobytes() for result in results}) > 6


def test_none_changes_nothing():
    (images, labels), _ = batches(policy(augment="none"))
    np.testing.assert_array_equal(images, pictures(16)[:8])
    np.testing.assert_array_equal(labels, np.eye(10)[:8])


@pytest.mark.parametrize("augment", ["kerascv", "reference"])
def test_zeros_leave_all_steps_out(augment):
    zeros = dict.fromkeys(POLICY, 0)
    (images, labels), _ = batches(policy(**{**zeros, "augment": augment}))
    np.testing.assert_array_equal(images, pictures(16)[:8])
    np.testing.assert_array_equal(labels, np.eye(10)[:8])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": "strong"}, "`augment` must be one of 'kerascv', 'none', 'reference'"),
        ({"randaugment_magnitude": 11}, r"`randaugment_magnitude` must be in 0\.\.10"),
        ({"erasing_probability": 1.5}, r"`erasing_probability` must be in 0\.\.1"),
        ({"mixup_alpha": -0.1}, "`mixup_alpha` must be at least 0. Received: mixup_alpha=-0.1"),
        ({"rotation": 5.0}, '`rotation` must be 0 with augment="reference"'),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(ValueError, match=message):
        make_augmentation(policy(**changes), 10)


def test_mixing_needs_classes():
    with pytest.raises(ValueError, match="must be 0 where there are less than 2 classes"):
        make_augmentation(policy(), 1)


@pytest.mark.parametrize("augment", ["kerascv", "reference"])
def test_groups_must_divide_the_batch(augment):
    batch = make_augmentation(policy(augment=augment), 10).batch
    images, labels = np.zeros((8, 4, 4, 3), "float32"), np.eye(10, dtype="float32")[:8]
    with pytest.raises(ValueError, match="`seeds` must be of a number that divides the batch"):
        batch(tf.constant(images), tf.constant(labels), tf.zeros([3, 2], tf.int32))


def test_kerascv_is_imported_only_when_it_is_needed():
    code = """
import sys
import keras_crossvit.data.random_crop
from tests.data_room.test_augment import make_augmentation, policy
make_augmentation(policy(augment="none"), 10)
print("tensorflow" in sys.modules, "keras_cv" in sys.modules)
"""
    assert run_python(code).split()[-2:] == ["True", "False"]
