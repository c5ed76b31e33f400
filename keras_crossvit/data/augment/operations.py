"""The 15 operations of RandAugment, by name, at a magnitude.

They are those of DeiT's policy `rand-m9-mstd0.5-inc1`, which CrossViT was trained with (section
4.1): all of them grow stronger with the magnitude. Each gives the same result as PIL for the
same magnitude.
"""

import functools

import tensorflow as tf

from keras_crossvit.data.augment import colour, geometry


def _strength(share, sign):
    return tf.maximum(1 + 0.9 * share * sign, 0.1)


def _whole(number):
    """Rounded down, as in the policy."""
    return tf.cast(number, tf.int32)


# The function, and its argument as a function of the magnitude (as a share of 10) and the sign.
_TABLE = {
    "AutoContrast": (colour.auto_contrast, None),
    "Equalize": (colour.equalize, None),
    "Invert": (colour.invert, None),
    "Rotate": (geometry.rotate, lambda share, sign: 30 * share * sign),
    "Posterize": (colour.posterize, lambda share, sign: 4 - _whole(share * 4)),
    "Solarize": (colour.solarize, lambda share, sign: 256 - _whole(share * 256)),
    "SolarizeAdd": (colour.solarize_add, lambda share, sign: _whole(share * 110)),
    "Color": (colour.colour, _strength),
    "Contrast": (colour.contrast, _strength),
    "Brightness": (colour.brightness, _strength),
    "Sharpness": (colour.sharpness, _strength),
    "ShearX": (geometry.shear_x, lambda share, sign: 0.3 * share * sign),
    "ShearY": (geometry.shear_y, lambda share, sign: 0.3 * share * sign),
    "TranslateX": (geometry.translate_x, lambda share, sign: 0.45 * share * sign),
    "TranslateY": (geometry.translate_y, lambda share, sign: 0.45 * share * sign),
}


def _operate(function, argument, pixels, magnitude, sign=1.0):
    if argument is None:
        return function(pixels)
    # In float64, because in float32 a magnitude of 9 would add 98 where it should add 99.
    share, sign = tf.cast(magnitude, tf.float64) / 10, tf.cast(sign, tf.float64)
    return function(pixels, argument(share, sign))


OPERATIONS = {
    name: functools.partial(_operate, function, argument)
    for name, (function, argument) in _TABLE.items()
}
"""`{name: function}`.

Each function takes `(pixels, magnitude, sign=1.0)`: uint8 `(H, W, 3)` with known sides, a
number in 0..10, and 1 or -1, the direction of those operations that have two (Rotate, Shear,
Translate; Color, Contrast, Brightness, Sharpness, where -1 weakens). It returns uint8
`(H, W, 3)`. The arguments that PIL would be given, with m the magnitude and s the sign:

| name | argument |
| --- | --- |
| AutoContrast, Equalize, Invert | none |
| Rotate | 3 m s degrees, counter-clockwise |
| Posterize | 4 - int(0.4 m) bits; 0 bits give black |
| Solarize | threshold 256 - int(25.6 m) |
| SolarizeAdd | int(11 m) is added to values below 128 |
| Color, Contrast, Brightness, Sharpness | factor max(0.1, 1 + 0.09 m s) |
| ShearX, ShearY | coefficient 0.03 m s of the affine matrix |
| TranslateX, TranslateY | offset of 0.045 m s of the side in the affine matrix |
"""
