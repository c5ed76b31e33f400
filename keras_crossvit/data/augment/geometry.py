"""Shears, shifts and rotations, pixel by pixel as PIL's `Image.transform` computes them.

PIL's bicubic kernel has a = -1 here (not the -0.5 of its resize). Edge pixels are repeated,
results are rounded down, and a pixel whose source lies outside the image gets the fill colour.
All functions take and return uint8 `(H, W, 3)` with known sides. Source positions are computed
in float64, as PIL does, and pixels in float32.
"""

import math

import numpy as np
import tensorflow as tf

FILL = (124, 116, 104)  # ImageNet's mean colour, rounded

# In flat areas the weighted sum is a whole number, give or take its last bits: this keeps it from
# being rounded down to the number below.
_BEFORE_ROUNDING_DOWN = 2.0**-12


def shear_x(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Row y moves by `factor * (y + 1/2)` to the left."""
    return _transpose(_shift_rows(pixels, _shear(pixels.shape[0], factor)))


def shear_y(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Column x moves by `factor * (x + 1/2)` upwards."""
    return _shift_rows(_transpose(pixels), _shear(pixels.shape[1], factor))


def translate_x(pixels: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Everything moves by `share` of the width to the left."""
    height, width = pixels.shape[:2]
    return _transpose(_shift_rows(pixels, tf.fill([height], share * width)))


def translate_y(pixels: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Everything moves by `share` of the height upwards."""
    height, width = pixels.shape[:2]
    return _shift_rows(_transpose(pixels), tf.fill([width], share * height))


def rotate(pixels: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns counter-clockwise about the centre, by less than 90 degrees."""
    height, width = pixels.shape[:2]
    angle = degrees * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    x, y = np.arange(width) + 0.5 - width / 2, np.arange(height)[:, None] + 0.5 - height / 2
    # Only the sum over rows and columns is in float32, because it is what takes time.
    source_x = _outer_sum(width / 2 - sine * y, cosine * x)
    source_y = _outer_sum(height / 2 + cosine * y, sine * x)
    outside = (source_x < 0) | (source_x >= width) | (source_y < 0) | (source_y >= height)
    outside = tf.cast(outside, tf.float32)
    first_x, weights_x = _taps(source_x)
    first_y, weights_y = _taps(source_y)
    weights_y *= 1 - outside

    runs, columns = _runs_of_four(pixels)
    last = columns * (height + 1) - 4
    at = tf.clip_by_value(first_y * columns + first_x + 2 * columns + 2, 0, last)
    number = _number(runs, at)
    turned = outside * np.array(FILL, np.float32)[:, None]
    for row in range(4):
        # Transposed, so that pixels lie side by side: faster to multiply than 3 channels.
        taps = tf.transpose(tf.gather(runs, number + row * columns // 4))
        taps = tf.reshape(tf.cast(taps, tf.float32), [4, 3, height * width])
        turned += tf.reduce_sum(taps * weights_x[:, None], 0) * weights_y[row]
    return tf.reshape(_rounded_down(tf.transpose(turned)), pixels.shape)


def _outer_sum(rows, columns):
    return tf.reshape(tf.cast(rows, tf.float32) + tf.cast(columns, tf.float32), [-1])


def _shear(count, factor):
    return factor * (tf.range(count, dtype=tf.float64) + 0.5)


def _shift_rows(pixels, shifts):
    """Row y moves by `shifts[y]` pixels to the left, float64 `(H,)`; returned as `(W, H, 3)`."""
    height, width = pixels.shape[:2]
    first, weights = _taps(shifts + 0.5)
    runs, columns = _runs_of_four(pixels)
    # What lies outside the padding belongs to another row, and is filled at the end.
    start = first + 2 + columns * (np.arange(height) + 2)
    at = start[:, None] + np.arange(0, width + 3, 4)
    taps = tf.gather(runs, _number(runs, tf.clip_by_value(at, 0, columns * (height + 4) - 4)))
    taps = tf.transpose(tf.reshape(taps, [height, -1, 3])[:, : width + 3], [1, 0, 2])
    taps = tf.reshape(tf.cast(taps, tf.float32), [1, width + 3, 1, height * 3])
    weights = tf.reshape(tf.repeat(weights, 3, axis=1), [4, 1, height * 3, 1])
    # With one channel for each row this is as fast as one multiplication.
    moved = tf.nn.depthwise_conv2d(taps, weights, [1, 1, 1, 1], "VALID")
    moved = tf.reshape(moved, [width, height * 3])

    begin, end = (
        tf.repeat(tf.cast(tf.math.ceil(edge - 0.5 - shifts), tf.int32), 3) for edge in (0, width)
    )
    column = np.arange(width)[:, None]
    fill = tf.broadcast_to(np.tile(np.array(FILL, np.float32), height), moved.shape)
    moved = tf.where((column >= begin) & (column < end), moved, fill)
    return tf.reshape(_rounded_down(moved), [width, height, 3])


def _runs_of_four(pixels):
    """All runs of four pixels in a row, uint8 `(4 N, 12)`, and the length of a row.

    The image is padded by two pixels on each side, which repeat its edges, and by some more on
    the right that make the length of a row a multiple of four. The run that begins with pixel i
    has the number `i // 4 + N (i % 4)`, so that four shifted copies of the image hold them all.
    """
    height, width = pixels.shape[:2]
    rows = tf.gather(pixels, np.clip(np.arange(-2, height + 2), 0, height - 1))
    right = 2 + -width % 4
    columns = [rows[:, :1]] * 2 + [rows] + [rows[:, -1:]] * right
    flat = tf.pad(tf.reshape(tf.concat(columns, axis=1), [-1]), [[0, 9]])
    size = (height + 4) * (width + 2 + right) * 3
    copies = tf.stack([flat[3 * i : 3 * i + size] for i in range(4)])
    return tf.reshape(copies, [-1, 12]), width + 2 + right


def _number(runs, at):
    """The number of the run that begins with pixel `at`."""
    return tf.bitwise.right_shift(at, 2) + (at & 3) * (runs.shape[0] // 4)


def _taps(source):
    """The first of the four pixels around a position and their weights.

    Args:
        source: float `(N,)`; the middle of pixel i is at i + 1/2.

    Returns:
        int32 `(N,)` and float32 `(4, N)`.
    """
    whole = tf.floor(source - 0.5)
    d = tf.cast(source - 0.5 - whole, tf.float32)
    square = d * d
    last = square * d - square
    weights = [square - d - last, 1 - square + last, d - last, last]
    return tf.cast(whole, tf.int32) - 1, tf.stack(weights)


def _rounded_down(moved):
    """Rounds float32 pixels down to uint8, clipped to 0..255."""
    return tf.cast(tf.clip_by_value(moved + _BEFORE_ROUNDING_DOWN, 0.0, 255.0), tf.uint8)


def _transpose(pixels):
    return tf.transpose(pixels, [1, 0, 2])
