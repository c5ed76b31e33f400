"""Class token, position embedding and pooling by value."""

import numpy as np
import pytest

from keras_crossvit import layers
from tests import reference


def test_class_token_comes_first_and_is_the_same_for_all_samples():
    layer = layers.ClassToken()
    layer.build((None, 3, 4))
    layer.token.assign(np.arange(4.0).reshape(1, 1, 4))
    x = reference.tokens(2, 3, 4)
    y = np.array(layer(x))
    np.testing.assert_array_equal(y[:, 0], [[0, 1, 2, 3]] * 2)
    np.testing.assert_array_equal(y[:, 1:], x)


def test_position_embedding_adds_one_row_per_token():
    layer = layers.PositionEmbedding()
    layer.build((None, 3, 2))
    layer.embedding.assign([[[1, 2], [3, 4], [5, 6]]])
    x = reference.tokens(2, 3, 2)
    added = np.array([[1, 2], [3, 4], [5, 6]])
    np.testing.assert_allclose(layer(x), x + added, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "class_token", "expected"),
    [
        ("token", True, [10, -1]),
        ("avg", True, [2, 4]),
        ("max", True, [3, 5]),
        ("avg", False, [14 / 3, 7 / 3]),
        ("max", False, [10, 5]),
    ],
)
def test_pool_leaves_the_class_token_to_its_own_mode(mode, class_token, expected):
    x = np.array([[[10, -1], [1, 5], [3, 3]]], "float32")
    y = layers.TokenPool(mode, class_token=class_token)(x)
    np.testing.assert_allclose(y, [expected], rtol=1e-6)
