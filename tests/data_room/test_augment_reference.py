"""The reference policy: what is drawn and how often, the erased box, the mixing formulas."""

import numpy as np
import pytest
import tensorflow as tf

from keras_crossvit.data.augment import make_augmentation
from keras_crossvit.data.augment.erasing import draw_box, random_erasing
from keras_crossvit.data.augment.mixing import draw_mixing, mix_batch
from keras_crossvit.data.augment.operations import OPERATIONS
from keras_crossvit.data.augment.randaugment import draw_operations, rand_augment
from keras_crossvit.data.augment.stateless_random import StatelessRandom
from tests.data_room.test_augment import policy, random_images

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SEEDS = np.stack([np.arange(4000), np.full(4000, 7)], 1)


def drawn(draw, seeds=SEEDS):
    """What a function of a seed draws for many seeds, each value stacked."""
    results = list(tf.data.Dataset.from_tensor_slices(seeds).map(draw).as_numpy_iterator())
    return [np.stack(values) for values in zip(*results, strict=True)]


def test_randaugment_draws():
    operations, magnitudes, signs = drawn(draw_operations)
    assert operations.shape == magnitudes.shape == signs.shape == (4000, 2)
    counts = np.bincount(operations.ravel(), minlength=16) / operations.size
    np.testing.assert_allclose(counts[:15], 0.5 / 15, atol=0.009)
    assert abs(counts[15] - 0.5) < 0.02  # none: not applied
    both = operations[(operations < 15).all(1)]
    assert 0.03 < (both[:, 0] == both[:, 1]).mean() < 0.11  # with replacement: 1 in 15
    assert abs(magnitudes.mean() - 9) < 0.03
    assert abs(magnitudes.std() - 0.5) < 0.03
    assert magnitudes.max() == 10
    assert (magnitudes == 10).mean() == pytest.approx(0.0228, abs=0.008)
    assert set(signs.ravel()) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.05
    assert abs(np.corrcoef(magnitudes[:, 0], magnitudes[:, 1])[0, 1]) < 0.06
    assert abs(np.corrcoef(signs.ravel(), operations.ravel())[0, 1]) < 0.06


def test_randaugment_applies_what_is_drawn():
    strength = {"num_ops": 3, "magnitude": 6.0, "magnitude_std": 2.0}
    pixels, functions = tf.constant(random_images()[0]), [*OPERATIONS.values()]
    applied = 0
    for number in range(12):
        seed = tf.constant([number, 0])
        expected = pixels
        operations, magnitudes, signs = draw_operations(seed, **strength)
        for operation, magnitude, sign in zip(operations, magnitudes, signs, strict=True):
            if operation < len(functions):
                applied += 1
                expected = functions[operation](expected, magnitude, sign)
        result = rand_augment(pixels, seed, **strength)
        assert result.dtype == tf.uint8
        np.testing.assert_array_equal(result, expected)
    assert applied > 10


def test_erased_box():
    (boxes,) = drawn(lambda seed: (draw_box(StatelessRandom(seed), [60, 80]),))
    top, left, height, width = boxes.T
    areas, aspects = height * width / 4800, np.log(height / width)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 60).all()
    assert (left + width <= 80).all()
    assert (height < 60).all()
    assert (width < 80).all()
    assert areas.min() == pytest.approx(0.02, abs=0.005)
    assert areas.max() == pytest.approx(1 / 3, abs=0.01)
    # A little lower than the middle of both ranges, since the largest boxes may not fit.
    assert areas.mean() == pytest.approx(0.17, abs=0.012)
    assert aspects.min() == pytest.approx(np.log(0.3), abs=0.15)
    assert aspects.max() == pytest.approx(-np.log(0.3), abs=0.15)
    assert (top / (60 - height + 1)).mean() == pytest.approx(0.5, abs=0.03)
    assert (left / (80 - width + 1)).mean() == pytest.approx(0.5, abs=0.03)


def test_erasing_probability_and_noise():
    image = tf.fill([40, 40, 3], 300.0)  # no noise is as bright
    erased = []
    for seed in range(200):
        result = random_erasing(image, tf.constant([seed, 1]), 0.25).numpy()
        changed = (result != 300).all(-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert changed.sum() == box.shape[0] * box.shape[1]  # a full rectangle
            erased.append((box.reshape(-1, 3) / 255 - MEAN) / STD)
    assert 32 < len(erased) < 70
    noise = np.concatenate(erased)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(noise.std(0), 1, atol=0.05)
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(3), atol=0.05)


def test_nothing_is_erased_where_no_box_fits():
    image = tf.zeros([1, 9, 3])
    for seed in range(5):
        np.testing.assert_array_equal(random_erasing(image, tf.constant([seed, 1]), 1.0), image)


