"""Images in 0..1 where 0..255 is expected are warned about, once."""

import logging

import keras
import numpy as np
import pytest

from keras_crossvit import visualize
from keras_crossvit.common import pixels
from tests import base

WARNING = (
    "The model expects pixels in 0..255, but these images are in 0..1, nearly black to it: "
    "multiply them by 255."
)


@pytest.fixture
def warned(caplog):
    """A function that returns the warnings so far, as in a new process."""
    pixels._say_once.cache_clear()
    caplog.set_level(logging.WARNING, logger="keras_crossvit")
    # TensorFlow's own retracing warnings come at any of these calls.
    yield lambda: [
        record.getMessage() for record in caplog.records if record.name == "keras_crossvit"
    ]
    pixels._say_once.cache_clear()


def test_images_in_0_to_1_are_spoken_of_once(model, warned):
    images = base.pixels(2) / 255
    expected = np.array(model(images))
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)
    assert warned() == [WARNING]
    model.predict(images, verbose=0)
    assert warned() == [WARNING]


def test_evaluation_speaks_of_them_too(fresh_model, warned):
    fresh_model.compile(loss="mse")
    fresh_model.evaluate(base.pixels(2) / 255, np.zeros((2, 5)), verbose=0)
    assert warned() == [WARNING]


def test_each_of_two_images_is_looked_at(warned):
    pixels.warn_of_unit_range([base.pixels(1), base.pixels(1) / 255])
    assert warned() == [WARNING]


def test_model_without_preprocessing_may_see_any_range(warned):
    model = base.small_model(include_preprocessing=False)
    model.predict(base.pixels(2) / 255, verbose=0)
    assert not warned()


def test_model_on_an_input_tensor_may_scale_them_itself(warned):
    image = keras.Input((40, 40, 3))
    scaled = keras.layers.Rescaling(255.0)(image)
    model = base.small_model(input_tensor=scaled)
    model.predict(base.pixels(2) / 255, verbose=0)
    visualize.cross_attention(model, base.pixels(2) / 255)
    assert not warned()
    model = base.small_model(input_tensor=image)
    model.predict(base.pixels(2) / 255, verbose=0)
    assert warned() == [WARNING]


@pytest.mark.parametrize(
    "images",
    [
        base.pixels(2),
        np.zeros((2, 40, 40, 3), "float32"),
        np.ones((2, 40, 40, 3), "uint8"),
        base.pixels(2) / 127.5 - 1,
        np.full((2, 40, 40, 3), np.nan),
        np.zeros((0, 40, 40, 3)),
        np.float32(0.5),
        [[0.5]],
        None,
    ],
    ids=["0 to 255", "black", "integers", "-1 to 1", "NaN", "none", "scalar", "list", "nothing"],
)
def test_other_images_pass_without_a_word(images, warned):
    pixels.warn_of_unit_range(images)
    assert not warned()
