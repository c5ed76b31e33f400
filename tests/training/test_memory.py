"""What a training step is estimated to take."""

import keras

from keras_crossvit.training.memory import activation_bytes
from tests.base import small_model


def test_weights_in_bfloat16_are_no_activations():
    """They are cast once, however many images there are; each activation takes half as much."""
    image = activation_bytes(small_model())
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = activation_bytes(small_model())
    assert 0.45 * image < half < 0.55 * image
