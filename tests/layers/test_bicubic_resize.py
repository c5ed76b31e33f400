"""The resize of images and position embeddings."""

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from keras_crossvit.common.bicubic import bicubic_matrix, resize_grid
from tests import reference


@pytest.mark.parametrize(
    ("size", "wanted"), [((12, 9), (7, 13)), ((5, 5), (5, 5)), ((3, 4), (11, 2)), ((1, 2), (4, 4))]
)
def test_resize_equals_cubic_convolution_sample_by_sample(size, wanted):
    image = np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype("float32")
    expected = reference.cubic_resize(image, *wanted)
    resized = layers.BicubicResize(*wanted)(image[None])[0]
    np.testing.assert_allclose(resized, expected, atol=1e-3, rtol=1e-6)
    np.testing.assert_allclose(resize_grid(image.astype("float64"), *wanted), expected, atol=1e-9)


def test_weights_halfway_between_samples_are_those_of_a_075():
    # At half a sample: 0.5 + 0.75 / 8 for the two near samples, -0.75 / 8 for the far ones.
    row = bicubic_matrix(8, 4)[1]
    np.testing.assert_allclose(row, [0, -0.09375, 0.59375, 0.59375, -0.09375, 0, 0, 0], atol=1e-15)


def test_edges_repeat_the_last_sample():
    # The first of 4 from 8 lies between samples 0 and 1; sample -1 counts as sample 0.
    row = bicubic_matrix(8, 4)[0]
    np.testing.assert_allclose(row, [0.5, 0.59375, -0.09375, 0, 0, 0, 0, 0], atol=1e-15)


@pytest.mark.parametrize(("size", "wanted"), [(240, 224), (408, 384), (504, 480), (7, 24)])
def test_rows_sum_to_one_so_a_constant_image_stays(size, wanted):
    np.testing.assert_allclose(bicubic_matrix(size, wanted).sum(axis=1), 1, atol=1e-12)
    image = np.full((1, size, 3, 1), 128.0, "float32")
    np.testing.assert_allclose(layers.BicubicResize(wanted, 3)(image), 128.0, rtol=1e-6)


def test_same_size_is_the_identity():
    np.testing.assert_array_equal(bicubic_matrix(9, 9), np.eye(9))


def test_rows_and_columns_are_not_confused():
    image = np.arange(6, dtype="float32").reshape(1, 6, 1, 1) * np.ones((1, 1, 4, 1), "float32")
    resized = np.array(layers.BicubicResize(3, 4)(image))
    assert resized.shape == (1, 3, 4, 1)
    np.testing.assert_array_equal(resized, resized[:, :, :1] * np.ones((1, 1, 4, 1)))
    assert np.all(np.diff(resized[0, :, 0, 0]) > 1)


def test_cached_matrix_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        bicubic_matrix(8, 4)[0, 0] = 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_works_in_float32_under_a_mixed_policy(policy):
    image = np.random.default_rng(0).uniform(0, 255, (1, 8, 8, 3)).astype("float32")
    expected = layers.BicubicResize(6, 6)(image)
    keras.config.set_dtype_policy(policy)
    resized = layers.BicubicResize(6, 6)(image)
    assert resized.dtype == "float32"
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_batches_of_any_number_of_channels(channels):
    """In a graph: TensorFlow gets some batched products wrong, see the layer."""
    images = np.random.default_rng(0).uniform(0, 255, (4, 240, 40, channels)).astype("float32")
    expected = np.einsum(
        "yh,bhwc,xw->byxc", bicubic_matrix(240, 224), images, bicubic_matrix(40, 28)
    )
    model = keras.Sequential([keras.Input(images.shape[1:]), layers.BicubicResize(224, 28)])
    for _ in range(5):
        np.testing.assert_allclose(model.predict_on_batch(images), expected, atol=1e-3)
