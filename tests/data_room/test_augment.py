"""What all augmentations share: the interface, the registry, and when KerasCV is imported."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data import Augmentation, InputConfig, register_augmentation
from keras_crossvit.data.augment import make_augmentation
from keras_crossvit.data.config import AUGMENTATIONS
from keras_crossvit.data.pipeline import training_batches
from keras_crossvit.data.shards import Shard
from keras_crossvit.data.sources import MemorySplit
from tests.base import KERASCV, run_python, skip_without

STRENGTHS = (
    *("randaugment_magnitude", "randaugment_num_ops", "randaugment_std"),
    *("mixup_alpha", "cutmix_alpha", "erasing_probability", "translation", "rotation"),
)


def policy(**changes):
    return InputConfig(batch_size=8, **changes)


def random_images(count=8, height=24, width=20):
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

    data = (random_images(count), np.arange(count, dtype="int64"))
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
    if augment == "kerascv":
        skip_without("keras_cv")
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
    assert (np.abs(runs[0][0][0] - random_images(16)[:8]).max() > 10) == (augment != "none")


@pytest.mark.parametrize("augment", [KERASCV, "reference"])
@pytest.mark.parametrize("alphas", [(1, 0), (0, 1), (1, 1)])
def test_whole_numbers_are_numbers(augment, alphas):
    """A command line, or JSON, gives 1 for 1.0."""
    whole = dict(zip(("mixup_alpha", "cutmix_alpha"), alphas, strict=True))
    whole |= {"randaugment_magnitude": 0, "erasing_probability": 1}
    made = [
        batches(policy(augment=augment, **{name: kind(x) for name, x in whole.items()}), count=8)
        for kind in (int, float)
    ]
    for ours, theirs in zip(*(made[i][0] for i in (0, 1)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (made[0][0][1].max(1) < 1).any()  # one kind alone is a mixing, too


@pytest.mark.parametrize("augment", [KERASCV, "reference"])
def test_another_seed_another_image(augment):
    image = make_augmentation(policy(augment=augment), 10).image
    pixels = tf.constant(random_images()[0])
    results = [image(pixels, tf.constant([seed, 0])).numpy() for seed in range(12)]
    assert len({result.tobytes() for result in results}) > 6


def test_none_changes_nothing():
    (images, labels), _ = batches(policy(augment="none"))
    np.testing.assert_array_equal(images, random_images(16)[:8])
    np.testing.assert_array_equal(labels, np.eye(10)[:8])


@pytest.mark.parametrize("augment", [KERASCV, "reference"])
def test_zeros_leave_all_steps_out(augment):
    zeros = dict.fromkeys(STRENGTHS, 0)
    (images, labels), _ = batches(policy(augment=augment, **zeros))
    np.testing.assert_array_equal(images, random_images(16)[:8])
    np.testing.assert_array_equal(labels, np.eye(10)[:8])


@pytest.mark.parametrize("name", ["translation", "rotation"])
def test_steps_that_the_reference_does_not_have(name):
    with pytest.raises(ValueError, match=f'`{name}` must be 0 with augment="reference"'):
        make_augmentation(policy(**{name: 0.5}), 10)


def test_mixing_needs_classes():
    for alphas in ({}, {"mixup_alpha": 0}, {"cutmix_alpha": 0}):
        with pytest.raises(ValueError, match="must be 0 where there are fewer than 2 classes"):
            make_augmentation(policy(**alphas), 1)
    make_augmentation(policy(augment="none"), 1)
    make_augmentation(policy(mixup_alpha=0, cutmix_alpha=0), 1)


@pytest.mark.parametrize("augment", [KERASCV, "reference"])
def test_groups_must_divide_the_batch(augment):
    batch = make_augmentation(policy(augment=augment), 10).batch
    images, labels = np.zeros((8, 4, 4, 3), "float32"), np.eye(10, dtype="float32")[:8]
    with pytest.raises(ValueError, match="`seeds` must have a known number of rows"):
        batch(tf.constant(images), tf.constant(labels), tf.zeros([3, 2], tf.int32))


def test_an_augmentation_from_outside(monkeypatch):
    monkeypatch.setattr(AUGMENTATIONS, "_entries", {**AUGMENTATIONS._entries})
    with pytest.raises(ValueError, match=r"`augment` must be one of .*Received: augment='dark'"):
        policy(augment="dark")

    @register_augmentation("dark")
    def make_dark(config):
        def image(pixels, seed):
            return tf.cast(pixels, tf.float32) * (1 - config.erasing_probability)

        return Augmentation(image, lambda images, labels, seeds: (images, labels[::-1]))

    (images, labels), _ = batches(policy(augment="dark", erasing_probability=0.75))
    np.testing.assert_array_equal(images, random_images(16)[:8] / 4)
    np.testing.assert_array_equal(labels, np.eye(10)[:8][::-1])
    with pytest.raises(ValueError, match="`name` must be new"):
        register_augmentation("dark")(policy)


@pytest.mark.parametrize(
    ("shard", "groups"),
    [(None, range(8)), (Shard(0, 2, 1), [0, 2, 4, 6]), (Shard(1, 2, 1), [1, 3, 5, 7])],
)
def test_each_group_of_a_run_has_a_seed_of_its_own(monkeypatch, shard, groups):
    """Which none of its images has; here they are written into the pixels and the labels."""
    monkeypatch.setattr(AUGMENTATIONS, "_entries", {**AUGMENTATIONS._entries})

    @register_augmentation("seeds")
    def make_seeds(config):
        def image(pixels, seed):
            return tf.fill(pixels.shape, tf.cast(seed[1] + 100 * seed[0], tf.float32))

        def batch(images, labels, seeds):
            return images, tf.repeat(tf.cast(seeds, tf.float32), 4, axis=0)

        return Augmentation(image, batch)

    png = tf.io.encode_png(np.zeros((4, 4, 3), "uint8")).numpy()
    options = {"augment": "seeds", "epochs": 2, "mixing_batch_size": 4, "seed": 5}
    config = policy(label_smoothing=0.0, **options)
    found = training_batches(MemorySplit([png] * 16, [0] * 16), 2, (4, 4), config, shard)
    images, seeds = (np.concatenate(parts) for parts in zip(*found, strict=True))
    np.testing.assert_array_equal(seeds[:, 0], ~5)
    np.testing.assert_array_equal(seeds[:, 1], np.repeat(groups, 4))
    rows = [4 * group + row for group in groups for row in range(4)]
    np.testing.assert_array_equal(images[:, 0, 0, 0], 500 + np.array(rows))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "must name a function that returns an `Augmentation`. Received: augment='odd'"),
        (lambda pixels, seed: pixels, r"returned uint8, \(4, 4, 3\)"),
        (lambda pixels, seed: tf.cast(pixels[:3], "float32"), r"returned float32, \(3, 4, 3\)"),
    ],
)
def test_an_augmentation_that_returns_something_else(monkeypatch, image, message):
    monkeypatch.setattr(AUGMENTATIONS, "_entries", {**AUGMENTATIONS._entries})
    made = image and Augmentation(image, lambda images, labels, seeds: (images, labels))
    register_augmentation("odd")(lambda config: made)
    png = tf.io.encode_png(np.zeros((8, 8, 3), "uint8")).numpy()
    with pytest.raises(ValueError, match=message):
        training_batches(MemorySplit([png] * 8, [0] * 8), 10, (4, 4), policy(augment="odd"))


def test_autograph_is_there_for_those_who_ask(monkeypatch):
    """A batch is halved by Python's `if`: in a `tf.function`, which turns AutoGraph on."""
    monkeypatch.setattr(AUGMENTATIONS, "_entries", {**AUGMENTATIONS._entries})

    def halve(images, labels, seeds):
        if tf.reduce_mean(images) > 0:
            images = images / 2
        return images, labels

    for name, batch in (("plain", halve), ("converted", tf.function(halve))):
        made = Augmentation(lambda pixels, seed: tf.cast(pixels, tf.float32), batch)
        register_augmentation(name)(lambda config, made=made: made)
    png = tf.io.encode_png(np.full((4, 4, 3), 200, "uint8")).numpy()
    split = MemorySplit([png] * 8, [0] * 8)
    with pytest.raises(TypeError, match="as a Python `bool` is not allowed"):
        training_batches(split, 10, (4, 4), policy(augment="plain"))
    found = training_batches(split, 10, (4, 4), policy(augment="converted"))
    np.testing.assert_array_equal(next(iter(found))[0], np.full((8, 4, 4, 3), 100))


def test_kerascv_is_imported_only_when_it_is_needed():
    code = """
import sys
import keras_crossvit.data.random_crop
from tests.data_room.test_augment import make_augmentation, policy
make_augmentation(policy(augment="none"), 10)
print("tensorflow" in sys.modules, "keras_cv" in sys.modules)
"""
    assert run_python(code).split()[-2:] == ["True", "False"]
