"""Each of the 15 operations gives what PIL gives for the same magnitude."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_crossvit.data.augment.operations import OPERATIONS

FILL = (124, 116, 104)
MAGNITUDES = (0.0, 1.0, 3.3, 5.0, 9.0, 9.7, 10.0)
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


@pytest.fixture(scope="module")
def photos():
    """Two photographs, one of them neither square nor with sides divisible by four."""
    from sklearn.datasets import load_sample_images

    china, flower = load_sample_images().images
    return china[100:260, 150:310], flower[60:195, 200:373]


def by_table(image, table):
    return image.point(list(table) * 3)


def affine(image, *matrix):
    bicubic = Image.Resampling.BICUBIC
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=bicubic, fillcolor=FILL
    )


def pil(name, image, magnitude, sign):
    """The operation as timm's `rand-...-inc1` has PIL do it."""
    share = magnitude / 10
    width, height = image.size
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(max(0.1, 1 + sign * 0.9 * share))
    drop = 255 >> (4 - int(share * 4))  # of posterize, which PIL refuses for 0 bits
    add, shear, shift = int(share * 110), sign * 0.3 * share, sign * 0.45 * share
    return {
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageOps.invert(image),
        "Rotate": lambda: image.rotate(
            sign * 30 * share, resample=Image.Resampling.BICUBIC, fillcolor=FILL
        ),
        "Posterize": lambda: by_table(image, (i & ~drop for i in range(256))),
        "Solarize": lambda: ImageOps.solarize(image, 256 - int(share * 256)),
        "SolarizeAdd": lambda: by_table(image, (i + add * (i < 128) for i in range(256))),
        "ShearX": lambda: affine(image, 1, shear, 0, 0, 1, 0),
        "ShearY": lambda: affine(image, 1, 0, 0, shear, 1, 0),
        "TranslateX": lambda: affine(image, 1, 0, shift * width, 0, 1, 0),
        "TranslateY": lambda: affine(image, 1, 0, 0, 0, 1, shift * height),
    }[name]()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_pils(photos, name):
    for photo in photos:
        image, pixels = Image.fromarray(photo), tf.constant(photo)
        for magnitude in MAGNITUDES:
            for sign in (1.0, -1.0):
                ours = OPERATIONS[name](pixels, magnitude, sign).numpy()
                assert ours.dtype == np.uint8
                theirs = np.asarray(pil(name, image, magnitude, sign))
                difference = np.abs(ours.astype(int) - theirs.astype(int))
                # PIL's geometry is float64: a sum just below a whole number truncates differently.
                assert difference.max() <= (1 if name in GEOMETRIC else 0), (magnitude, sign)
                assert difference.mean() < 0.1, (magnitude, sign)


def test_operations_are_the_fifteen():
    assert list(OPERATIONS) == [
        *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize"),
        *("Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness"),
        *("Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"),
    ]


def test_operations_on_one_colour():
    """No histogram to stretch, no detail to sharpen: all but the border stays as it is."""
    pixels = tf.fill([20, 24, 3], tf.constant(77, tf.uint8))
    for name in ("AutoContrast", "Equalize", "Color", "Contrast", "Sharpness"):
        np.testing.assert_array_equal(OPERATIONS[name](pixels, 9.0), pixels, name)
    for name in GEOMETRIC:
        colours = np.unique(OPERATIONS[name](pixels, 9.0).numpy().reshape(-1, 3), axis=0)
        np.testing.assert_array_equal(colours, [(77, 77, 77), FILL], name)


def test_directions():
    """A positive sign takes pixels from the right or from below; rotation is to the left."""
    pixels = np.zeros((20, 20, 3), "uint8")
    pixels[9:11, 15:17] = 255
    for name, where in (("TranslateX", (10, 7)), ("TranslateY", (1, 16)), ("Rotate", (6, 14))):
        moved = OPERATIONS[name](tf.constant(pixels), 9.0).numpy()[..., 0]
        center = np.unravel_index(moved.argmax(), moved.shape)
        assert np.abs(np.subtract(center, where)).max() <= 1, (name, center)


def test_signs_do_not_matter_where_there_is_one_direction(photos):
    for name in ("AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd"):
        results = [OPERATIONS[name](tf.constant(photos[0]), 6.0, sign) for sign in (1.0, -1.0)]
        np.testing.assert_array_equal(*results)


def test_magnitude_in_float32_counts_as_the_number_it_stands_for(photos):
    """0.9 * 110 is 99, though in float32 it is less."""
    pixels = tf.constant(photos[0])
    added = OPERATIONS["SolarizeAdd"](pixels, tf.constant(9.0, tf.float32)).numpy()
    dark = photos[0] < 128
    np.testing.assert_array_equal(added[dark], photos[0][dark] + 99)
