"""Stochastic depth: which samples it drops, and by how much it scales the others."""

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from keras_crossvit.layers.drop_path import child_seeds


def draws(layer, batch=64, dtype="float32"):
    """One call in training on ones: `(batch, 3, 4)`, as float64."""
    ones = keras.ops.ones((batch, 3, 4), dtype)
    return keras.ops.convert_to_numpy(layer(ones, training=True)).astype("float64")


def test_same_seed_draws_alike_and_another_seed_does_not():
    first, again, other = (layers.DropPath(0.5, seed=seed) for seed in (7, 7, 8))
    rows = draws(first)
    np.testing.assert_array_equal(rows, draws(again))
    assert (rows != draws(other)).any()
    assert (rows != draws(first)).any(), "the second call must draw anew"


def test_without_a_seed_the_global_seed_decides():
    def row():
        keras.utils.set_random_seed(3)
        return draws(layers.DropPath(0.5))

    np.testing.assert_array_equal(row(), row())


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "float16", "mixed_bfloat16"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_drops_whole_samples_at_the_rate_and_keeps_the_expectation(policy, rate):
    layer = layers.DropPath(rate, seed=1, dtype=policy)
    rows = draws(layer, batch=20000, dtype=layer.compute_dtype)
    per_sample = rows[:, :1, :1]
    np.testing.assert_array_equal(rows, per_sample * np.ones((1, 3, 4)))
    scale = 1 / (1 - rate)
    rounding = 0.004 if "bfloat16" in policy else 0.0005 if "float16" in policy else 1e-6
    values = np.unique(per_sample)
    np.testing.assert_allclose(values, [0, scale], rtol=rounding)
    # Six standard deviations of the mean of 20000 draws.
    sigma = np.sqrt(rate / (1 - rate) / 20000)
    assert abs(per_sample.mean() - 1) < 6 * sigma + rounding


def test_does_nothing_in_inference_or_at_rate_zero():
    x = np.random.default_rng(0).standard_normal((8, 3)).astype("float32")
    np.testing.assert_array_equal(layers.DropPath(0.9)(x, training=False), x)
    np.testing.assert_array_equal(layers.DropPath(0.9)(x), x)
    np.testing.assert_array_equal(layers.DropPath(0.0)(x, training=True), x)


def test_child_seeds_differ_and_repeat():
    def first(seed):
        return [next(seeds) for seeds in [child_seeds(seed)] for _ in range(5)]

    assert first(4) == first(4)
    assert len(set(first(4))) == 5
    assert set(first(4)).isdisjoint(first(5))
    assert first(None) == [None] * 5