def test_mixing_draws():
    cut, lam, boxes = drawn(lambda seed: draw_mixing([20, 30], seed))
    assert cut.mean() == pytest.approx(0.5, abs=0.03)
    assert lam[~cut].mean() == pytest.approx(0.5, abs=0.02)
    variance = 1 / (4 * (2 * 0.8 + 1))  # of Beta(0.8, 0.8)
    assert lam[~cut].var() == pytest.approx(variance, abs=0.01)
    top, left, bottom, right = boxes.T
    assert (boxes >= 0).all()
    assert (bottom <= 20).all()
    assert (right <= 30).all()
    np.testing.assert_allclose(
        lam[cut], 1 - ((bottom - top) * (right - left) / 600)[cut], atol=1e-6
    )
    # Before they are clipped, the sides have the ratio sqrt(1 - U(0, 1)): 2/3 on average.
    inside = cut & (top > 0) & (bottom < 20)
    assert 0.2 < ((bottom - top)[inside] / 20).mean() < 0.5
    assert (boxes[~cut][:, 2:] == boxes[~cut][:, :2]).all()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_formula_for_each_group(mixup, cutmix):
    """The partner is the reversed group; images and labels follow one lambda per group."""
    images = np.random.default_rng(0).uniform(0, 255, (12, 10, 14, 3)).astype("float32")
    labels = np.eye(12, dtype="float32")
    seen = set()
    for number in range(8):
        seeds = tf.constant([[number, 0], [number, 1], [number, 2]])
        mixed = mix_batch(tf.constant(images), tf.constant(labels), seeds, mixup, cutmix)
        for group in range(3):
            own = slice(4 * group, 4 * group + 4)
            cut, lam, box = draw_mixing([10, 14], seeds[group], mixup, cutmix)
            top, left, bottom, right = box
            partner, lam = images[own][::-1], float(lam)
            expected = images[own] * lam + partner * (1 - lam)
            if cut:
                box = np.s_[:, int(top) : int(bottom), int(left) : int(right)]
                expected = images[own].copy()
                expected[box] = partner[box]
            seen.add(bool(cut))
            np.testing.assert_allclose(mixed[0][own], expected, atol=1e-4)
            target = lam * labels[own] + (1 - lam) * labels[own][::-1]
            np.testing.assert_allclose(mixed[1][own], target, atol=1e-6)
    assert seen == {mixup == 0} if 0 in (mixup, cutmix) else seen == {True, False}


def test_erasing_comes_before_mixing_and_after_randaugment():
    """Erasing's noise leaves 0..255, which RandAugment's integer pixels never do."""
    image = make_augmentation(policy(erasing_probability=1.0), 10).image
    pixels = tf.constant(random_images(1, 60, 60)[0])
    results = [image(pixels, tf.constant([seed, 0])).numpy() for seed in range(6)]
    for result in results:
        assert (result != np.round(result)).mean() > 0.015
    assert any(result.min() < 0 or result.max() > 255 for result in results)


def test_each_step_has_a_seed_of_its_own():
    """The crop and the flip have 0 and 1, RandAugment 2 and erasing 3."""
    pixels = tf.constant(random_images(1, 60, 60)[0])
    config = policy(erasing_probability=1.0, randaugment_magnitude=0)
    whole = tf.constant([5, 7])
    own = [tf.random.experimental.stateless_fold_in(whole, step) for step in range(4)]
    np.testing.assert_array_equal(
        make_augmentation(config, 10).image(pixels, whole),
        random_erasing(tf.cast(pixels, tf.float32), own[3], 1.0),
    )
    changed = rand_augment(pixels, own[2])
    assert (changed != pixels).numpy().any()
    config = policy(erasing_probability=0)
    np.testing.assert_array_equal(make_augmentation(config, 10).image(pixels, whole), changed)


def test_small_alphas_give_nearly_all_of_one():
    """In float32 both gamma variables would often be the smallest number, and the share 1/2."""
    lam = StatelessRandom((0, 1)).beta(0.01, 0.01, [1000]).numpy()
    assert ((lam < 0.1) | (lam > 0.9)).mean() > 0.9
    assert abs(lam.mean() - 0.5) < 0.1


def test_draws_stay_what_they_were():
    """What a seed draws does not change from one version to the next."""
    operations, magnitudes, signs = draw_operations((3, 5), num_ops=6)
    assert operations.numpy().tolist() == [15, 15, 10, 15, 4, 7]
    expected = [8.281634, 8.513241, 8.208637, 9.574739, 8.859153, 9.061262]
    np.testing.assert_allclose(magnitudes, expected, rtol=1e-5)
    assert signs.numpy().tolist() == [-1, 1, 1, -1, 1, 1]
    assert draw_box(StatelessRandom((3, 5)), [60, 80]).numpy().tolist() == [2, 4, 13, 33]
    for number, expected in enumerate([(False, 0.0361812), (True, 1 - 19 * 22 / 600)]):
        cut, lam, box = draw_mixing([20, 30], (3, number))
        assert (bool(cut), float(lam)) == pytest.approx(expected, rel=1e-5)
    assert box.numpy().tolist() == [0, 0, 19, 22]
    _, _, box = draw_mixing([20, 30], (3, 5))  # of 15 rows, as many as drawn
    assert box.numpy().tolist() == [4, 17, 19, 30]
