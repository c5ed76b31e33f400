"""KerasCV's layers with their faults fixed."""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data.augment import make_augmentation
from keras_crossvit.data.augment.kerascv import _alone
from keras_crossvit.data.augment.stateless_random import StatelessRandom
from tests.base import needs_kerascv
from tests.data_room.test_augment import policy, random_images

pytestmark = needs_kerascv

NOTHING = {
    "augment": "kerascv",
    "randaugment_magnitude": 0,
    "mixup_alpha": 0.0,
    "cutmix_alpha": 0.0,
    "erasing_probability": 0.0,
}


def kerascv(**changes):
    return make_augmentation(policy(**{**NOTHING, **changes}), 10)


def mix(augmentation, images, seeds):
    labels = tf.one_hot(np.arange(len(images)), 10)
    images, labels = augmentation.batch(tf.constant(images, "float32"), labels, tf.constant(seeds))
    return images.numpy(), labels.numpy()


def one_shade_each(count, height=16, width=24):
    shades = np.arange(count, dtype="float32") * 20
    return np.broadcast_to(shades[:, None, None, None], (count, height, width, 3))


@pytest.mark.parametrize("changes", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}])
def test_labels_follow_the_pixels(changes):
    """The mean shade is that of the labels: true of CutMix if lambda is that of the real box."""
    augmentation = kerascv(**changes)
    images, found = one_shade_each(8), []
    for seed in range(10):
        mixed, labels = mix(augmentation, images, [[seed, 0]])
        shades = labels[:, :8] @ images[:, 0, 0, 0]
        np.testing.assert_allclose(mixed.mean((1, 2, 3)), shades, atol=0.01)
        found.append(labels.max(1))
    assert 0.5 < np.mean(found) < 0.9


def test_groups_are_mixed_within_themselves():
    mixed, labels = mix(kerascv(mixup_alpha=0.8), one_shade_each(8), [[1, 2], [3, 4]])
    assert (labels[:4, 4:] == 0).all()
    assert (labels[4:, :4] == 0).all()
    assert (labels.max(1) < 1).any()
    swapped, _ = mix(kerascv(mixup_alpha=0.8), one_shade_each(8)[[4, 5, 6, 7, 0, 1, 2, 3]],
                     [[3, 4], [1, 2]])  # fmt: skip
    np.testing.assert_array_equal(swapped[:4], mixed[4:])


def test_both_mixings_are_used():
    augmentation, images = kerascv(mixup_alpha=0.8, cutmix_alpha=1.0), one_shade_each(8)
    kinds = set()
    for seed in range(20):
        mixed, _ = mix(augmentation, images, [[seed, 3]])
        kinds.add(len({len(np.unique(image)) for image in mixed} - {1}) > 0)
    assert kinds == {True, False}  # CutMix leaves two shades in an image, MixUp one


def test_randaugment_changes_images_and_keeps_the_range():
    augmentation = kerascv(randaugment_magnitude=9, translation=0.1)
    images, changed = random_images(30), 0
    images[0], images[1] = 0, 255
    for seed, pixels in enumerate(images):
        result = augmentation.image(tf.constant(pixels), tf.constant([seed, 0])).numpy()
        assert 0 <= result.min() <= result.max() <= 255
        changed += np.abs(result - pixels).mean() > 10
    assert changed > 15


def test_randaugment_takes_pixels_that_overshoot():
    """KerasCV's Equalization alone raises for them."""
    augmentation = kerascv(randaugment_magnitude=9)
    overshooting = tf.constant(random_images()[0].astype("float32") * 1.2 - 20)
    for seed in range(25):
        result = augmentation.image(overshooting, tf.constant([seed, 0])).numpy()
        assert 0 <= result.min() <= result.max() <= 255


def test_layers_get_shares_of_their_own_scale():
    """A rotation's is of a whole turn, a magnitude's of 10."""
    names = "RandomTranslation", "RandomRotation", "RandAugment"
    made = types.SimpleNamespace(
        **{name: name for name in names}, seeded=lambda random, *given, **options: (given, options)
    )
    changes = {"randaugment_magnitude": 9, "randaugment_std": 0.5, "randaugment_num_ops": 3}
    config = policy(augment="kerascv", translation=0.2, rotation=36.0, **changes)
    black = {"fill_mode": "constant"}
    numbers = {"augmentations_per_image": 3, "magnitude": 0.9, "magnitude_stddev": 0.05}
    assert _alone(made, config, None) == [
        (("RandomTranslation", 0.2, 0.2), black),
        (("RandomRotation", 0.1), black),
        (("RandAugment", (0, 255)), numbers),
    ]
    message = r"`randaugment_std` must be a number in \[0, 10\]. Received: randaugment_std=10.5"
    with pytest.raises(ValueError, match=message):
        _alone(made, dataclasses.replace(config, randaugment_std=10.5), None)


def test_cutout_probability_and_size():
    augmentation = kerascv(erasing_probability=0.25)
    pixels, shares, noise = np.full((32, 32, 3), 7, "uint8"), [], []
    for seed in range(200):
        result = augmentation.image(tf.constant(pixels), tf.constant([seed, 9])).numpy()
        shares.append((result != 7).all(-1).mean())
        noise.append(result[result != 7])
        own = tf.random.experimental.stateless_fold_in((seed, 9), 2)  # the crop has 0 and 1
        assert bool(shares[-1]) == bool(StatelessRandom(own).uniform([]) < 0.25)
    np.testing.assert_allclose(
        np.quantile(np.concatenate(noise), [0, 0.5, 1]), [0, 127.5, 255], atol=3
    )
    shares = np.array(shares)
    assert 0.15 < (shares > 0).mean() < 0.36
    assert shares.max() < 0.4
    assert shares[shares > 0].min() < 0.06
    assert 0.05 < shares[shares > 0].mean() < 0.2


def test_magnitudes_stay_in_their_range():
    """Of a normal distribution that is cut off."""
    from keras_crossvit.data.augment.kerascv_layers import _normal_sampler, _uniform_sampler

    random = StatelessRandom(tf.constant([0, 1]))
    sampler = types.SimpleNamespace(mean=0.9, stddev=0.5, min_value=0.0, max_value=1.0)
    drawn = _normal_sampler(random, sampler)([1000]).numpy()
    assert (drawn.min(), drawn.max()) == (0, 1)
    assert (drawn == 1).mean() == pytest.approx(0.42, abs=0.05)
    sampler = types.SimpleNamespace(lower=-0.2, upper=0.3)
    drawn = _uniform_sampler(random, sampler)([1000]).numpy()
    np.testing.assert_allclose(np.quantile(drawn, [0, 0.5, 1]), [-0.2, 0.05, 0.3], atol=0.03)


def test_translation_and_rotation_move_pixels():
    """A white square in the middle moves, by no more than asked, and keeps its area."""
    augmentation = kerascv(translation=0.2, rotation=10.0)
    pixels = np.zeros((40, 40, 3), "uint8")
    pixels[15:25, 15:25] = 255
    red = np.stack(
        [augmentation.image(tf.constant(pixels), tf.constant([s, 0]))[..., 0] for s in range(16)]
    )
    red = red / 255
    rows, columns = np.mgrid[0:40, 0:40]
    for axis in (rows, columns):
        centers = (red * axis).sum((1, 2)) / red.sum((1, 2))
        assert np.ptp(centers) > 4
        assert np.abs(centers - 19.5).max() < 8 + 2
    np.testing.assert_allclose(red.sum((1, 2)), 100, rtol=0.05)
