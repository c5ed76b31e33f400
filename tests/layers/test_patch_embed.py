"""Patch embeddings: the order of the patches and the padding of the convolutions, by value."""

import keras
import numpy as np
import pytest

from keras_crossvit import layers
from tests import reference


def conv(x, kernel, bias, stride, pad):
    """A convolution with equal zero padding on all sides, window by window; `x` is `(H, W, C)`."""
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    side = kernel.shape[0]
    rows = (x.shape[0] - side) // stride + 1
    columns = (x.shape[1] - side) // stride + 1
    y = np.empty((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[i * stride : i * stride + side, j * stride : j * stride + side]
            y[i, j] = np.tensordot(window, kernel, 3) + bias
    return y


def test_linear_embedding_is_a_product_with_each_flat_patch_row_by_row():
    layer = layers.PatchEmbed(4, 5)
    layer.build((None, 8, 12, 3))
    w = reference.arrays(reference.randomize(layer))
    image = reference.tokens(2, 8, 12, 3)
    y = np.array(layer(image))
    assert y.shape == (2, 6, 5)
    assert layer.grid == (2, 3)
    for index in range(6):
        row, column = divmod(index, 3)
        patch = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(2, -1)
        expected = patch @ w["proj/kernel"].reshape(-1, 5) + w["proj/bias"]
        np.testing.assert_allclose(y[:, index], expected, atol=1e-5)


# (kernel, stride, padding) of the released code's three convolutions.
STEMS = {12: ((7, 4, 3), (3, 3, 0), (3, 1, 1)), 16: ((7, 4, 3), (3, 2, 1), (3, 2, 1))}


@pytest.mark.parametrize("patch_size", [12, 16])
def test_conv_embedding_is_three_symmetric_convolutions_with_relu_between(patch_size):
    layer = layers.ConvPatchEmbed(patch_size, 8)
    layer.build((None, 48, 96, 3))
    w = reference.arrays(reference.randomize(layer))
    image = reference.tokens(1, 48, 96, 3)
    x = image[0].astype("float64")
    for index, (kernel, stride, pad) in enumerate(STEMS[patch_size]):
        assert w[f"conv_{index}/kernel"].shape == (kernel, kernel, x.shape[-1], (2, 4, 8)[index])
        x = np.maximum(x, 0) if index else x
        x = conv(x, w[f"conv_{index}/kernel"], w[f"conv_{index}/bias"], stride, pad)
    assert x.shape == (48 // patch_size, 96 // patch_size, 8)
    assert layer.grid == x.shape[:2]
    np.testing.assert_allclose(layer(image)[0], x.reshape(-1, 8), rtol=1e-4, atol=1e-3)


def test_channels_are_last_whatever_the_global_data_format():
    keras.config.set_image_data_format("channels_first")
    try:
        layer = layers.PatchEmbed(4, 6)
        layer.build((None, 8, 12, 3))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert layer.convs[0].kernel.shape == (4, 4, 3, 6)
    assert layer(np.zeros((2, 8, 12, 3), "float32")).shape == (2, 6, 6)


def test_macs_count_each_window():
    # 6 patches of 4 x 4 x 3 values to 5.
    assert layers.PatchEmbed(4, 5).macs((None, 8, 12, 3)) == 6 * 48 * 5
    # 48 x 48: 12 x 12 windows, then 4 x 4 and 4 x 4.
    expected = 144 * 49 * 3 * 2 + 16 * 9 * 2 * 4 + 16 * 9 * 4 * 8
    assert layers.ConvPatchEmbed(12, 8).macs((None, 48, 48, 3)) == expected
